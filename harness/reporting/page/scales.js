// From values to pixels, with ticks at numbers that people read.
const linear = (low, high, from, to, unit = 1) => {
  const span = high - low || 1;
  const scale = (v) => from + ((v - low) / span) * (to - from);
  scale.ticks = (most) => {
    const rough = span / unit / most;
    const power = 10 ** Math.floor(Math.log10(rough));
    const step = [1, 2, 2.5, 5, 10].map((one) => one * power).find((one) => one >= rough * 0.999);
    const ticks = [];
    const each = step * unit;
    for (let n = Math.ceil(low / each - 1e-9); n * each <= high + 1e-9 * span; n += 1) ticks.push(n * each);
    return ticks;
  };
  return scale;
};

// Bytes are counted in units of 1024.
const unitOf = (kind, high) => (kind === "bytes" && high >= 1 ? 1024 ** Math.floor(Math.log(high) / Math.log(1024)) : 1);

const logarithmic = (low, high, from, to, base = 10) => {
  const span = Math.log(high / low) || 1;
  const scale = (v) => from + (Math.log(Math.max(v, low) / low) / span) * (to - from);
  scale.ticks = (most) => {
    for (const steps of base === 2 ? [[1]] : [[1, 1.5, 2, 3, 4, 6, 8], [1, 2, 5], [1, 3], [1]]) {
      const all = [];
      for (let p = Math.floor(Math.log(low) / Math.log(base)); p <= Math.ceil(Math.log(high) / Math.log(base)); p += 1)
        all.push(...steps.map((step) => step * base ** p).filter((v) => v >= low * 0.999 && v <= high * 1.001));
      const every = Math.ceil(all.length / most);
      if (every <= 1 || steps.length === 1) return all.length >= 2 ? all.filter((_, n) => n % every === 0) : linear(low, high, from, to).ticks(3).filter((v) => v > 0);
    }
    return [];
  };
  return scale;
};

// Logarithmic where the values span more than a factor of four and none is zero.
const scaleOf = (kind, numbers, from, to) => {
  const low = Math.min(...numbers);
  const high = Math.max(...numbers);
  if (low > 0 && high / low > 4) return logarithmic(low / (high / low) ** 0.06, high * (high / low) ** 0.08, from, to, kind === "bytes" ? 2 : 10);
  const span = high - low || Math.abs(high) || 1;
  const start = low >= 0 && low < 0.35 * high ? 0 : low - 0.08 * span;
  return linear(low >= 0 ? Math.max(0, start) : start, high + 0.12 * span, from, to, unitOf(kind, high));
};

// Accuracy: up to 1, down to the tenth below the lowest end that is drawn.
const scoreScale = (readings, from, to) => {
  const lowest = Math.min(0.9, ...readings.map((one) => Math.min(one.v, one.lo ?? one.v)));
  return linear(Math.max(0, Math.floor(lowest * 10) / 10) - 0.02, 1.03, from, to);
};
