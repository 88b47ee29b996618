// The page of a matrix: filters, sorts and draws what is in sight, and lays out why a cell is as it is.
const KINDS = {
  ".": { name: "allow", sign: "✓", words: "allowed" },
  "X": { name: "deny", sign: "✗", words: "denied" },
  "-": { name: "none", sign: "–", words: "no port of this name" },
  "+": { name: "opens", sign: "✓", words: "allowed, opened by the change" },
  "!": { name: "closes", sign: "✗", words: "denied, closed by the change" },
};
const isOpen = verdict => verdict === "." || verdict === "+";
const SORTS = { name: "name", most: "most allowed first", fewest: "fewest allowed first" };
const CELL = 20;
// Drawn beyond what is in sight, so that a short scroll shows no gap.
const BEYOND = 6;

const state = { port: 0, from: [], to: [], chosen: null };
const verdictOf = (from, to) => data.ports[state.port].rows[from][to];

function start() {
  const namespaces = [...new Set(data.pods.map(pod => pod.namespace))].sort();
  const labels = new Set(data.pods.flatMap(pod => Object.entries(pod.labels).map(pair => pair.join("="))));
  find("#labels").append(...[...labels].sort().map(label => make("option", { value: label })));
  find("#port").append(...data.ports.map(({ port }, index) => make("option", { value: index }, port)));
  for (const axis of document.querySelectorAll("fieldset")) {
    const all = make("option", { value: "" }, "all");
    find(".namespace", axis).append(all, ...namespaces.map(name => make("option", { value: name }, name)));
    const sorts = Object.entries(SORTS);
    find(".sort", axis).append(...sorts.map(([value, words]) => make("option", { value }, words)));
  }
  const shown = data.is_difference ? [".", "X", "-", "+", "!"] : [".", "X", "-"];
  find("#legend").append(...shown.flatMap(verdict => {
    const { name, sign, words } = KINDS[verdict];
    return [make("span", { className: `cell ${name}` }, sign), words];
  }));
  find("#controls").addEventListener("input", arrange);
  find("#controls").addEventListener("submit", event => event.preventDefault());
  find("#cells").addEventListener("scroll", () => requestAnimationFrame(draw));
  find("#cells").addEventListener("click", choose);
  find("#cells").addEventListener("keydown", move);
  window.addEventListener("resize", draw);
  arrange();
}

// Which pods are shown, and in which order.
function arrange() {
  state.port = Number(find("#port").value);
  for (const axis of document.querySelectorAll("fieldset")) {
    const namespace = find(".namespace", axis).value;
    const label = find(".label", axis).value.trim();
    state[axis.dataset.axis] = [...data.pods.keys()].filter(index => {
      const pod = data.pods[index];
      return (!namespace || pod.namespace === namespace) && hasLabel(pod.labels, label);
    });
  }
  const open = {
    from: pod => state.to.filter(to => isOpen(verdictOf(pod, to))).length,
    to: pod => state.from.filter(from => isOpen(verdictOf(from, pod))).length,
  };
  // Both are counted before either is set: the order of one does not change the other.
  const sorted = [...document.querySelectorAll("fieldset")].map(axis => {
    const name = axis.dataset.axis;
    const sort = find(".sort", axis).value;
    if (sort === "name") return [name, state[name]];
    const counts = new Map(state[name].map(pod => [pod, open[name](pod)]));
    const sign = sort === "most" ? -1 : 1;
    return [name, [...state[name]].sort((one, other) => sign * (counts.get(one) - counts.get(other)) || one - other)];
  });
  for (const [name, pods] of sorted) state[name] = pods;
  summarise();
  draw();
  explain();
}

// As in `role=frontend`, or a key alone.
function hasLabel(labels, wanted) {
  if (!wanted) return true;
  const [key, ...value] = wanted.split("=");
  return key in labels && (value.length === 0 || labels[key] === value.join("="));
}

function summarise() {
  const counts = { ".": 0, "X": 0, "-": 0, "+": 0, "!": 0 };
  for (const from of state.from) for (const to of state.to) counts[verdictOf(from, to)] += 1;
  const allowed = counts["."] + counts["+"], denied = counts["X"] + counts["!"];
  const change = data.is_difference ? `; the change opens ${counts["+"]} and closes ${counts["!"]}` : "";
  find("#sum").textContent =
    `${state.from.length} × ${state.to.length} pods: ${allowed} pairs allowed, ${denied} denied${change}`;
}

// Only what is in sight: a matrix may have millions of cells.
function draw() {
  const cells = find("#cells"), extent = find("#extent");
  extent.style.width = `${state.to.length * CELL}px`;
  extent.style.height = `${state.from.length * CELL}px`;
  const { scrollLeft, scrollTop, clientWidth, clientHeight } = cells;
  const span = (start, length, count) => {
    const first = Math.max(0, Math.floor(start / CELL) - BEYOND);
    return [first, Math.min(count, Math.ceil((start + length) / CELL) + BEYOND)];
  };
  const [top, bottom] = span(scrollTop, clientHeight, state.from.length);
  const [left, right] = span(scrollLeft, clientWidth, state.to.length);
  const [from, to] = state.chosen ?? [];
  const names = (pods, first, last, chosen, place) => {
    const shown = [];
    for (let at = first; at < last; at += 1) {
      const { name } = data.pods[pods[at]];
      const className = pods[at] === chosen ? "name chosen" : "name";
      const element = make("div", { className, title: name }, shortened(name));
      place(element, at);
      shown.push(element);
    }
    return shown;
  };
  find("#rows").replaceChildren(...names(state.from, top, bottom, from, (element, at) => {
    element.style.top = `${at * CELL - scrollTop}px`;
  }));
  find("#columns").replaceChildren(...names(state.to, left, right, to, (element, at) => {
    element.style.left = `${at * CELL - scrollLeft}px`;
  }));
  const shown = [];
  for (let row = top; row < bottom; row += 1) {
    for (let column = left; column < right; column += 1) {
      shown.push(cell(state.from[row], state.to[column], row, column));
    }
  }
  extent.replaceChildren(...shown);
}

