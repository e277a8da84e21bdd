// Accepted baselines and the runs since, one small picture for each cell, machine and metric.
const MOST_HISTORIES = 24;
const NAMES = { median_tpot_ms: ["TPOT, median", "ms"], median_ttft_ms: ["TTFT, median", "ms"], output_throughput: ["output tokens/s", "rate"], kv_read_bytes_per_decode_step: ["KV read per step", "bytes"], kv_cache_hit_rate: ["hit rate", "fraction"] };

const series = () => {
  const found = new Map();
  for (const line of DATA.history) {
    const name = `${line.key}\n${line.metric}`;
    if (!found.has(name)) found.set(name, { metric: line.metric, key: line.key, label: "", lines: [] });
    const one = found.get(name);
    one.lines.push(line);
    one.label ||= line.label;
  }
  return [...found.values()];
};

// The last valid run against what was accepted before it.
const changeOf = (lines) => {
  const runs = lines.filter((line) => !line.accepted && line.valid);
  const mark = lines.filter((line) => line.accepted).pop();
  const last = runs.filter((line) => !mark || line.run !== mark.run).pop();
  return last && mark && mark.value ? last.value / mark.value - 1 : undefined;
};

const historyChart = ({ metric, lines }) => sized((width) => {
  const kind = NAMES[metric][1];
  const frame = { left: 6, right: width - 84, top: 12, bottom: 62 };
  const values = lines.map((line) => line.value);
  const x = linear(0, Math.max(1, lines.length - 1), frame.left, frame.right);
  const spread = Math.max(...values) - Math.min(...values) || Math.abs(values[0]) || 1;
  const y = linear(Math.min(...values) - 0.2 * spread, Math.max(...values) + 0.2 * spread, frame.bottom, frame.top);
  const runs = lines.map((line, n) => [line, n]).filter(([line]) => !line.accepted);
  const last = lines[lines.length - 1];
  const mark = lines.filter((line) => line.accepted).pop();
  return svg(width, 72, NAMES[metric][0],
    mark && s("line", { class: "accepted", x1: frame.left, x2: frame.right, y1: y(mark.value), y2: y(mark.value) }),
    s("path", { class: "trend", d: runs.map(([line, n], i) => `${i ? "L" : "M"}${x(n)},${y(line.value)}`).join("") }),
    lines.map((line, n) => {
      const says = () => [`${line.accepted ? "accepted" : line.valid ? "run" : "run that is not valid"}: ${format(kind, line.value)}`, line.when.slice(0, 16).replace("T", " "), line.note].filter(Boolean);
      return markOf(line, x(n), y(line.value), { tabindex: "0", role: "img", "aria-label": says().join(". "), ...saying(says) });
    }),
    write(frame.right + 10, y(last.value) + 4, format(kind, last.value), { class: "label" }));
});
const markOf = (line, x, y, attributes) =>
  mark(line.accepted ? "diamond" : line.valid ? "circle" : "plus", x, y, 4.5, { class: "mark", fill: line.accepted ? "var(--paper)" : line.valid ? "var(--hue0)" : "var(--bar)", stroke: line.accepted ? "var(--hue1)" : "none", ...attributes });

const historySection = () => {
  if (!DATA.history.length) {
    return section("history", "Against accepted baselines", null, h("p", { class: "absent" }, "No accepted baseline was found in results/baselines/*.jsonl. harness/compare.py decides whether a change is a regression; this page only shows the history."));
  }
  // The largest change first.
  const all = series().map((one) => ({ ...one, change: changeOf(one.lines) })).sort((a, b) => Math.abs(b.change ?? -1) - Math.abs(a.change ?? -1));
  const text = (one) => (one.change === undefined ? "no run since it was accepted" : `last run ${one.change >= 0 ? "+" : "−"}${percent(Math.abs(one.change))} against accepted`);
  return section("history", "Against accepted baselines", "Diamonds and the dashed line: accepted; dots: runs, in the order of time; crosses: runs that are not valid. harness/compare.py decides what is a regression; a single change here may be noise.",
    h("div", { class: "small-multiples" }, all.slice(0, MOST_HISTORIES).map((one) => h("figure", {}, h("figcaption", {}, h("strong", {}, NAMES[one.metric][0]), ` ${one.label}`, h("div", { class: "small" }, `${text(one)}; ${one.key}`)), historyChart(one)))),
    all.length > MOST_HISTORIES && h("p", { class: "note" }, `${all.length - MOST_HISTORIES} more are in the files.`));
};
