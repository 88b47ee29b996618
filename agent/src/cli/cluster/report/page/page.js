// The page of a cluster: what is shown, and which part of it.
const state = { namespace: "", text: "" };
const list = names => names.flatMap((name, at) => at === 0 ? [name] : [make("br"), name]);
const word = (text, className) => make("span", { className }, text);

function start() {
  const namespaceOf = new Map(data.workloads.map(({ name, namespace }) => [name, namespace]));
  // Ends that are no workload belong to no namespace.
  const namespaces = (...names) => names.map(name => namespaceOf.get(name)).filter(name => name !== undefined);
  for (const row of [...data.talks, ...data.denied]) row.namespaces = namespaces(row.from, row.to);
  for (const row of data.unenforced) row.namespaces = [row.pod.split("/")[0]];
  // The name of a policy of a namespace has a slash, that of a cluster-wide one a space.
  for (const row of data.policies) row.namespaces = row.policy.includes(" ") ? null : [row.policy.split("/")[0]];
  const all = [...new Set(data.workloads.map(({ namespace }) => namespace))].sort();
  find("#namespace").append(make("option", { value: "" }, "all"), ...all.map(name => make("option", { value: name }, name)));
  find("#controls").addEventListener("submit", event => event.preventDefault());
  find("#controls").addEventListener("input", arrange);
  head();
  addTables();
  startReach();
  arrange();
  let width = window.innerWidth;
  window.addEventListener("resize", () => {
    if (width !== window.innerWidth) drawTalks(data.talks);
    width = window.innerWidth;
    drawReach();
  });
}

function head() {
  const { answered, nodes } = data;
  find("#made").textContent = `podgate ${data.version}, ${data.made}; flows of the last ${ago(data.since_seconds)}`;
  const ready = data.node_states.filter(node => node.ready).length;
  const denied = data.denied.reduce((sum, { verdict, packets }) => sum + (verdict === "denied" ? packets : 0), 0);
  const cards = [
    [`${number(ready)} of ${number(nodes)}`, "nodes ready", ready === nodes],
    [`${number(answered)} of ${number(nodes)}`, "nodes answered", answered === nodes],
    [number(data.unenforced.length), "pods not enforced", data.unenforced.length === 0],
    [number(data.policies.length), "policies that select pods", null],
    [number(data.workloads.length), "workloads", null],
    [number(denied), "packets denied", null],
  ];
  find("#cards").append(...cards.map(([count, words, isGood]) => {
    const kind = { true: " good", false: " bad" }[String(isGood)] ?? "";
    return make("div", { className: `card${kind}` }, make("b", {}, count), words);
  }));
  const notes = data.left_out.map(line => `Not shown: ${line}`);
  find("#notes").append(...notes.map(note => make("p", {}, note)));
}

