// Looks at pages of clusters of 5, 100 and 2,000 workloads in headless Chromium, as a user would.
import assert from "node:assert/strict";
import chromium from "@sparticuz/chromium";
import puppeteer from "puppeteer-core";

const HOSTILE = "</script><img src=x onerror=window.hacked=1>";
const browser = await puppeteer.launch({
  args: [...chromium.args, "--no-sandbox"],
  executablePath: await chromium.executablePath(),
  headless: "shell",
  defaultViewport: { width: 1280, height: 900 },
});

// Nothing is fetched, and nothing fails in the page.
async function open(file, width = 1280) {
  const page = await browser.newPage();
  await page.setViewport({ width, height: 900 });
  page.on("pageerror", error => assert.fail(`${file}: ${error}`));
  page.on("console", message => assert.notEqual(message.type(), "error", `${file}: ${message.text()}`));
  const fetched = [];
  page.on("request", request => fetched.push(request.url()));
  const started = Date.now();
  await page.goto(new URL(file, `file://${process.cwd()}/`).href);
  await page.waitForSelector("#cells .cell");
  const took = Date.now() - started;
  assert.equal(fetched.length, 1, `the page stands alone: ${fetched}`);
  assert.ok(took < 8000, `${file} is shown after ${took} ms`);
  console.log(`${file}: shown after ${took} ms`);
  return page;
}

const texts = (page, selector) => page.$$eval(selector, all => all.map(element => element.textContent));
const rows = (page, section) => page.$$eval(`${section} tbody tr`, all => all.map(row => [...row.cells].map(cell => cell.innerText)));

async function showsWhatTheClusterIs() {
  const page = await open("5.html");
  const cards = await texts(page, ".card");
  assert.deepEqual(cards.slice(0, 4), ["2 of 4nodes ready", "3 of 4nodes answered", "1pods not enforced", "5policies that select pods"]);
  const nodes = await rows(page, "#nodes");
  assert.deepEqual(nodes.map(row => row.slice(0, 2)), [
    ["node-003", "no answer"], ["node-000", "ready"], ["node-001", "not ready"], ["node-002", "ready"]]);
  assert.equal(nodes[2].at(-1), HOSTILE, "what an agent says is text");
  assert.equal((await rows(page, "#unenforced"))[0][3], HOSTILE);
  const denied = await rows(page, "#denied");
  assert.ok(denied.some(row => row[1] === "ns-00/w0000" && row[2] === "ns-00/w0002" && row[7] === "ns-00/p0002"), denied.join("\n"));
  assert.ok(denied.some(row => row[1] === `ns-00/${HOSTILE}` && row[9] === "203.0.113.9"));
  const titles = await page.$$eval("#cells .cell", all => all.map(cell => cell.title));
  assert.equal(titles.length, 25);
  assert.ok(titles.includes("ns-00/w0000 → ns-00/w0001 TCP/80: allowed"));
  assert.ok(titles.includes("ns-00/w0000 → ns-00/w0002 TCP/80: denied"));
  // A line for each pair: next, the one after, and two with the outside.
  assert.equal((await page.$$("#drawing path")).length, 12);
  assert.equal((await page.$$("#drawing path.denied")).length, 6);
  // A long name is cut in its middle, not by the edge of the page.
  for (const width of [1280, 400]) {
    await page.setViewport({ width, height: 900 });
    await page.waitForFunction(width => document.querySelector("#drawing svg")?.clientWidth < width, {}, width);
    // It is drawn again when the width changes, and a name that is not laid out yet is at 0.
    await page.waitForFunction(() => {
      const left = element => element.getBoundingClientRect().left;
      const drawing = document.querySelector("#drawing svg");
      const names = [...document.querySelectorAll("#drawing .end text")];
      return drawing && names.length > 0 && names.every(name => left(name) >= left(drawing));
    });
  }
}

async function runsNoForeignScript() {
  const page = await browser.newPage();
  await page.goto(new URL("5.html", `file://${process.cwd()}/`).href);
  const ran = await page.evaluate(() => {
    const script = document.createElement("script");
    script.textContent = "window.hacked = 1";
    document.body.append(script);
    const image = document.createElement("img");
    image.setAttribute("onerror", "window.hacked = 2");
    image.src = "data:,x";
    document.body.append(image);
    return new Promise(done => setTimeout(() => done(window.hacked), 50));
  });
  assert.equal(ran, undefined);
  await page.close();
  const other = await open("5.html");
  assert.equal((await other.$$("img")).length, 0);
  assert.equal(await other.evaluate(() => window.hacked), undefined);
}

