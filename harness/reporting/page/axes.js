// Axes: hairlines, ticks at round numbers, and a label that says what and which way is better.
const xAxis = (scale, kind, { left, right, top, bottom, title, ticks }) => {
  const shown = scale.ticks(ticks || Math.max(2, Math.floor((right - left) / 84)));
  return s("g", { class: "axis", "aria-hidden": "true" },
    shown.map((v) => [
      s("line", { class: "grid", x1: scale(v), x2: scale(v), y1: top, y2: bottom }),
      write(scale(v), bottom + 16, tick(kind, v), { "text-anchor": "middle" }),
    ]),
    s("line", { class: "base", x1: left, x2: right, y1: bottom, y2: bottom }),
    title && write(right, bottom + 34, title, { "text-anchor": "end", class: "title" }));
};

const yAxis = (scale, kind, { left, right, title, top, ticks = 5 }) =>
  s("g", { class: "axis", "aria-hidden": "true" },
    scale.ticks(ticks).map((v) => [
      s("line", { class: "grid", x1: left, x2: right, y1: scale(v), y2: scale(v) }),
      write(left - 8, scale(v) + 4, tick(kind, v), { "text-anchor": "end" }),
    ]),
    title && write(2, top - 12, title, { class: "title" }));

const lowerIsBetter = (title) => `${title} (← better)`;

const PATHS = {
  circle: (r) => `M${-r},0a${r},${r} 0 1,0 ${2 * r},0a${r},${r} 0 1,0 ${-2 * r},0z`,
  square: (r) => `M${-0.9 * r},${-0.9 * r}h${1.8 * r}v${1.8 * r}h${-1.8 * r}z`,
  triangle: (r) => `M0,${-1.15 * r}L${1.1 * r},${0.85 * r}H${-1.1 * r}z`,
  diamond: (r) => `M0,${-1.25 * r}L${1.25 * r},0L0,${1.25 * r}L${-1.25 * r},0z`,
  down: (r) => `M0,${1.15 * r}L${1.1 * r},${-0.85 * r}H${-1.1 * r}z`,
  plus: (r) => `M${-r},${-0.35 * r}h${0.65 * r}v${-0.65 * r}h${0.7 * r}v${0.65 * r}h${0.65 * r}v${0.7 * r}h${-0.65 * r}v${0.65 * r}h${-0.7 * r}v${-0.65 * r}h${-0.65 * r}z`,
};
const mark = (shape, x, y, r, attributes) =>
  s("path", { d: PATHS[shape](r), transform: `translate(${x.toFixed(1)},${y.toFixed(1)})`, ...attributes });

const tierLegend = () =>
  h("ul", { class: "legend", "aria-label": "Tiers" }, TIERS.map((tier, number) => {
    const picture = svg(14, 14, tier, mark(SHAPES[number % SHAPES.length], 7, 7, 5, { fill: hueOf(number) }));
    picture.setAttribute("aria-hidden", "true");
    return h("li", {}, picture, tier);
  }));

// Labels beside their points; one that finds no free place is left to the tooltip.
const placeLabels = (wanted, bounds) => {
  const boxes = wanted.map((one) => ({ x: one.x - 6, y: one.y - 6, w: 12, h: 12 }));
  const clash = (a, b) => a.x < b.x + b.w && b.x < a.x + a.w && a.y < b.y + b.h && b.y < a.y + a.h;
  const placed = [];
  return wanted.flatMap((one) => {
    if (placed.some((other) => other.text === one.text && Math.hypot(other.x - one.x, other.y - one.y) < 60)) return [];
    const w = one.text.length * 6.6 + 4;
    const places = [
      { x: one.x + 5, y: one.y - 24, anchor: "start" },
      { x: one.x + 5, y: one.y + 8, anchor: "start" },
      { x: one.x + 9, y: one.y - 8, anchor: "start" },
      { x: one.x - 9 - w, y: one.y - 8, anchor: "end" },
      { x: one.x - 5 - w, y: one.y - 24, anchor: "end" },
      { x: one.x - 5 - w, y: one.y + 8, anchor: "end" },
    ];
    for (const place of places) {
      const box = { x: place.x, y: place.y, w, h: 16 };
      const inside = box.x >= bounds.left && box.x + w <= bounds.right && box.y >= bounds.top && box.y + 16 <= bounds.bottom;
      if (!inside || boxes.some((other) => clash(box, other))) continue;
      boxes.push(box);
      placed.push(one);
      return [write(place.anchor === "start" ? place.x : place.x + w, place.y + 12, one.text, { "text-anchor": place.anchor, class: `label ${one.class || ""}` })];
    }
    return [];
  });
};
