// Every cell, to filter, to sort and to take along.
const PAGE_ROWS = 40;
const COLUMNS = [
  ["algorithm", (row) => (row.arm ? (row.isBaseline ? `${row.arm} (baseline)` : algoLabel(row)) : row.cell.what.algo)],
  ["tier", (row) => row.cell.what.tier], ["cache", (row) => row.cell.what.cache], ["task", (row) => row.cell.what.task],
  ["length", (row) => row.cell.what.length, whole],
  ["accuracy", (row) => value(row, "acc"), null, "acc"], ["to dense", (row) => value(row, "acc_change"), null, "acc_change"], ["TPOT ratio", (row) => value(row, "tpot_ratio"), null, "tpot_ratio"],
  ["TPOT", (row) => value(row, "tpot"), null, "tpot"], ["TTFT ratio", (row) => value(row, "ttft_ratio"), null, "ttft_ratio"],
  ["KV/step", (row) => value(row, "kv"), null, "kv"], ["hit rate", (row) => value(row, "hit"), null, "hit"], ["HBM peak", (row) => value(row, "hbm"), null, "hbm"],
  ["trials", (row) => row.cell.trials.length, whole], ["status", (row) => statusOf(row.cell)], ["experiment", (row) => row.cell.what.experiment],
];
const statusOf = (cell) => (cell.valid ? (cell.current ? "ok" : "older code") : cell.trials[cell.trials.length - 1][3]);
const table = { words: "", sort: null, down: false, baselines: false, most: PAGE_ROWS };
const measured = new Set(rows.map((row) => row.number));
const everyRow = [...rows, ...DATA.cells.flatMap((cell, number) => (measured.has(number) ? [] : [{ cell, number, arm: "", parts: {}, isBaseline: false }]))];

const textOf = (row) => {
  row.text ??= COLUMNS.filter(([, , , key]) => !key).map(([, read]) => read(row) ?? "").concat(row.cell.id, row.cell.what.model || "", row.cell.what.backend || "").join(" ").toLowerCase();
  return row.text;
};

const tableRows = () => {
  const words = table.words.toLowerCase().split(/\s+/).filter(Boolean);
  const some = everyRow.filter((row) => (table.baselines || !row.isBaseline) && words.every((word) => textOf(row).includes(word)));
  if (table.sort === null) return some;
  const read = COLUMNS[table.sort][1];
  const keyed = some.map((row) => [read(row), row]);
  const order = (a, b) => (typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b)));
  // What is not there stays at the end, whichever way.
  keyed.sort(([a], [b]) => (a === undefined) - (b === undefined) || (a === undefined ? 0 : (table.down ? -1 : 1) * order(a, b)));
  return keyed.map(([, row]) => row);
};

const cellText = (row, [, read, show, key]) => {
  const found = read(row);
  if (found === undefined || found === null || found === "") return "";
  return key ? format(QUANTITIES[key].kind, found) : show ? show(found) : String(found);
};

// A text that a spreadsheet would take for a formula gets an apostrophe.
const quoted = (text) => `"${(typeof text === "string" && /^[=+\-@\t\r]/.test(text) ? `'${text}` : String(text ?? "")).replaceAll('"', '""')}"`;
const asCsv = (some) => [COLUMNS.map(([title]) => quoted(title)), ...some.map((row) => COLUMNS.map(([, read]) => quoted(read(row))))].map((line) => line.join(",")).join("\r\n");

const tableSection = () => {
  const body = h("tbody", {});
  const count = h("p", { class: "note", role: "status" });
  const more = h("button", { type: "button", class: "quiet", onclick: () => { table.most += 10 * PAGE_ROWS; show(); } }, "Show more rows");
  const heads = COLUMNS.map(([title, , , key], n) => h("th", { scope: "col", class: key ? "num" : "" }, h("button", { type: "button", onclick: () => { table.down = table.sort === n ? !table.down : false; table.sort = n; show(); } }, title)));
  const link = h("a", { href: "#table", download: "kvloom.csv" }, "CSV of these rows");
  link.addEventListener("click", () => { link.href = `data:text/csv;charset=utf-8,${encodeURIComponent(asCsv(tableRows()))}`; });
  const show = () => {
    const all = tableRows();
    heads.forEach((head, n) => head.setAttribute("aria-sort", table.sort === n ? (table.down ? "descending" : "ascending") : "none"));
    body.replaceChildren(...all.slice(0, table.most).map((row) => h("tr", { class: row.cell.valid ? "" : "bad" }, COLUMNS.map((column, n) => {
      const text = cellText(row, column);
      return h("td", { class: column[3] || column[2] ? "num" : "" }, n ? text : h("button", { type: "button", class: "link", onclick: () => openCell(row.number) }, text));
    }))));
    count.textContent = `${plural(all.length, "row")}${all.length > table.most ? `, the first ${whole(table.most)} shown` : ""}. A row opens its provenance and command.`;
    more.hidden = all.length <= table.most;
  };
  const filter = h("input", { type: "search", placeholder: "quest hbm+cpu 4,096 …", oninput: (event) => { table.words = event.target.value; table.most = PAGE_ROWS; show(); } });
  const bases = h("input", { type: "checkbox", onchange: (event) => { table.baselines = event.target.checked; show(); } });
  show();
  return section("table", "All cells", null,
    h("div", { class: "bar" }, h("label", { class: "choice" }, h("span", {}, "Filter by words"), filter), h("label", { class: "check" }, bases, " baselines too"), link),
    h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "All cells" }, h("table", { class: "cells" }, h("thead", {}, h("tr", {}, heads)), body)), count, more);
};