async function isUsedByKeyboardAlone() {
  const page = await open("5.html");
  const isFocused = selector => page.evaluate(selector => document.activeElement?.matches(selector), selector);
  const tabTo = async selector => {
    for (let steps = 0; steps < 200; steps += 1) {
      if (await isFocused(selector)) return;
      await page.keyboard.press("Tab");
    }
    assert.fail(`${selector} is not reached by Tab`);
  };
  await tabTo("#nodes th button");
  await page.keyboard.press("Enter");
  assert.equal((await rows(page, "#nodes"))[0][0], "node-000", "sorted by name");
  await page.keyboard.press("Enter");
  assert.equal((await rows(page, "#nodes"))[0][0], "node-003");
  await tabTo("#drawing .end");
  await page.keyboard.press("Enter");
  assert.equal((await page.$$("#drawing .end.chosen")).length, 1);
  assert.match((await texts(page, "#drawing .hint"))[0], /→/);
  await tabTo("#cells");
  await page.keyboard.press("ArrowRight");
  await page.keyboard.press("ArrowRight");
  assert.equal((await texts(page, "#said"))[0], "ns-00/w0000 → ns-00/w0001 TCP/80: allowed");
  await page.keyboard.press("ArrowDown");
  assert.equal((await texts(page, "#said"))[0], "ns-00/w0001 → ns-00/w0001 TCP/80: denied");
}

async function drawsWhatStaysReadable() {
  const page = await open("100.html");
  assert.equal((await page.$$("#drawing svg")).length, 0);
  assert.match((await texts(page, "#drawing"))[0], /^102 workloads talk: too many for a drawing/);
  await page.select("#namespace", "ns-01");
  assert.equal((await page.$$("#drawing svg")).length, 1, "one namespace has 50");
  for (const width of [1280, 400]) {
    await page.setViewport({ width, height: 900 });
    await page.waitForFunction(width => document.querySelector("#drawing svg")?.clientWidth < width, {}, width);
    const boxes = await page.$$eval("#drawing .end text", all => all.map(text => {
      const { left, right, top, bottom } = text.getBoundingClientRect();
      return { left, right, top, bottom };
    }));
    assert.equal(boxes.length, 100, "50 on each side");
    const apart = (one, other) =>
      one.right <= other.left || other.right <= one.left || one.bottom <= other.top + 1 || other.bottom <= one.top + 1;
    for (const [at, one] of boxes.entries()) {
      assert.ok(one.left >= 0 && one.right <= width, `a name leaves the page: ${JSON.stringify(one)}`);
      for (const other of boxes.slice(at + 1)) assert.ok(apart(one, other), JSON.stringify([one, other]));
    }
  }
  const policies = await rows(page, "#policies");
  assert.ok(policies.length === 50 && policies.every(([name]) => name.startsWith("ns-01/")));
  await page.type("#text", "p0099");
  assert.deepEqual((await rows(page, "#policies")).map(([name]) => name), ["ns-01/p0099"]);
}

async function staysQuickAndSmall() {
  const page = await open("2000.html");
  const count = (await page.$$("*")).length;
  assert.ok(count < 20000, `${count} elements`);
  assert.equal((await rows(page, "#policies")).length, 100);
  await page.$eval("#policies .more", button => button.click());
  assert.equal((await rows(page, "#policies")).length, 1100);
  const started = Date.now();
  await page.select("#namespace", "ns-07");
  await page.type("#text", "w1987");
  await page.$eval("#cells", cells => cells.scrollTo(cells.scrollWidth, cells.scrollHeight));
  assert.ok(Date.now() - started < 5000);
  assert.deepEqual(await texts(page, "#rows .name"), ["ns-07/w1987"]);
}

async function fitsEveryWidthAndColour() {
  for (const file of ["5.html", "100.html"]) {
    const page = await open(file, 400);
    const width = await page.evaluate(() => document.documentElement.scrollWidth);
    assert.ok(width <= 400, `${file} is ${width} wide at 400`);
    const brightness = async (scheme, property) => {
      await page.emulateMediaFeatures([{ name: "prefers-color-scheme", value: scheme }]);
      const colour = await page.$eval("body", (body, property) => getComputedStyle(body)[property], property);
      return colour.match(/\d+/g).slice(0, 3).reduce((sum, part) => sum + Number(part), 0) / 3;
    };
    assert.ok(await brightness("light", "backgroundColor") - await brightness("light", "color") > 150);
    assert.ok(await brightness("dark", "color") - await brightness("dark", "backgroundColor") > 150);
  }
}

try {
  await showsWhatTheClusterIs();
  await runsNoForeignScript();
  await isUsedByKeyboardAlone();
  await drawsWhatStaysReadable();
  await staysQuickAndSmall();
  await fitsEveryWidthAndColour();
} finally {
  await browser.close();
}
