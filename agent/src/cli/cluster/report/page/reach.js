// Which workload may reach which: only what is in sight is drawn, a matrix may have millions of cells.
const KINDS = {
  ".": { name: "allow", sign: "✓", words: "allowed" },
  "X": { name: "deny", sign: "✗", words: "denied" },
  "~": { name: "some", sign: "~", words: "allowed between some of their pods" },
  "-": { name: "none", sign: "–", words: "no port of this name" },
};
const CELL = 20;
// Drawn beyond what is in sight, so that a short scroll shows no gap.
const BEYOND = 6;

// As in `12X.3X`; each row once, when it is needed.
function unpacked(port, row) {
  port.unpacked ??= [];
  port.unpacked[row] ??= port.rows[row].replace(/(\d+)(\D)/g, (_, count, letter) => letter.repeat(Number(count)));
  return port.unpacked[row];
}

const reach = { port: null, shown: [], chosen: null };
const workloadAt = place => data.workloads[data.matrix.workloads[place]];
function verdictOf(from, to) {
  if (from === to) return reach.port.own[from];
  const { classes } = data.matrix;
  return unpacked(reach.port, classes[from])[classes[to]];
}

function startReach() {
  if (!data.matrix || data.matrix.ports.length === 0 || data.matrix.workloads.length === 0) {
    const words = "It is not known, or there is nothing to show: see the notes above.";
    find("#reach").replaceChildren(find("#reach-title"), make("p", { className: "hint" }, words));
    return;
  }
  find("#port").append(...data.matrix.ports.map(({ port }, index) => make("option", { value: index }, port)));
  find("#legend").append(...Object.values(KINDS).flatMap(({ name, sign, words }) =>
    [make("span", { className: `cell ${name}` }, sign), words]));
  find("#port").addEventListener("input", arrangeReach);
  find("#cells").addEventListener("scroll", () => requestAnimationFrame(drawReach));
  find("#cells").addEventListener("click", event => {
    const { from, to } = event.target.closest(".cell")?.dataset ?? {};
    if (from === undefined) return;
    reach.chosen = [Number(from), Number(to)];
    drawReach();
    find("#cells").focus({ preventScroll: true });
  });
  find("#cells").addEventListener("keydown", moveReach);
  arrangeReach();
}

function arrangeReach() {
  if (!find("#cells")) return;
  reach.port = data.matrix.ports[Number(find("#port").value)];
  reach.shown = [...data.matrix.workloads.keys()].filter(place => {
    const { name, namespace } = workloadAt(place);
    return (!state.namespace || namespace === state.namespace) && name.toLowerCase().includes(state.text);
  });
  if (!reach.chosen?.every(place => reach.shown.includes(place))) reach.chosen = null;
  drawReach();
}

function drawReach() {
  const cells = find("#cells"), extent = find("#extent");
  if (!cells || cells.clientWidth === 0) return;
  const { shown, chosen } = reach;
  // With room for a scroll bar.
  find("#grid").style.height = `calc(var(--heads) + ${(shown.length + 1) * CELL}px)`;
  extent.style.width = `${shown.length * CELL}px`;
  extent.style.height = `${shown.length * CELL}px`;
  const { scrollLeft, scrollTop, clientWidth, clientHeight } = cells;
  const span = (start, length) => {
    const first = Math.max(0, Math.floor(start / CELL) - BEYOND);
    return [first, Math.min(shown.length, Math.ceil((start + length) / CELL) + BEYOND)];
  };
  const [top, bottom] = span(scrollTop, clientHeight);
  const [left, right] = span(scrollLeft, clientWidth);
  const names = (first, last, own, place) => shown.slice(first, last).map((workload, at) => {
    const { name } = workloadAt(workload);
    const element = make("div", { className: workload === own ? "name chosen" : "name", title: name }, name);
    place(element, first + at);
    return element;
  });
  find("#rows").replaceChildren(...names(top, bottom, chosen?.[0], (element, at) => {
    element.style.top = `${at * CELL - scrollTop}px`;
  }));
  find("#columns").replaceChildren(...names(left, right, chosen?.[1], (element, at) => {
    element.style.left = `${at * CELL - scrollLeft}px`;
  }));
  const drawn = [];
  for (let row = top; row < bottom; row += 1) {
    for (let column = left; column < right; column += 1) {
      const [from, to] = [shown[row], shown[column]];
      const { name, sign } = KINDS[verdictOf(from, to)];
      const isChosen = chosen?.[0] === from && chosen?.[1] === to;
      const element = make("div", { className: `cell ${name}${isChosen ? " chosen" : ""}`, title: said(from, to) }, sign);
      element.style.left = `${column * CELL}px`;
      element.style.top = `${row * CELL}px`;
      Object.assign(element.dataset, { from, to });
      drawn.push(element);
    }
  }
  extent.replaceChildren(...drawn);
  find("#said").textContent = chosen ? said(...chosen) : "Choose a cell, or go through the matrix by arrow keys.";
}

function said(from, to) {
  const [source, destination] = [workloadAt(from), workloadAt(to)];
  const { words } = KINDS[verdictOf(from, to)];
  return `${source.name} → ${destination.name} ${reach.port.port}: ${words}`;
}

function moveReach(event) {
  const step = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key];
  if (!step || reach.shown.length === 0) return;
  event.preventDefault();
  const [from, to] = reach.chosen ?? [];
  const clamp = at => Math.min(Math.max(at, 0), reach.shown.length - 1);
  // The first key chooses the first cell.
  const row = reach.chosen ? clamp(reach.shown.indexOf(from) + step[0]) : 0;
  const column = reach.chosen ? clamp(reach.shown.indexOf(to) + step[1]) : 0;
  reach.chosen = [reach.shown[row], reach.shown[column]];
  const cells = find("#cells");
  const into = (start, length, at) => Math.min(Math.max(start, (at + 1) * CELL - length), at * CELL);
  cells.scrollTo(into(cells.scrollLeft, cells.clientWidth, column), into(cells.scrollTop, cells.clientHeight, row));
  drawReach();
}
