// Numbers for people: three digits and a unit that fits. As harness/units.py has it.
// Kept: toLocaleString looks the language up each time.
const ENGLISH = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const whole = (value) => ENGLISH.format(value);

const digits = (value) => {
  const size = Math.abs(value);
  if (size === 0) return "0";
  if (size >= 99.95) return whole(value);
  if (size >= 9.995) return value.toFixed(1);
  if (size >= 0.9995) return value.toFixed(2);
  return value.toFixed(Math.min(8, 2 - Math.floor(Math.log10(size))));
};

const ratio = (value) => (Math.abs(value) >= 0.0995 ? value.toFixed(2) : digits(value));

const bytes = (value) => {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let power = 0;
  for (; Math.abs(value) >= 1024 && power < units.length - 1; power += 1) value /= 1024;
  return `${power ? digits(value) : Math.round(value)} ${units[power]}`;
};

const milliseconds = (value) =>
  Math.abs(value) < 1e4 ? `${digits(value)} ms` : `${digits(value / 1e3)} s`;

const percent = (value) => `${(100 * value).toFixed(1).replace(/\.0$/, "")} %`;

const FORMATS = {
  score: percent,
  change: (value) => `${value > 0 ? "+" : ""}${percent(value)}`,
  fraction: percent,
  ratio: (value) => `${ratio(value)}×`,
  ms: milliseconds,
  bytes,
  rate: digits,
  count: digits,
};
const format = (kind, value) => (FORMATS[kind] || digits)(value);

// On an axis, zeros behind the point say nothing.
const tick = (kind, value) => format(kind, value).replace(/(\.\d*?)0+(?=\D*$)/, "$1").replace(/\.(?=\D*$)/, "");
const bandwidth = (gb) => (gb < 1 ? `${digits(1e3 * gb)} MB/s` : `${digits(gb)} GB/s`);

// Without the unit where the other end of an interval says it.
const interval = (kind, reading) => {
  if (reading.lo === undefined) return "";
  const low = format(kind, reading.lo);
  const high = format(kind, reading.hi);
  const unit = / ?[^\d.,]+$/.exec(low);
  const same = unit && high.endsWith(unit[0]);
  return `${same ? low.slice(0, -unit[0].length) : low}–${high}`;
};

const plural = (count, word) => `${whole(count)} ${word}${count === 1 ? "" : "s"}`;

const listed = (names, most = 4) =>
  names.length > most
    ? `${names.slice(0, most).join(", ")} and ${names.length - most} more`
    : names.join(", ");
