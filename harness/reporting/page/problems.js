// Whatever must not be read as a result comes first, with its reasons.
const MOST_PROBLEMS = 12;
const MOST_NAMED = 6;
const ICONS = { damaged: "◆", failed: "✕", oom: "✕", timeout: "✕", crash: "✕", interrupted: "✕", incompatible: "–", invalid: "!" };

// Trials that failed alike are one entry.
const together = (all) => {
  const kinds = new Map();
  for (const one of all) {
    const key = JSON.stringify([one.status, one.reasons]);
    kinds.set(key, { ...one, all: [...((kinds.get(key) || {}).all || []), one] });
  }
  return [...kinds.values()];
};

const problemList = () => [
  ...DATA.damaged.map(([place, reason]) => ({ status: "damaged", what: place, reasons: [reason] })),
  ...DATA.cells.flatMap((cell, number) =>
    cell.trials.filter((trial) => trial[3] !== "ok").map(([place, , , status, reasons]) => ({
      status, number, what: cellTitle(cell), place, reasons: reasons.length ? reasons : ["no reason is recorded"],
    }))),
];

const cellTitle = ({ what }) =>
  [what.algo, budgetOf(what), `on ${what.tier}`, what.task, what.length && `${whole(what.length)} tokens`].filter(Boolean).join(" ");

const problemRow = (one) => h("li", { class: `problem ${one.status}` },
  h("span", { class: "chip" }, h("span", { "aria-hidden": "true" }, `${ICONS[one.status] || "✕"} `), one.status),
  h("div", {},
    one.all.slice(0, MOST_NAMED).map((each, n) => [n > 0 && ", ", each.number === undefined ? h("code", {}, each.what) : h("button", { type: "button", class: "link", onclick: () => openCell(each.number) }, each.what)]),
    one.all.length > MOST_NAMED && ` and ${whole(one.all.length - MOST_NAMED)} more`,
    one.reasons.map((reason) => h("p", {}, reason))));

const problemsSection = () => {
  const all = problemList();
  const counts = new Map();
  for (const one of all) counts.set(one.status, (counts.get(one.status) || 0) + 1);
  const trials = DATA.cells.reduce((sum, cell) => sum + cell.trials.length, 0);
  const bad = all.length - DATA.damaged.length;
  const verdict = h("p", { class: `verdict ${all.length ? "some" : "none"}` },
    h("strong", {}, trials === 0 ? "Nothing to judge." : `${whole(trials - bad)} of ${plural(trials, "trial")} may be used.`),
    all.length ? ` Not: ${[...counts.entries()].map(([status, count]) => `${count} ${status}`).join(", ")}.` : "");
  const kinds = together(all);
  const first = kinds.slice(0, MOST_PROBLEMS);
  const rest = kinds.slice(MOST_PROBLEMS);
  const more = h("details", {}, h("summary", {}, `Show ${plural(rest.length, "other reason")}`));
  // Filled when it is opened: a sweep may leave a thousand.
  more.addEventListener("toggle", () => { if (more.open && more.children.length === 1) more.append(h("ul", { class: "problems" }, rest.map(problemRow))); });
  return section("verdicts", "Verdicts", null, verdict, first.length > 0 && h("ul", { class: "problems" }, first.map(problemRow)), rest.length > 0 && more);
};
