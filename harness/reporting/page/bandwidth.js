// How near a step is to the memory: bytes of KV against time, with lines of equal bandwidth.
const drawBandwidth = (width) => {
  const points = state.points.filter((one) => one.readings.kv && one.readings.tpot && one.readings.kv.v > 0);
  if (!points.length) return h("p", { class: "absent" }, "No cell here has both bytes read and a time.");
  const frame = { left: 60, right: width - 14, top: 30, bottom: 290 };
  const spread = (values, from, to, base) => logarithmic(Math.min(...values) / 1.6, Math.max(...values) * 1.9, from, to, base);
  const xs = points.map((one) => one.readings.kv.v);
  const ys = points.map((one) => one.readings.tpot.v);
  const x = spread(xs, frame.left, frame.right, 2);
  const y = spread(ys, frame.bottom, frame.top, 10);
  const [low, high] = [Math.min(...xs) / 1.6, Math.max(...xs) * 1.9];
  const [first, last] = [Math.min(...ys) / 1.6, Math.max(...ys) * 1.9];
  const rays = [];
  for (let gb = 1e-4; gb < 1e5; gb *= 10) {
    // ms = bytes / (GB/s * 1e6)
    const from = Math.max(low, first * gb * 1e6);
    const to = Math.min(high, last * gb * 1e6);
    if (from >= to) continue;
    const at = [x(to), y(to / (gb * 1e6))];
    rays.push(s("line", { class: "ray", x1: x(from), y1: y(from / (gb * 1e6)), x2: at[0], y2: at[1] }), write(at[0] - 4, at[1] + 12, bandwidth(gb), { class: "ray-name", "text-anchor": "end" }));
  }
  const best = winnerOf();
  const named = [...points.filter((one) => one === best || one.isBaseline)];
  const speed = (one) => `${bandwidth(one.readings.kv.v / one.readings.tpot.v / 1e6)} of KV over the whole step`;
  return svg(width, 336, "Time per token against KV bytes read per step",
    xAxis(x, "bytes", { ...frame, title: "KV read per decode step" }), yAxis(y, "ms", { ...frame, title: "time per output token ↓ better", ticks: 4 }), rays,
    points.map((one) => mark(tierShape(one), x(one.readings.kv.v), y(one.readings.tpot.v), 4.5, { class: "mark", fill: one.isBaseline ? "var(--paper)" : tierHue(one), stroke: one.isBaseline ? "var(--ink)" : tierHue(one), ...reachable(one, () => [one.full, speed(one), readingText("kv", one.readings.kv), readingText("tpot", one.readings.tpot)], named.includes(one)) })),
    placeLabels(named.map((one) => ({ x: x(one.readings.kv.v), y: y(one.readings.tpot.v), text: one.label })), { left: frame.left, right: width, top: 14, bottom: frame.bottom }));
};

const bandwidthSection = () => {
  const chart = sized(drawBandwidth);
  onChoice(() => redraw(chart));
  return section("roof", "Bytes against time", "Points on one dotted line read KV at one rate. Where fewer bytes take nearly as long as many, something else than reading them takes the time.", chart,
    h("p", { class: "note" }, "No roof is drawn: a record holds neither the peak bandwidth of the machine nor the operations of a step. The rate counts KV alone, without weights, so it is a lower bound of what the memory gave."));
};