// Names of one kind begin alike: what does not fit is left out in the middle.
function shortened(name) {
  const most = matchMedia("(max-width: 60rem)").matches ? 16 : 24;
  const end = Math.ceil(most * 0.6);
  return name.length <= most ? name : `${name.slice(0, most - end - 1)}…${name.slice(-end)}`;
}

function cell(from, to, row, column) {
  const { name, sign, words } = KINDS[verdictOf(from, to)];
  const chosen = state.chosen?.[0] === from && state.chosen?.[1] === to;
  const element = make("button", { type: "button", tabIndex: -1, textContent: sign });
  element.className = `cell ${name}${chosen ? " chosen" : ""}`;
  element.title = `${data.pods[from].name} → ${data.pods[to].name}: ${words}`;
  element.setAttribute("aria-label", element.title);
  element.style.left = `${column * CELL}px`;
  element.style.top = `${row * CELL}px`;
  element.dataset.from = from;
  element.dataset.to = to;
  return element;
}

function choose(event) {
  const { from, to } = event.target.closest(".cell")?.dataset ?? {};
  if (from === undefined) return;
  state.chosen = [Number(from), Number(to)];
  draw();
  explain();
  // Its element was drawn again: keys go on arriving here.
  find("#cells").focus({ preventScroll: true });
}

function move(event) {
  const step = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key];
  if (!step) return;
  event.preventDefault();
  // The first key chooses the first cell that is shown, as does one after a filter has hidden the chosen one.
  const [fromAt, toAt] = [state.from.indexOf(state.chosen?.[0]), state.to.indexOf(state.chosen?.[1])];
  const [row, column] = fromAt < 0 || toAt < 0 ? [0, 0] : [fromAt + step[0], toAt + step[1]];
  if (!(row in state.from) || !(column in state.to)) return;
  state.chosen = [state.from[row], state.to[column]];
  const cells = find("#cells");
  const into = (start, length, at) => Math.min(Math.max(start, (at + 1) * CELL - length), at * CELL);
  cells.scrollTo(into(cells.scrollLeft, cells.clientWidth, column), into(cells.scrollTop, cells.clientHeight, row));
  draw();
  explain();
}

function explain() {
  if (!state.chosen) return;
  const [from, to] = state.chosen;
  const [source, destination] = [data.pods[from], data.pods[to]];
  const { port, egress, ingress } = data.ports[state.port];
  const verdict = verdictOf(from, to);
  const title = make("h2", {}, `${source.name} → ${destination.name} ${port}`);
  const words = make("p", { className: isOpen(verdict) ? "allowed" : "denied" }, KINDS[verdict].words);
  const addresses = `${source.addresses.join(", ")} → ${destination.addresses.join(", ")}`;
  const parts = [title, words, make("p", { className: "hint" }, addresses)];
  if (verdict === "-") {
    parts.push(make("p", {}, `${destination.name} has no container port ${port}.`));
  } else if (from === to && source.pods.length === 1) {
    parts.push(make("p", {}, "A pod always reaches itself."));
  } else if (from === to) {
    parts.push(make("p", {}, "Between two different pods of it; the command says why."));
  } else {
    parts.push(side("egress", source, egress[source.egress], to, [source, destination]));
    parts.push(side("ingress", destination, ingress[destination.ingress], from, [source, destination]));
  }
  const ends = [source.pods[0], destination.pods[from === to ? destination.pods.length - 1 : 0]];
  const command = `podgate explain --from ${ends[0]} --to ${ends[1]} --port ${port} --manifests …`;
  parts.push(make("p", { className: "hint" }, "The same in a terminal:"), make("code", {}, command));
  find("#why").replaceChildren(...parts);
}

// `row`: a text for each pod at the other end, or one for all.
function side(direction, own, row, other, [source, destination]) {
  const text = data.texts[typeof row === "number" ? row : row[other]];
  const names = line => line.replaceAll("\u0001", source.name).replaceAll("\u0002", destination.name);
  const lines = text.map(index => names(data.lines[index]));
  lines[0] = `${direction} of ${own.name}: ${lines[0]}`;
  return make("pre", {}, ...lines.map(line => {
    const [sign] = line.trimStart();
    const element = make("span", { className: { "✓": "met", "✗": "missed" }[sign] ?? "" }, `${line}\n`);
    // What does not fit goes on below its own beginning.
    const indent = line.search(/\S/) + 2;
    element.style.paddingLeft = `${indent}ch`;
    element.style.textIndent = `-${indent}ch`;
    return element;
  }));
}

start();
