// Latencies of all requests: the share of requests that were no slower.
const MOST_LINES = 6;
const DASHES = ["", "7 3", "2 3", "9 3 2 3", "4 2", "12 4", "1 2"];

const lineHue = (number) => hueOf(number);
const ecdfPoints = (name) => {
  const have = state.points.filter((one) => (one.parts.steps || {})[name]);
  const front = frontOf(have, state.axis);
  const best = winnerOf();
  const first = [best, ...front].filter((one) => one && have.includes(one) && !one.isBaseline);
  const others = have.filter((one) => !one.isBaseline && !isBound(one));
  const dense = have.filter((one) => one.isBaseline).slice(0, 1);
  return { have, lines: [...dense, ...[...new Set([...first, ...others])].slice(0, MOST_LINES)] };
};

const drawEcdf = (name, title) => (width) => {
  const { lines } = ecdfPoints(name);
  if (!lines.length) return h("p", { class: "absent" }, `No ${title} of single requests here.`);
  const frame = { left: 46, right: width - 12, top: 34, bottom: 250 };
  const all = lines.flatMap((one) => one.parts.steps[name][1]);
  const x = scaleOf("ms", all, frame.left, frame.right);
  const y = linear(0, 1, frame.bottom, frame.top);
  const paths = lines.map((one, n) => {
    const [count, values] = one.parts.steps[name];
    const d = values.map((v, i) => `${i ? "H" : "M"}${x(v).toFixed(1)}${i ? "V" : `,${y(0)}V`}${y((i + 1) / values.length).toFixed(1)}`).join("");
    const says = () => [`${one.full}`, `${title} of ${whole(count)} requests, median ${milliseconds(middle(values))}`, count > values.length ? `drawn at ${values.length} quantiles` : "every request is a step"];
    return s("path", { d, class: "line", stroke: one.isBaseline ? "var(--ink)" : lineHue(n - 1), "stroke-dasharray": one.isBaseline ? "" : DASHES[n % DASHES.length], ...saying(says), tabindex: "0", role: "img", "aria-label": says().join(". ") });
  });
  return svg(width, 296, `${title}, share of requests`,
    xAxis(x, "ms", { ...frame, title: lowerIsBetter(title), ticks: Math.max(2, Math.floor(width / 95)) }),
    yAxis(y, "fraction", { ...frame, title: "share of requests", ticks: 4 }), paths);
};

const ecdfLegend = () => {
  const { lines } = ecdfPoints(known(state.points, "tpot").length ? "tpot" : "ttft");
  return h("ul", { class: "legend", "aria-label": "Lines" }, lines.map((one, n) => {
    const sample = s("line", { x1: 0, x2: 26, y1: 7, y2: 7, class: "line", stroke: one.isBaseline ? "var(--ink)" : lineHue(n - 1), "stroke-dasharray": one.isBaseline ? "" : DASHES[n % DASHES.length] });
    const picture = svg(26, 14, "", sample);
    picture.setAttribute("aria-hidden", "true");
    return h("li", {}, picture, one.full);
  }));
};

const ecdfSection = () => {
  const charts = [sized(drawEcdf("ttft", "TTFT")), sized(drawEcdf("tpot", "TPOT"))];
  const legend = h("div", {});
  const redo = () => { legend.replaceChildren(ecdfLegend()); charts.forEach(redraw); };
  legend.replaceChildren(ecdfLegend());
  onChoice(redo);
  return section("latency", "Latency of requests", "Timed by the client, pooled over the trials of a cell. The baseline, the winner above, and points of the front come first.", legend, h("div", { class: "pair" }, charts));
};
