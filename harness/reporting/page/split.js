// Where the time of a decode step goes, if a benchmark was given that says so.
const PART_HUES = { attend: 0, score: 1, select: 2, map: 3, fetch: 4, append: 5, estimate: 6 };
const partHue = (name, n) => (name === "other" ? "var(--bar)" : hueOf(PART_HUES[name] ?? n));
const split = { batch: (DATA.splits[0] || {}).batch };

const drawSplit = (width) => {
  const total = (one) => Object.values(one.parts).reduce((sum, v) => sum + v, 0);
  const some = DATA.splits.filter((one) => one.batch === split.batch).sort((a, b) => total(a) - total(b));
  const left = Math.min(0.4 * width, 14 + 6.6 * Math.max(...some.map((one) => one.algo.length + (one.bound ? 8 : 0))));
  const x = linear(0, Math.max(...some.map(total), 1e-9), left, width - 24);
  const bottom = 8 + some.length * ROW;
  return svg(width, bottom + 44, "Milliseconds of a decode step by what it does",
    xAxis(x, "ms", { left, right: width - 4, top: 4, bottom, title: lowerIsBetter("one decode step") }),
    some.map((one, n) => {
      const y = 8 + n * ROW;
      const parts = Object.entries(one.parts);
      const hues = Object.fromEntries(parts.map(([name], i) => [name, partHue(name, i)]));
      const lines = () => [`${one.algo}, batch ${one.batch}: ${milliseconds(total(one))}`, ...parts.filter(([, v]) => v > 0).sort((a, b) => b[1] - a[1]).map(([name, v]) => `${name}: ${milliseconds(v)}`), one.title];
      return [
        write(0, y + 17, one.algo + (one.bound ? " (bound)" : ""), { class: "row-name" }), bars(parts, x, y, hues),
        s("rect", { class: "hit-area", x: 0, y, width, height: ROW, tabindex: "0", role: "img", "aria-label": lines().join(". "), ...saying(lines) }),
      ];
    }));
};

const splitSection = () => {
  const lead = "A record tells two parts of a step apart: waiting for transfers, and everything else (above). ";
  if (!DATA.splits.length) {
    return section("split", "Where a step's time goes", null, h("p", { class: "absent" }, `${lead}Scoring, selection and attention are not timed in a run, because clocks inside a step would slow it. benchmarks/algorithms.py times them apart: give its JSON beside the store.`));
  }
  const chart = sized(drawSplit);
  const batches = [...new Set(DATA.splits.map((one) => one.batch))];
  const names = [...Object.keys(PART_HUES), "other"].filter((name) => DATA.splits.some((one) => one.parts[name] > 0));
  return section("split", "Where a step's time goes", `${lead}This benchmark timed the rest, each part by its own: ${DATA.splits[0].title}.`,
    h("div", { class: "bar" }, choices("Sequences in a step", batches.map((one) => [one, one]), split.batch, (batch) => { split.batch = batch; redraw(chart); })),
    h("ul", { class: "legend", "aria-label": "Parts" }, names.map((name, n) => h("li", {}, h("span", { class: "swatch", css: { background: partHue(name, n) } }), name))), chart,
    h("p", { class: "note" }, `From ${[...new Set(DATA.splits.map((one) => one.place))].join(", ")}. Compare the shares: milliseconds there were not measured beside the runs above.`));
};
