// Who talks to whom as a drawing: clients on the left, servers on the right, a line for each pair.
const READABLE = 50;
const ROW = 20;
const svg = (tag, attributes, ...children) => {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
};

function pairsOf(rows) {
  const pairs = new Map();
  for (const row of rows) {
    const key = JSON.stringify([row.from, row.to]);
    const pair = pairs.get(key) ?? { from: row.from, to: row.to, allowed: 0, denied: 0, ports: [] };
    pair.allowed += row.allowed + row.would_deny;
    pair.denied += row.denied;
    pair.ports.push(row.port ?? "other ports");
    pairs.set(key, pair);
  }
  return [...pairs.values()];
}

function drawTalks(rows) {
  const place = find("#drawing");
  const pairs = pairsOf(rows.filter(isMeant));
  const ends = new Set(pairs.flatMap(({ from, to }) => [from, to]));
  if (pairs.length === 0) return place.replaceChildren();
  if (ends.size > READABLE) {
    const words = `${number(ends.size)} workloads talk: too many for a drawing. Choose a namespace, or read the table.`;
    return place.replaceChildren(make("p", { className: "hint" }, words));
  }
  const [left, right] = ordered(pairs);
  const width = place.clientWidth || 800;
  const label = Math.min(260, Math.floor(width * 0.36));
  const height = ROW * Math.max(left.length, right.length) + 10;
  const middle = (names, name) => {
    const start = (height - names.length * ROW) / 2;
    return start + (names.indexOf(name) + 0.5) * ROW;
  };
  const drawing = svg("svg", { width, height, viewBox: `0 0 ${width} ${height}`, role: "group",
    "aria-label": "Who talks to whom: clients on the left, servers on the right" });
  const most = Math.max(...pairs.map(pair => pair.allowed + pair.denied));
  const lines = pairs.map(pair => {
    const [from, to] = [middle(left, pair.from), middle(right, pair.to)];
    const [start, end] = [label + 6, width - label - 6];
    const bend = (end - start) * 0.45;
    const kind = pair.denied === 0 ? "allowed" : pair.allowed === 0 ? "denied" : "both";
    const weight = 1 + 4 * Math.log1p(pair.allowed + pair.denied) / Math.log1p(most);
    const path = svg("path", { d: `M${start} ${from}C${start + bend} ${from} ${end - bend} ${to} ${end} ${to}`,
      class: kind, "stroke-width": weight.toFixed(1) });
    path.append(svg("title", {}, sentence(pair)));
    drawing.append(path);
    return { pair, path };
  });
  const said = make("p", { className: "hint" });
  said.setAttribute("aria-live", "polite");
  const hint = "Green: connected; red, dashed: denied; between: both. Choose a name to see its lines alone.";
  said.textContent = hint;
  let chosen = null;
  const choose = (name, side, element) => {
    const isSame = chosen === element;
    chosen?.classList.remove("chosen");
    chosen = isSame ? null : element;
    chosen?.classList.add("chosen");
    drawing.classList.toggle("choosing", !isSame);
    const own = lines.filter(({ pair }) => pair[side] === name);
    for (const { path } of lines) path.classList.remove("chosen");
    for (const { path } of own) path.classList.toggle("chosen", !isSame);
    said.textContent = isSame ? hint : own.map(({ pair }) => sentence(pair)).join("; ");
  };
  for (const [side, names] of [["from", left], ["to", right]]) {
    for (const name of names) {
      const text = svg("text", { x: side === "from" ? label : width - label, y: middle(names, name) + 4,
        "text-anchor": side === "from" ? "end" : "start" }, shortened(name, label - 4));
      const count = lines.filter(({ pair }) => pair[side] === name).length;
      const words = side === "from" ? `${name} talks to ${count}` : `${name} is talked to by ${count}`;
      const end = svg("g", { class: "end", tabindex: 0, role: "button", "aria-label": words }, text, svg("title", {}, name));
      end.addEventListener("click", () => choose(name, side, end));
      end.addEventListener("keydown", event => {
        if (event.key !== "Enter" && event.key !== " ") return;
        event.preventDefault();
        choose(name, side, end);
      });
      drawing.append(end);
    }
  }
  place.replaceChildren(drawing, said);
}

function sentence({ from, to, allowed, denied, ports }) {
  const shown = ports.length > 4 ? `${ports.slice(0, 4).join(", ")} and ${ports.length - 4} more` : ports.join(", ");
  const counts = [allowed ? `${number(allowed)} connections` : "", denied ? `${number(denied)} packets denied` : ""];
  return `${from} → ${to} ${shown}: ${counts.filter(Boolean).join(", ")}`;
}

// What differs is mostly at the end: names are cut in their middle, to so many pixels.
const measure = document.createElement("canvas").getContext("2d");
function shortened(name, width) {
  measure.font = "12px system-ui, sans-serif";
  const isShort = text => measure.measureText(text).width <= width;
  const characters = [...name];
  for (let most = characters.length - 1, text = name; ; most -= 1) {
    if (isShort(text) || most < 4) return text;
    const head = Math.ceil(most / 3);
    text = `${characters.slice(0, head).join("")}…${characters.slice(characters.length - (most - head)).join("")}`;
  }
}

// Ends on one side stand near those that they have lines to, so that lines cross less.
function ordered(pairs) {
  let left = [...new Set(pairs.map(pair => pair.from))].sort();
  let right = [...new Set(pairs.map(pair => pair.to))].sort();
  const near = (own, other, side, far) => {
    const places = new Map(other.map((name, at) => [name, (at + 0.5) / other.length]));
    const sums = new Map(own.map(name => [name, [0, 0]]));
    for (const pair of pairs) {
      const sum = sums.get(pair[side]);
      sum[0] += places.get(pair[far]);
      sum[1] += 1;
    }
    const mean = name => sums.get(name)[0] / sums.get(name)[1];
    return [...own].sort((one, another) => mean(one) - mean(another) || (one < another ? -1 : 1));
  };
  for (let round = 0; round < 4; round += 1) {
    right = near(right, left, "to", "from");
    left = near(left, right, "from", "to");
  }
  return [left, right];
}