function addTables() {
  // A node may have answered for its state, and not for its policies or flows.
  const states = new Map(data.node_states.map(row => [row.node, row]));
  const unanswered = data.unanswered.filter(({ node }) => !states.has(node)).map(
    ({ node, reason }) => ({ node, reason, error: reason }));
  for (const { node, reason } of data.unanswered) {
    const row = states.get(node);
    if (row) row.error = `its policies or flows are missing: ${reason}`;
  }
  const blank = value => value ?? "";
  addTable("#nodes", "Nodes and their agents", [
    ["Node", row => row.node],
    ["State", row => row.reason ? "no answer" : row.ready ? "ready" : "not ready", false,
      row => row.reason ? word("no answer", "bad") : row.ready ? word("ready", "good") : word("not ready", "bad")],
    ["Version", row => blank(row.version)],
    ["Uptime", row => row.uptime_seconds ?? -1, true, row => row.reason ? "" : ago(row.uptime_seconds)],
    ["Pods", row => row.pods ?? -1, true, row => blank(row.pods)],
    ["Pending", row => row.pending ?? -1, true, row => blank(row.pending)],
    ["Not enforced", row => row.unenforced ?? -1, true, row => blank(row.unenforced)],
    ["Policies", row => row.policies ?? -1, true, row => blank(row.policies)],
    ["Problems", row => row.problems ?? -1, true, row => blank(row.problems)],
    ["Error", row => blank(row.error)],
  ], [...unanswered, ...data.node_states], "No node is shown.");
  addTable("#unenforced", "Pods that policies select, and nothing isolates", [
    ["Pod", row => row.pod],
    ["Node", row => row.node],
    ["Reason", row => row.reason],
    ["Detail", row => row.detail],
    ["Since", row => row.age_seconds, true, row => ago(row.age_seconds)],
  ], data.unenforced, "None of the nodes that answered has such a pod.");
  const hits = row => [row.ingress, row.egress].flatMap(side => side?.rules ?? []).reduce((sum, rule) => sum + rule.hits, 0);
  const sum = (row, key) => (row.ingress?.[key] ?? 0) + (row.egress?.[key] ?? 0);
  addTable("#policies", "Policies that select pods", [
    ["Policy", row => row.policy],
    ["Mode", row => row.mode],
    ["Pods", row => row.pods, true],
    ["Selects", row => row.selected.map(([name]) => name).join(" "), false, selected],
    ["Hits", hits, true, row => rules(row, hits(row))],
    ["Denied", row => sum(row, "denied"), true],
    ["Would deny", row => sum(row, "would_deny"), true],
    ["Nodes", row => row.selecting_nodes, true],
    ["Nodes differ", row => Object.keys(row.differences).length, true,
      row => Object.keys(row.differences).length ? word("yes", "mixed") : "no"],
  ], data.policies, "No policy selects a pod.");
  addTable("#talks", "Connections between workloads", [
    ["From", row => row.from],
    ["To", row => row.to],
    ["Port", row => row.port ?? "other ports"],
    ["Connections", row => row.allowed, true],
    ["Packets denied", row => row.denied, true],
    ["Would be denied", row => row.would_deny, true],
    ["Last (UTC)", row => time(row.last)],
  ], data.talks, "No flow was seen.");
  addTable("#denied", `Denied in the last ${ago(data.since_seconds)}, the newest first`, [
    ["Last (UTC)", row => time(row.last)],
    ["From", row => row.from],
    ["To", row => row.to],
    ["Port", row => row.port ?? "other ports"],
    ["Side", row => row.direction],
    ["Verdict", row => row.verdict, false, row => word(row.verdict, row.verdict === "denied" ? "bad" : "mixed")],
    ["Reason", row => row.reason],
    ["Policies", row => row.policies.join(" "), false, row => list(row.policies)],
    ["Packets", row => row.packets, true],
    ["Addresses", row => row.addresses.join(" "), false, row => list(row.addresses)],
    ["Nodes", row => row.nodes.join(" "), false, row => list(row.nodes)],
  ], data.denied, "Nothing was denied.");
}

function selected({ selected, more_selected }) {
  const names = selected.map(([name, pods]) => pods > 1 ? `${name} ×${pods}` : name);
  if (names.length + more_selected <= 2) return list(names);
  const more = more_selected ? [`and ${number(more_selected)} more`] : [];
  const title = make("summary", {}, `${names[0]} and ${number(names.length - 1 + more_selected)} more`);
  return make("details", {}, title, ...list([...names.slice(1), ...more]));
}

function rules({ ingress, egress }, total) {
  const lines = Object.entries({ ingress, egress }).flatMap(([direction, side]) => (side?.rules ?? []).map(
    ({ rule, hits, idle_seconds }) => `${direction}[${rule}]: ${number(hits)}` +
      (idle_seconds === null ? "" : `, last ${ago(idle_seconds)} ago`)));
  if (lines.length < 2) return number(total);
  return make("details", {}, make("summary", {}, number(total)), ...list(lines));
}

function arrange() {
  state.namespace = find("#namespace").value;
  state.text = find("#text").value.trim().toLowerCase();
  tables.forEach(drawTable);
  drawTalks(data.talks);
  arrangeReach();
}

start();
