// Which is best within limits: sliders, and the answer in words.
const meets = (one, key, limit) => {
  if (limit === undefined) return true;
  const found = one.readings[key];
  return Boolean(found) && (key === "acc" ? found.v >= limit : found.v <= limit);
};
const fits = (one, limits) => LIMITS.every(([key]) => meets(one, key, limits[key]));
const able = () => state.points.filter((one) => !isBound(one) && one.readings.acc);

const compareBy = (goal) => (a, b) => {
  const order = [goal, "acc", "tpot_ratio", "kv", "memory"];
  for (const key of order) {
    const [left, right] = [a.readings[key], b.readings[key]];
    if (!left || !right) { if (left || right) return left ? -1 : 1; continue; }
    const by = key === "acc" ? right.v - left.v : left.v - right.v;
    if (by) return by;
  }
  return 0;
};
const bestOf = (points) => [...points].sort(compareBy(state.goal))[0];
// The baseline is what the others are held against; it wins only where it is alone.
const winnerOf = () => {
  const fitting = able().filter((one) => known([one], state.goal).length && fits(one, state.limits));
  return bestOf(fitting.filter((one) => !one.isBaseline)) || bestOf(fitting);
};
const baselineWords = (best) => {
  const base = !best.isBaseline && state.points.find((one) => one.isBaseline && one.cell.what.tier === best.cell.what.tier && one.readings.acc);
  return base && h("p", { class: "small" }, `${base.full}, to compare: ${inWords(base)}.`);
};

// Intervals that overlap: the data do not tell which of the two is better.
const alike = (a, b) => Boolean(a && b) && (a.lo ?? a.v) <= (b.hi ?? b.v) && (b.lo ?? b.v) <= (a.hi ?? a.v);

const withRange = (key, one) => {
  const range = interval(QUANTITIES[key].kind, one);
  return `${format(QUANTITIES[key].kind, one.v)}${range && ` [${range}]`}`;
};

const inWords = (best) => {
  const says = [
    ["acc", (one) => `accuracy ${withRange("acc", one)}`],
    ["tpot_ratio", (one) => `TPOT ${format("ratio", one.v)} dense${one.lo === undefined ? "" : ` [${interval("ratio", one)}]`}`],
    ["kv", (one) => `${format("bytes", one.v)} of KV read per step`],
    ["hbm", (one) => `HBM peak ${format("bytes", one.v)}`],
  ];
  return says.filter(([key]) => best.readings[key]).map(([key, text]) => text(best.readings[key])).join(", ");
};

const nothingFits = () => {
  const ways = LIMITS.filter(([key]) => state.limits[key] !== undefined).flatMap(([key, label]) => {
    const found = bestOf(able().filter((one) => fits(one, { ...state.limits, [key]: undefined })));
    return found ? [`without the limit “${label.toLowerCase()}”, ${found.full}`] : [];
  });
  return h("p", { class: "answer none" }, h("strong", {}, "Nothing that was measured fits these limits. "), ways.length ? `It would be: ${ways.join("; ")}.` : "Loosen more than one of them.");
};

const drawAnswer = () => {
  const best = winnerOf();
  if (!best) return nothingFits();
  const fitting = able().filter((one) => fits(one, state.limits));
  const rivals = fitting.filter((one) => one !== best && !one.isBaseline && alike(one.readings[state.goal], best.readings[state.goal]));
  const few = rivals.length > 5 ? ` With n ${whole(best.readings[state.goal].n)} the best of so many is partly luck: more requests tell more apart.` : "";
  const same = rivals.length ? ` Not told apart from it by ${GOALS.find(([key]) => key === state.goal)[1].split(" ")[1]}: ${listed([...new Set(rivals.map((one) => one.full))])}.${few}` : "";
  const unknown = LIMITS.filter(([key]) => state.limits[key] !== undefined).map(([key]) => able().length - known(able(), key).length);
  const left = Math.max(0, ...unknown);
  return h("div", { class: "answer" },
    h("p", {}, h("strong", {}, best.full), best.cell.simulated ? " (simulated)" : "", `: ${inWords(best)}.`),
    baselineWords(best),
    h("p", { class: "small" }, `${plural(fitting.length, "point")} of ${able().length} within the limits.${same}${left ? ` ${plural(left, "point")} without a value for a limit left out.` : ""} Bounds take no part.`),
    h("p", { class: "actions" }, h("button", { type: "button", class: "quiet", onclick: () => openCell(best.number) }, "Show its cell"), best.cell.command && copyButton(best.cell.command)));
};

const slider = ([key, label], change) => {
  const values = [...new Set(known(able(), key).map((one) => one.readings[key].v))].sort((a, b) => a - b);
  const isFloor = key === "acc";
  const free = isFloor ? 0 : values.length;
  const output = h("output", {});
  const input = h("input", { type: "range", min: 0, max: values.length, step: 1, disabled: values.length < 2, "aria-label": label });
  input.value = free;
  const say = () => {
    const at = Number(input.value);
    const limit = at === free ? undefined : values[isFloor ? at - 1 : at];
    const text = values.length ? (limit === undefined ? "no limit" : format(QUANTITIES[key].kind, limit)) : "not measured here";
    output.textContent = text;
    input.setAttribute("aria-valuetext", text);
    return limit;
  };
  say();
  input.addEventListener("input", () => { state.limits[key] = say(); change(); });
  return h("label", { class: "slider" }, h("span", {}, label), output, input);
};

const bestSection = () => {
  const chart = sized(drawPareto);
  const answer = h("div", { role: "status", "aria-live": "polite" });
  const controls = h("div", { class: "controls" });
  const note = h("p", { class: "note" });
  const redo = () => { answer.replaceChildren(drawAnswer()); redraw(chart); note.textContent = paretoNote(); };
  const build = () => {
    controls.replaceChildren(
      switches("Best means", "goal", GOALS.filter(([key]) => known(state.points, key).length), state.goal, (goal) => { state.goal = goal; redo(); }),
      h("div", { class: "sliders" }, LIMITS.map((limit) => slider(limit, redo))));
    axis.replaceChildren(choices("Cost on the x axis", usableAxes().map((key) => [key, QUANTITIES[key].label]), state.axis, (key) => { state.axis = key; chosen(); }));
    redo();
  };
  const axis = h("div", {});
  let shown = state.group;
  build();
  onChoice(() => { if (shown !== state.group) { shown = state.group; build(); } else redo(); });
  return section("best", "Which is best for my budget?", null,
    h("div", { class: "bar" }, groupChoice(), axis), answer, controls, tierLegend(), chart, note);
};
