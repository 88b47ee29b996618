// Looks at pages of matrices in headless Chromium, as a user would: reads, filters, sorts, clicks and types.
// Beside it lie the pages and facts.json: the matrix, and the text of `podgate explain` for every pair.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import chromium from "@sparticuz/chromium";
import puppeteer from "puppeteer-core";

const facts = JSON.parse(readFileSync("facts.json", "utf8"));
const browser = await puppeteer.launch({
  args: [...chromium.args, "--no-sandbox"],
  executablePath: await chromium.executablePath(),
  headless: "shell",
  defaultViewport: { width: 1400, height: 900 },
});
// Nothing is fetched, and nothing fails in the page.
async function open(file) {
  const page = await browser.newPage();
  page.on("pageerror", error => assert.fail(`${file}: ${error}`));
  const fetched = [];
  page.on("request", request => fetched.push(request.url()));
  await page.goto(new URL(file, `file://${process.cwd()}/`).href);
  assert.equal(fetched.length, 1, `the page stands alone: ${fetched}`);
  return page;
}

const texts = (page, selector) => page.$$eval(selector, all => all.map(element => element.textContent));
const titleOf = (from, to, words) => `${from} → ${to}: ${words}`;
const clickOn = (page, start) => page.click(`#cells [title^="${start}"]`);

async function explains() {
  const page = await open("matrix.html");
  const { pods, ports } = facts.matrix;
  const words = { ".": "allowed", "X": "denied", "-": "no port of this name" };
  let seen = 0;
  for (const [index, port] of (await texts(page, "#port option")).entries()) {
    await page.select("#port", String(index));
    for (const from of pods) {
      for (const [at, to] of pods.entries()) {
        const verdict = ports[port][from][at];
        await page.click(`[title="${titleOf(from, to, words[verdict])}"]`);
        assert.equal((await texts(page, "#why h2"))[0], `${from} → ${to} ${port}`);
        const shown = (await texts(page, "#why pre")).map(text => text.trimEnd());
        const explained = facts.explained[`${from} ${to} ${port}`];
        if (explained === undefined) {
          assert.equal(shown.length, 0, "itself, or no such port");
          continue;
        }
        // The sides of `explain` stand below an empty line each.
        assert.deepEqual(shown, explained.trimEnd().split("\n\n").slice(1), `${from} ${to} ${port}`);
        seen += 1;
      }
    }
  }
  assert.equal(seen, Object.keys(facts.explained).length);
  // A cell that was chosen is left by the arrow keys.
  await clickOn(page, "shop/backend-1 → shop/backend-1:");
  await page.keyboard.press("ArrowRight");
  assert.match((await texts(page, "#why h2"))[0], /^shop\/backend-1 → shop\/backend-2 /);
}

async function filtersAndSorts() {
  const page = await open("matrix.html");
  const rows = () => texts(page, "#rows .name");
  const columns = () => texts(page, "#columns .name");
  const { pods } = facts.matrix;
  assert.deepEqual(await rows(), pods);
  assert.deepEqual(await columns(), pods);
  await page.select("[data-axis=from] .namespace", "guests");
  assert.deepEqual(await rows(), ["guests/visitor"]);
  assert.deepEqual(await columns(), pods, "the other axis keeps its own filter");
  await page.type("[data-axis=to] .label", "role=backend");
  assert.deepEqual(await columns(), ["shop/backend-1", "shop/backend-2"]);
  assert.match((await texts(page, "#sum"))[0], /^1 × 2 pods: 0 pairs allowed, 2 denied$/);
  await page.select("[data-axis=from] .namespace", "");
  await page.$eval("[data-axis=to] .label", input => { input.value = ""; });
  await page.type("[data-axis=to] .label", "canary");
  assert.deepEqual(await columns(), ["shop/backend-2"], "a key alone");
  await page.$eval("[data-axis=to] .label", input => { input.value = ""; });
  const row = facts.matrix.ports["TCP/8080"];
  const open_ = pod => [...row[pod]].filter(verdict => verdict === ".").length;
  await page.select("[data-axis=from] .sort", "most");
  const most = await rows();
  assert.deepEqual(most.map(open_), pods.map(open_).sort((one, other) => other - one));
  await page.select("[data-axis=from] .sort", "fewest");
  assert.deepEqual((await rows()).map(open_), pods.map(open_).sort((one, other) => one - other));
}

