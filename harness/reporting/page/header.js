// What this report is of: sources, counts, machines, versions.
const distinct = (read) => [...new Set(DATA.cells.map(read).filter((one) => one !== undefined && one !== null && one !== ""))];
const fact = (term, texts) => texts.length > 0 && h("div", {}, h("dt", {}, term), h("dd", {}, texts));

const headerBlock = () => {
  const env = (cell) => DATA.envs[cell.env] || {};
  const trials = DATA.cells.flatMap((cell) => cell.trials);
  const times = trials.map((trial) => trial[2]).filter(Boolean).sort();
  const day = (time) => time.replace("T", " ").slice(0, 16);
  const span = times.length ? [day(times[0]), day(times[times.length - 1])].filter((one, n, all) => !n || one !== all[0]).join(" to ") : "";
  const packages = distinct((cell) => env(cell).packages);
  return h("header", {},
    h("div", { class: "title" }, h("h1", {}, "KVLoom report"), themeButton()),
    h("p", { class: "lead" }, `${plural(DATA.cells.length, "cell")}, ${plural(trials.length, "trial")}${DATA.damaged.length ? `, ${DATA.damaged.length} unreadable` : ""}, from `, DATA.sources.map((source, n) => [n > 0 && ", ", h("code", {}, source)])),
    h("dl", { class: "facts" },
      fact("measured", span ? [`${span} UTC`] : []),
      fact("written", [`${day(DATA.made)} UTC`]),
      fact("models", [listed(distinct((cell) => cell.what.model))]),
      fact("hardware", [listed(distinct((cell) => env(cell).hardware), 3)]),
      fact("commits", [listed(distinct((cell) => env(cell).commit), 3)]),
      fact("backends", [listed(distinct((cell) => cell.what.backend))]),
      packages.length > 0 && h("div", { class: "wide" }, h("dt", {}, "versions"), h("dd", {}, packages.length === 1 ? packages[0] : `${packages.length} sets; each cell shows its own`))));
};
