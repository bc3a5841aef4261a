// Numbers as Grafana writes them, for the units that the dashboards use; an unknown unit is an error.
const scaled = (base, names, join = " ") => (value, decimals) => {
  let step = 0;
  let rest = value;
  while (Math.abs(rest) >= base && step < names.length - 1) {
    rest /= base;
    step += 1;
  }
  return number(rest, decimals) + join + names[step];
};
const counted = (name) => (value, decimals) => {
  const [rest, unit] = scaled(1000, ["", "K", "M", "B", "T"])(value, decimals).split(" ");
  return `${rest}${unit ? ` ${unit}` : ""} ${name}`;
};
const fractions = [[1e-6, 1e9, "ns"], [1e-3, 1e6, "µs"], [1, 1e3, "ms"], [60, 1, "s"], [3600, 1 / 60, "mins"], [86400, 1 / 3600, "hours"], [Infinity, 1 / 86400, "days"]];

const units = {
  s(value, decimals) {
    const [, factor, name] = value === 0 ? fractions[3] : fractions.find(([limit]) => Math.abs(value) < limit);
    return `${number(value * factor, decimals)} ${name}`;
  },
  mps: counted("msg/s"),
  pps: scaled(1000, ["p/s", "kp/s", "Mp/s", "Gp/s"]),
  percentunit: (value, decimals) => `${number(value * 100, decimals)}%`,
  short: (value, decimals) => scaled(1000, ["", "K", "Mil", "Bil", "Tri"])(value, decimals).trimEnd(),
  bytes: scaled(1024, ["B", "KiB", "MiB", "GiB", "TiB", "PiB"]),
  Bps: scaled(1000, ["B/s", "kB/s", "MB/s", "GB/s"]),
  celsius: (value, decimals) => `${number(value, decimals)} °C`,
};

/** Hours, minutes and seconds of an instant (ms), the same on every page. */
export function timeOfDay(at) {
  const date = new Date(at);
  return [date.getHours(), date.getMinutes(), date.getSeconds()].map((n) => String(n).padStart(2, "0")).join(":");
}

export const known = Object.keys(units);

// As many decimals as say something: three figures.
function decimalsOf(exact) {
  const value = Number(exact.toPrecision(3)); // 9.996 is 10.0, not 10.00
  if (value === 0 || exact % 1 === 0) return 0;
  return Math.max(0, 2 - Math.floor(Math.log10(Math.abs(value))));
}

function number(value, decimals = decimalsOf(value)) {
  return value.toFixed(Math.min(decimals, 12));
}

export function format(value, unit, decimals) {
  if (!(unit in units)) throw new Error(`unit ${JSON.stringify(unit)} is not known to this console`);
  if (value === null || value === undefined || Number.isNaN(value)) return "–";
  if (!Number.isFinite(value)) return value > 0 ? "∞" : "-∞";
  return units[unit](value, decimals);
}

/** A mark of an axis: as `format`, without zeros that end a fraction. */
export const tick = (value, unit) => format(value, unit).replace(/\.(\d*?)0+(?!\d)/, (_, kept) => (kept ? `.${kept}` : ""));
