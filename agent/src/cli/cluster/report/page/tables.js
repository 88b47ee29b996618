// Tables that are sorted, filtered and shown a part at a time: a cluster has thousands of rows.
const ROWS = 100;
// A text of more characters goes on in a further line.
const LONG = 48;
const tables = [];

const number = count => count.toLocaleString("en");
const ago = seconds => {
  const [unit, size] = [["d", 86400], ["h", 3600], ["min", 60], ["s", 1]].find(([, size]) => seconds >= size) ?? ["s", 1];
  return `${Math.floor(seconds / size)} ${unit}`;
};

const time = text => text.slice(0, 19).replace("T", " ");

// `columns`: [heading, value of a row to sort by, is it a number, cell of a row (else the value)].
function addTable(place, caption, columns, rows, empty) {
  const table = { columns, rows, sort: null, shown: ROWS };
  const heads = columns.map(([heading, , isNumber], at) => {
    const button = make("button", { type: "button" }, heading);
    const head = make("th", { scope: "col", className: isNumber ? "number" : "" }, button);
    button.addEventListener("click", () => {
      const isDown = table.sort?.at === at ? !table.sort.isDown : Boolean(isNumber);
      table.sort = { at, isDown };
      table.heads.forEach(other => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", isDown ? "descending" : "ascending");
      drawTable(table);
    });
    return head;
  });
  table.heads = heads;
  table.caption = make("caption", {}, caption);
  table.body = make("tbody");
  const whole = make("table", {}, table.caption, make("thead", {}, make("tr", {}, ...heads)), table.body);
  table.box = make("div", { className: "table", tabIndex: 0, role: "region" }, whole);
  table.box.setAttribute("aria-label", caption);
  table.empty = make("p", { className: "hint" }, empty);
  table.more = make("button", { type: "button", className: "more" });
  table.more.addEventListener("click", () => {
    table.shown += 10 * ROWS;
    drawTable(table);
  });
  table.text = caption;
  find(place).append(table.box, table.empty, table.more);
  tables.push(table);
  return table;
}

// What a row is found by.
const textOf = (table, row) => {
  row.text ??= table.columns.map(([, value]) => value(row)).flat().join(" ").toLowerCase();
  return row.text;
};
// Rows that say no namespace are of the cluster, and always shown.
const isMeant = row => !state.namespace || !row.namespaces || row.namespaces.includes(state.namespace);

function drawTable(table) {
  const rows = table.rows.filter(row => isMeant(row) && textOf(table, row).includes(state.text));
  if (table.sort) {
    const { at, isDown } = table.sort;
    const value = table.columns[at][1];
    const compare = (one, other) => typeof one === "number" ? one - other : String(one).localeCompare(String(other));
    rows.sort((one, other) => (isDown ? -1 : 1) * compare(value(one), value(other)));
  }
  table.body.replaceChildren(...rows.slice(0, table.shown).map(row => make("tr", {}, ...table.columns.map(
    ([, value, isNumber, cell]) => {
      const shown = cell ? cell(row) : value(row);
      const text = typeof shown === "number" ? number(shown) : shown ?? "";
      const isLong = typeof text === "string" && text.length > LONG;
      return make("td", { className: isNumber ? "number" : isLong ? "long" : "" }, ...[text].flat());
    }))));
  const left = rows.length - Math.min(rows.length, table.shown);
  table.caption.textContent = `${table.text}: ${number(rows.length)}`;
  table.box.hidden = rows.length === 0;
  table.empty.hidden = rows.length > 0;
  table.more.hidden = left === 0;
  table.more.textContent = `Show more (${number(left)} left)`;
}
