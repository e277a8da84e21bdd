// Side by side for each cell: bytes that move between tiers, hit rate, and the time of a token.
const MOST_LANES = 16;
const ROW = 26;
const lanes = { all: false };

const movedOf = (one) => Object.entries(one.parts.moved || {}).map(([pair, packed]) => [pair, unpack(packed)]);
const lanePoints = () => {
  const first = new Set([...frontOf(state.points, state.axis), winnerOf()]);
  const rank = (one) => (one.isBaseline ? 0 : first.has(one) ? 1 : 2);
  const order = (one) => (one.readings.tpot_ratio || one.readings.tpot || { v: Infinity }).v;
  const all = state.points
    .filter((one) => one.readings.tpot || one.readings.hit || movedOf(one).length)
    .sort((a, b) => rank(a) - rank(b) || order(a) - order(b));
  return { all, shown: lanes.all ? all : all.slice(0, MOST_LANES) };
};
const pairsOf = (points) => [...new Set(points.flatMap((one) => movedOf(one).filter(([, r]) => r.v > 0).map(([pair]) => pair)))].sort();

const laneTitle = (text, unit, left) => [
  write(left, 12, text, { class: "lane-title" }),
  write(left, 27, unit, { class: "lane-unit" }),
];

// Fractions of the time of a token that a record can tell apart: waiting for transfers, the rest.
const timeParts = (one) => {
  const { tpot, exposed } = one.readings;
  if (!tpot) return [];
  return exposed ? [["waiting for transfers", Math.min(exposed.v, tpot.v)], ["everything else", Math.max(0, tpot.v - exposed.v)]] : [["everything else", tpot.v]];
};

const bars = (parts, scale, y, hues) => {
  let at = 0;
  return parts.filter(([, v]) => v > 0).map(([name, v]) => {
    const from = scale(at);
    at += v;
    return s("rect", { x: from, y: y + 5, width: Math.max(0.5, scale(at) - from - 1), height: ROW - 11, fill: hues[name] });
  });
};

const laneOf = (kind, points, left, right, top) => {
  const pairs = pairsOf(points);
  const y = (n) => top + n * ROW;
  const bottom = y(points.length);
  const frame = { left, right, top, bottom };
  const ticks = Math.max(1, Math.floor((right - left) / 80));
  if (kind === "hit") {
    const x = linear(0, 1, left, right - 50);
    return [xAxis(x, "fraction", { ...frame, ticks: 2 }), points.map((one, n) => one.readings.hit
      ? [s("line", { class: "stem", x1: left, x2: x(one.readings.hit.v), y1: y(n) + ROW / 2, y2: y(n) + ROW / 2 }), mark(tierShape(one), x(one.readings.hit.v), y(n) + ROW / 2, 5, { fill: tierHue(one), class: "mark" }), write(x(one.readings.hit.v) + 9, y(n) + 17, percent(one.readings.hit.v), { class: "nothing" })]
      : write(left + 4, y(n) + 17, "one tier", { class: "nothing" }))];
  }
  const isBytes = kind === "moved";
  const total = (one) => (isBytes ? movedOf(one).map(([pair, r]) => [pair, r.v]) : timeParts(one));
  const sum = (one) => total(one).reduce((all, [, v]) => all + v, 0);
  const most = (some) => Math.max(1e-9, ...some.map((one) => Math.max(sum(one), isBytes ? 0 : (one.readings.tpot || {}).hi || 0)));
  const others = points.filter((one) => !one.isBaseline && sum(one) > 0);
  // A baseline far beyond the rest is cut off at the edge, and its number says so.
  const end = others.length && most(points) > 3 * most(others) ? 1.2 * most(others) : most(points);
  const edge = right - 58;
  const scale = linear(0, end, left, edge, unitOf(isBytes ? "bytes" : "ms", end));
  const x = (v) => Math.min(scale(v), edge);
  x.ticks = scale.ticks;
  const hues = isBytes
    ? Object.fromEntries(pairs.map((pair, n) => [pair, hueOf(n + 1)]))
    : { "waiting for transfers": "var(--hue1)", "everything else": "var(--bar)" };
  return [xAxis(x, isBytes ? "bytes" : "ms", { ...frame, ticks }), points.map((one, n) => {
    const parts = total(one);
    const { tpot } = one.readings;
    const text = { class: "nothing" };
    if (isBytes && sum(one) === 0) return write(left + 4, y(n) + 17, "nothing moves", { class: "nothing" });
    if (!isBytes && !tpot) return write(left + 4, y(n) + 17, "not timed", { class: "nothing" });
    const tip = Math.max(x(sum(one)), isBytes ? 0 : x(tpot.hi || 0));
    return [bars(parts, x, y(n), hues), write(tip + 5, y(n) + 17, (sum(one) > end ? "→ " : "") + format(isBytes ? "bytes" : "ms", sum(one)), text), !isBytes && tpot.lo !== undefined && s("line", { class: "range", x1: x(tpot.lo), x2: x(tpot.hi), y1: y(n) + ROW / 2, y2: y(n) + ROW / 2 })];
  })];
};

