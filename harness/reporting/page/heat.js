// Accuracy by algorithm and length, as RULER's authors show it.
const MOST_HEAT = 30;
const heat = { task: "", all: false };

const heatCells = () => {
  // The same model, load and protocol on the same machine; the length and its requests may differ.
  const alikeName = state.group.name.slice(1, 6).filter((_, n) => n !== 1).join();
  const some = groups.filter((group) => group.name.slice(1, 6).filter((_, n) => n !== 1).join() === alikeName).flatMap((group) => group.rows);
  const table = new Map();
  for (const row of some) {
    const reading = heat.task ? unpack((row.parts.tasks || {})[heat.task]) : get(row, "acc");
    if (!reading || row.cell.what.length === undefined) continue;
    const name = algoLabel(row);
    if (!table.has(name)) table.set(name, new Map());
    const line = table.get(name);
    line.set(row.cell.what.length, [...(line.get(row.cell.what.length) || []), { ...reading, row }]);
  }
  return table;
};

const heatTasks = () => [...new Set(state.group.rows.flatMap((row) => Object.keys(row.parts.tasks || {})))].sort();

const heatCell = (found, name, length) => {
  if (!found) return h("td", { class: "empty" }, h("span", { class: "hidden" }, "not measured"));
  const score = middle(found.map((one) => one.v));
  const first = found[0];
  const lines = () => [
    `${name}, ${whole(length)} tokens: ${percent(score)}`,
    found.length > 1 ? `median of ${found.length} cells, ${percent(Math.min(...found.map((one) => one.v)))}–${percent(Math.max(...found.map((one) => one.v)))}` : `[${interval("score", first)}] n ${first.n}; ${first.how}`,
  ];
  return h("td", { css: { "--heat": `${Math.round(100 * score)}%` }, class: score > 0.55 ? "full" : "", ...saying(lines) }, (100 * score).toFixed(0));
};

const drawHeat = () => {
  const table = heatCells();
  const lengths = [...new Set([...table.values()].flatMap((line) => [...line.keys()]))].sort((a, b) => a - b);
  if (!table.size) return [h("p", { class: "absent" }, "No scored cell here says how long its prompts were.")];
  const mean = (line) => [...line.values()].flat().reduce((sum, one, _, all) => sum + one.v / all.length, 0);
  const names = [...table.keys()].sort((a, b) => mean(table.get(b)) - mean(table.get(a)));
  const shown = heat.all ? names : names.slice(0, MOST_HEAT);
  return [
    h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Accuracy by length" },
      h("table", { class: "heat" },
        h("thead", {}, h("tr", {}, h("th", { scope: "col" }, "algorithm, budget"), lengths.map((length) => h("th", { scope: "col" }, whole(length))))),
        h("tbody", {}, shown.map((name) => h("tr", {}, h("th", { scope: "row" }, name), lengths.map((length) => heatCell(table.get(name).get(length), name, length))))))),
    names.length > MOST_HEAT && h("button", { type: "button", class: "quiet", onclick: () => { heat.all = !heat.all; chosen(); } }, heat.all ? "Show fewer" : `Show all ${names.length}`),
  ].filter(Boolean);
};

const heatSection = () => {
  const body = h("div", {});
  const pick = h("div", { class: "bar" });
  const redo = () => {
    const tasks = heatTasks();
    if (!tasks.includes(heat.task)) heat.task = "";
    pick.replaceChildren(choices("Score", [["", tasks.length > 1 ? "mean of tasks" : "the task"], ...(tasks.length > 1 ? tasks.map((task) => [task, task]) : [])], heat.task, (task) => { heat.task = task; redo(); }));
    body.replaceChildren(...drawHeat());
  };
  redo();
  onChoice(redo);
  return section("lengths", "Accuracy by context length", "Per cent of full score; columns are tokens of context. Same model, load, protocol and machine as chosen above; a cell with several systems shows their median.", pick, body);
};
