// One cell: its readings and how each was measured, its trials, its provenance, its command.
const DIALOG = h("dialog", { "aria-labelledby": "cell-title" });
document.body.append(DIALOG);
DIALOG.addEventListener("click", (event) => { if (event.target === DIALOG) DIALOG.close(); });

const readingsTable = (cell, number) => {
  const arms = rows.filter((row) => row.number === number).sort((a, b) => a.isBaseline - b.isBaseline);
  const keys = Object.keys(QUANTITIES).filter((key) => arms.some((row) => value(row, key) !== undefined));
  const cellOf = (row, key) => {
    const one = get(row, key);
    return one ? [h("td", { class: "num" }, withRange(key, one)), h("td", { class: "how" }, `n ${whole(one.n)}; ${one.how}`)] : h("td", { colspan: 2, class: "empty" }, "not observable");
  };
  return h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Readings" }, h("table", { class: "readings" },
    h("thead", {}, h("tr", {}, h("th", {}), arms.map((row) => h("th", { colspan: 2, scope: "col" }, row.arm)))),
    h("tbody", {}, keys.map((key) => h("tr", {}, h("th", { scope: "row" }, QUANTITIES[key].label), arms.map((row) => cellOf(row, key)))))));
};

const pairs = (object) => h("dl", { class: "facts" }, Object.entries(object)
  .filter(([, one]) => one !== null && one !== undefined && one !== "")
  .map(([name, one]) => h("div", { class: String(one).length > 60 ? "wide" : "" }, h("dt", {}, name.replace("_", " ")), h("dd", {}, name.endsWith("bytes") ? bytes(one) : String(one)))));

const showDetail = (number) => {
  hideTip();
  const cell = DATA.cells[number];
  DIALOG.replaceChildren(...[
    h("form", { method: "dialog", class: "title" }, h("h2", { id: "cell-title" }, cellTitle(cell)), h("button", { class: "quiet" }, "Close")),
    cell.simulated && h("p", { class: "badge" }, "Simulated: a model of the hardware, no measurement of it."),
    !cell.current && h("p", { class: "badge" }, "A later version of the code has measured this cell on this machine; this one is left out of the pictures."),
    cell.command && h("div", { class: "command" }, h("pre", { tabindex: "0" }, cell.command), copyButton(cell.command)),
    h("h3", {}, "Readings"), Object.keys(cell.arms).length ? readingsTable(cell, number) : h("p", { class: "absent" }, "No arm was measured."),
    h("h3", {}, plural(cell.trials.length, "trial")),
    h("ul", { class: "problems" }, cell.trials.map(([place, uid, started, status, reasons]) => h("li", { class: `problem ${status}` }, h("span", { class: "chip" }, status), h("div", {}, h("code", {}, place), h("p", { class: "small" }, [started.replace("T", " "), uid].filter(Boolean).join(", ")), reasons.map((reason) => h("p", {}, reason)))))),
    h("h3", {}, "What was measured"), pairs({ ...cell.what, hash: cell.id }),
    h("h3", {}, "Where and how"), pairs(DATA.envs[cell.env] || {}), (cell.notes || []).map((note) => h("p", { class: "note" }, `Note: ${DATA.hows[note]}`)),
  ].flat().filter(Boolean));
  DIALOG.showModal();
};