const LANES = [
  ["moved", "KV moved between tiers", "bytes per decode step"],
  ["hit", "hit rate", "pages found in the fast tier"],
  ["time", "time per output token", "median; line: range"],
];

const laneLines = (one) => [
  one.full,
  ...["hit", "tpot", "tpot_ratio", "transfer", "exposed"].filter((key) => one.readings[key]).map((key) => readingText(key, one.readings[key])),
  ...movedOf(one).map(([pair, r]) => `${pair}: ${bytes(r.v)} per decode step (n ${whole(r.n)}; ${r.how})`),
];

const drawLanes = (width) => {
  const { shown } = lanePoints();
  if (!shown.length) return h("p", { class: "absent" }, "Nothing here was timed or moved between tiers.");
  const top = 40;
  const height = top + shown.length * ROW + 26;
  const longest = Math.max(...shown.map((one) => one.full.length));
  const names = (left) => shown.map((one, n) => write(left, top + n * ROW + 17, one.full.length > 44 ? `${one.full.slice(0, 43)}…` : one.full, { class: one === winnerOf() ? "row-name best" : "row-name" }));
  const hits = (right) => shown.map((one, n) => s("rect", { class: "hit-area", x: 0, y: top + n * ROW, width: right, height: ROW, ...reachable(one, () => laneLines(one)) }));
  if (width >= 720) {
    const left = Math.min(300, 16 + 7.2 * Math.min(44, longest));
    const rest = width - left;
    const edges = [left, left + 0.38 * rest, left + 0.6 * rest, width];
    return svg(width, height, "Bytes, hit rate and time, by cell", names(0), LANES.map(([kind, title, unit], n) => [laneTitle(title, unit, edges[n]), laneOf(kind, shown, edges[n], edges[n + 1] - 18, top)]), hits(width));
  }
  const left = Math.min(0.46 * width, 12 + 5.6 * Math.min(30, longest));
  const small = (one) => (one.full.length * 5.6 > left ? `${one.full.slice(0, Math.floor(left / 5.9))}…` : one.full);
  return LANES.map(([kind, title, unit]) => svg(width, height, title,
    laneTitle(title, unit, left), shown.map((one, n) => write(0, top + n * ROW + 17, small(one), { class: "row-name narrow" })),
    laneOf(kind, shown, left, width - 4, top), hits(width)));
};

const laneLegend = () => {
  const entry = (hue, text) => h("li", {}, h("span", { class: "swatch", css: { background: hue } }), text);
  const { shown } = lanePoints();
  return h("ul", { class: "legend", "aria-label": "Parts of the bars" }, pairsOf(shown).map((pair, n) => entry(hueOf(n + 1), `${pair.replace("->", " → ")}`)),
    shown.length > 0 && [entry("var(--hue1)", "time: waiting for transfers"), entry("var(--bar)", "time: everything else")]);
};

const lanesSection = () => {
  const chart = sized(drawLanes);
  const legend = h("div", {});
  const more = h("p", {});
  const redo = () => {
    const { all } = lanePoints();
    legend.replaceChildren(laneLegend());
    more.replaceChildren(...(all.length > MOST_LANES ? [h("button", { type: "button", class: "quiet", onclick: () => { lanes.all = !lanes.all; redo(); } }, lanes.all ? "Show fewer" : `Show all ${all.length}`)] : []));
    redraw(chart);
  };
  redo();
  onChoice(redo);
  return section("moves", "What moves, what is found, what it costs", "The dense baselines, the front of the picture above, then the fastest. Bytes are counted on real tensors; with several sequences in a step, a token's time is the step's.", legend, chart, more);
};
