// Accuracy by algorithm and length, as RULER's authors show it; one block of columns a budget.
const heat = { task: "" };

// The same model, load and protocol on the same machine; the length and its requests may differ.
const kin = ({ name }) => [name[1], ...name.slice(3, 6)].join();

const heatCells = () => {
  const some = groups.filter((group) => kin(group) === kin(state.group)).flatMap((group) => group.rows);
  const found = new Map();
  for (const row of some) {
    const reading = heat.task ? unpack((row.parts.tasks || {})[heat.task]) : get(row, "acc");
    const { length } = row.cell.what;
    if (!reading || length === undefined) continue;
    const budget = row.isBaseline ? "" : budgetOf(row.cell.what);
    const key = JSON.stringify([isBound(row) ? `${row.arm} (bound)` : row.arm, budget, length]);
    if (!found.has(key)) found.set(key, []);
    found.get(key).push(reading);
  }
  return [...found.entries()].map(([key, readings]) => {
    const [name, budget, length] = JSON.parse(key);
    return { name, budget, length, readings, score: middle(readings.map((one) => one.v)) };
  });
};

const heatTasks = () => [...new Set(state.group.rows.flatMap((row) => Object.keys(row.parts.tasks || {})))].sort();

const heatCell = (one, first) => {
  const side = first ? " first" : "";
  if (!one) return h("td", { class: `empty${side}` }, h("span", { class: "hidden" }, "not measured"));
  const { name, budget, length, readings, score } = one;
  const values = readings.map((reading) => reading.v);
  const lines = () => [
    `${name}${budget && `, budget ${budget}`}, ${whole(length)} tokens: ${percent(score)}`,
    readings.length > 1
      ? `median of ${readings.length} cells, from ${percent(Math.min(...values))} to ${percent(Math.max(...values))}`
      : `[${interval("score", readings[0])}] n ${readings[0].n}; ${readings[0].how}`,
  ];
  return h("td", { css: { "--heat": `${Math.round(100 * score)}%` }, class: (score > 0.55 ? "full" : "") + side, ...saying(lines) }, (100 * score).toFixed(0));
};

const drawHeat = () => {
  const cells = heatCells();
  if (!cells.length) return [h("p", { class: "absent" }, "No scored cell here says how long its prompts were.")];
  const at = new Map(cells.map((one) => [[one.name, one.budget, one.length].join("\n"), one]));
  // What has no budget stands last: mostly the baseline alone.
  const number = (budget) => Number(budget.replace(/[^\d.]/g, "")) || Infinity;
  const budgets = [...new Set(cells.map((one) => one.budget))].sort((a, b) => (a === b ? 0 : number(a) < number(b) ? -1 : 1));
  const lengthsOf = new Map(budgets.map((budget) => [budget, [...new Set(cells.filter((one) => one.budget === budget).map((one) => one.length))].sort((a, b) => a - b)]));
  const columns = budgets.flatMap((budget) => lengthsOf.get(budget).map((length, n) => ({ budget, length, first: n === 0 })));
  const mean = new Map();
  for (const { name, score } of cells) mean.set(name, [...(mean.get(name) || []), score]);
  const average = (name) => mean.get(name).reduce((sum, v) => sum + v, 0) / mean.get(name).length;
  const names = [...mean.keys()].sort((a, b) => average(b) - average(a));
  return [h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Accuracy by length" },
    h("table", { class: "heat" },
      h("thead", {},
        h("tr", {}, h("td", {}), budgets.map((budget) => h("th", { scope: "colgroup", class: "first", colspan: lengthsOf.get(budget).length }, budget ? `budget ${budget}` : "no budget"))),
        h("tr", {}, h("th", { scope: "col" }, "tokens of context"), columns.map(({ length, first }) => h("th", { scope: "col", class: first ? "first" : "" }, whole(length))))),
      h("tbody", {}, names.map((name) => h("tr", {}, h("th", { scope: "row" }, name), columns.map(({ budget, length, first }) => heatCell(at.get([name, budget, length].join("\n")), first)))))))];
};

const heatSection = () => {
  const body = h("div", {});
  const pick = h("div", { class: "bar" });
  const redo = () => {
    const tasks = heatTasks();
    if (!tasks.includes(heat.task)) heat.task = "";
    pick.replaceChildren(...(tasks.length > 1 ? [choices("Score", [["", `mean of ${tasks.length} tasks`], ...tasks.map((task) => [task, task])], heat.task, (task) => { heat.task = task; redo(); })] : []));
    body.replaceChildren(...drawHeat());
  };
  redo();
  onChoice(redo);
  return section("lengths", "Accuracy by context length", "Per cent of full score, best mean first. Same model, load, protocol and machine as chosen above; several systems in one place show their median, and a hatched place was not measured.", pick, body);
};