async function marksChanges() {
  const page = await open("diff.html");
  assert.match((await texts(page, "#sum"))[0], /the change opens 6 and closes 0$/);
  assert.equal((await page.$$("#cells .opens")).length, 6);
  await clickOn(page, "shop/database → shop/backend-1:");
  assert.match((await texts(page, "#why"))[0], /allowed, opened by the change/);
}

async function drawsWhatIsInSight() {
  const page = await open("crowd.html");
  const count = (await page.$$("#cells .cell")).length;
  assert.ok(count > 500 && count < 5000, `${count} cells of 160000`);
  await page.$eval("#cells", cells => cells.scrollTo(cells.scrollWidth, cells.scrollHeight));
  await page.waitForSelector(`[title="${titleOf("default/p399", "default/p399", "allowed")}"]`);
  assert.equal((await texts(page, "#rows .name")).at(-1), "default/p399");
  const [name, cell] = await Promise.all(["#rows .name:last-child", `[title^="default/p399 → default/p398:"]`].map(
    selector => page.$eval(selector, element => element.getBoundingClientRect().top)));
  assert.ok(Math.abs(name - cell) < 2, `a row stands beside its name: ${name} ${cell}`);
  // 80,000 denied pairs share one text, but for their names.
  await clickOn(page, "default/p398 → default/p399:");
  const shown = await texts(page, "#why pre");
  assert.match(shown[1], /from\[0\] wants half=none on the pod, default\/p398 has half=0/);
  const size = readFileSync("crowd.html").length;
  assert.ok(size < 400 * 1000, `${size} bytes for 160,000 pairs`);
}

async function showsWorkloadsOfManyPods() {
  const page = await open("workloads.html");
  assert.deepEqual(await texts(page, "#rows .name"), ["default/0 ×200", "default/1 ×200"]);
  await clickOn(page, "default/0 ×200 → default/1 ×200:");
  assert.match((await texts(page, "#why"))[0], /denied.*half=none on the pod, default\/0 ×200 has half=0/s);
  assert.match((await texts(page, "#why code"))[0], /--from default\/p000 --to default\/p001 /);
  // Two pods of one workload are not one pod and itself.
  await clickOn(page, "default/1 ×200 → default/1 ×200:");
  assert.match((await texts(page, "#why"))[0], /denied.*Between two different pods of it/s);
  assert.match((await texts(page, "#why code"))[0], /--from default\/p001 --to default\/p003 /);
}

async function isUsableByKeyboardAndOnATelephone() {
  const page = await open("matrix.html");
  await page.focus("#cells");
  await page.keyboard.press("ArrowDown");
  const { pods } = facts.matrix;
  assert.equal((await texts(page, "#why h2"))[0], `${pods[0]} → ${pods[0]} TCP/8080`);
  await page.keyboard.press("ArrowRight");
  assert.equal((await texts(page, "#why h2"))[0], `${pods[0]} → ${pods[1]} TCP/8080`);
  await page.setViewport({ width: 390, height: 844 });
  const why = await page.$eval("#why", ({ clientHeight, scrollHeight }) => ({ clientHeight, scrollHeight }));
  assert.ok(why.clientHeight > 200 && why.scrollHeight <= why.clientHeight + 1, `reasons are whole: ${JSON.stringify(why)}`);
  assert.ok(await page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "nothing is wider than the screen");
  const short = await page.evaluate(`shortened("team-000/backend-7d9c8f-00020")`);
  assert.ok(short.startsWith("team-") && short.endsWith("8f-00020"), short);
}

async function followsTheColoursOfTheUser() {
  const page = await open("matrix.html");
  const brightness = async scheme => {
    await page.emulateMediaFeatures([{ name: "prefers-color-scheme", value: scheme }]);
    const colour = await page.$eval("body", body => getComputedStyle(body).backgroundColor);
    return colour.match(/\d+/g).slice(0, 3).reduce((sum, part) => sum + Number(part), 0) / 3;
  };
  assert.ok(await brightness("light") > 200);
  assert.ok(await brightness("dark") < 60);
}

try {
  await explains();
  await filtersAndSorts();
  await marksChanges();
  await drawsWhatIsInSight();
  await showsWorkloadsOfManyPods();
  await isUsableByKeyboardAndOnATelephone();
  await followsTheColoursOfTheUser();
} finally {
  await browser.close();
}
