// Accepted baselines over time, one small picture for each key and metric.
const MOST_HISTORIES = 24;

const historyChart = (name, lines) => sized((width) => {
  const frame = { left: 4, right: width - 60, top: 12, bottom: 60 };
  const values = lines.map((line) => line.value);
  const x = linear(0, Math.max(1, lines.length - 1), frame.left + 5, frame.right);
  const span = Math.max(...values) - Math.min(...values) || Math.abs(values[0]) || 1;
  const y = linear(Math.min(...values) - 0.15 * span, Math.max(...values) + 0.15 * span, frame.bottom, frame.top);
  const last = lines[lines.length - 1];
  return svg(width, 68, name,
    s("path", { class: "trend", d: lines.map((line, n) => `${n ? "L" : "M"}${x(n)},${y(line.value)}`).join("") }),
    lines.map((line, n) => {
      const says = () => [name, `${digits(line.value)}${line.when ? `, ${line.when}` : ""}`, ...Object.entries(line.rest).slice(0, 8).map(([key, one]) => `${key}: ${one}`)];
      return mark("circle", x(n), y(line.value), 4, { class: "mark", fill: n === lines.length - 1 ? "var(--hue0)" : "var(--bar)", tabindex: "0", role: "img", "aria-label": says().join(". "), ...saying(says) });
    }),
    write(frame.right + 8, y(last.value) + 4, digits(last.value), { class: "label" }));
});

const historySection = () => {
  if (!DATA.history.length) {
    return section("history", "Against accepted baselines", null, h("p", { class: "absent" }, "No accepted baseline was found in results/baselines/*.jsonl. harness/compare.py decides whether a change is a regression; this page only shows its history."));
  }
  const series = new Map();
  for (const line of DATA.history) {
    const name = `${line.key}, ${line.metric}`;
    series.set(name, [...(series.get(name) || []), line]);
  }
  const all = [...series.entries()];
  return section("history", "Against accepted baselines", "Values as they were accepted, in the order of their files; the last one counts. harness/compare.py decides what is a regression.",
    h("div", { class: "small-multiples" }, all.slice(0, MOST_HISTORIES).map(([name, lines]) => h("figure", {}, h("figcaption", {}, name), historyChart(name, lines)))),
    all.length > MOST_HISTORIES && h("p", { class: "note" }, `${all.length - MOST_HISTORIES} more are in the files.`));
};
