// Queries as Grafana would ask them: variables, steps, rate intervals, names of series.
const durations = { ms: 0.001, s: 1, m: 60, h: 3600, d: 86400, w: 604800 };
const nice = [1, 2, 5, 10, 15, 20, 30, 60, 120, 300, 600, 900, 1200, 1800, 3600, 7200, 10800, 21600, 43200, 86400];

export function seconds(words) {
  const found = /^(\d+(?:\.\d+)?)(ms|s|m|h|d|w)$/.exec(words);
  if (!found) throw new Error(`${JSON.stringify(words)} is no duration`);
  return Number(found[1]) * durations[found[2]];
}

/** "now-15m" or milliseconds since the epoch -> seconds since the epoch. */
export function instant(words, now) {
  if (/^\d+$/.test(words)) return Number(words) / 1000;
  const found = /^now(?:-(\w+))?$/.exec(words);
  if (!found) throw new Error(`${JSON.stringify(words)} is no instant`);
  return now - (found[1] ? seconds(found[1]) : 0);
}

/** The step of a panel this wide, and the interval for rates: at least four scrapes, as Grafana has it. */
export function intervals(rangeS, widthPx, scrapeS) {
  const wanted = rangeS / Math.max(100, widthPx);
  const step = Math.max(scrapeS, nice.find((each) => each >= wanted) ?? nice.at(-1));
  return { step, rate: Math.max(step + scrapeS, 4 * scrapeS) };
}

/** How far apart labels of a time axis stand so that so many fit: a round time, a multiple of the step. */
export function labelStep(rangeS, most, step) {
  return nice.find((each) => each % step === 0 && each * Math.max(1, most) >= rangeS) ?? nice.at(-1);
}

const escaped = (value) => value.replace(/[\\^$*+?.()|[\]{}]/g, "\\$&").replace(/\\/g, "\\\\");

/** What a variable's choice is in a query: every value, one, or any of several. */
export function chosen(variable, values) {
  if (values.includes("$__all")) return variable.allValue;
  if (!variable.multi) return values[0] ?? "";
  return values.length === 1 ? escaped(values[0]) : `(${values.map(escaped).join("|")})`;
}

/** An expression with `$name` replaced; a name that is not given is an error. */
export function interpolate(expr, values) {
  return expr.replace(/\$(\w+)|\$\{(\w+)\}/g, (whole, bare, braced) => {
    const name = bare ?? braced;
    if (!(name in values)) throw new Error(`${whole} is not known to this console`);
    return values[name];
  });
}

export const spoken = (step) => `${Number(step.toFixed(3))}s`;

/** What a series is called: `{{label}}` from its labels; `__auto` is all its labels. */
export function legend(format, labels) {
  if (format === "__auto") {
    return Object.entries(labels).filter(([name]) => name !== "__name__").map(([name, value]) => `${name}="${value}"`).join(", ");
  }
  return format.replace(/\{\{\s*(\w+)\s*\}\}/g, (_, name) => labels[name] ?? "");
}

/** Values at every step, null where there is none: a gap stays a gap. */
export function onGrid(values, start, end, step) {
  const rows = new Array(Math.round((end - start) / step) + 1).fill(null);
  for (const [at, value] of values) {
    const index = Math.round((at - start) / step);
    const parsed = value === "+Inf" ? Infinity : value === "-Inf" ? -Infinity : Number(value);
    if (index >= 0 && index < rows.length && !Number.isNaN(parsed)) rows[index] = parsed;
  }
  return rows;
}

export const lastOf = (values) => values.findLast((value) => value !== null) ?? null;
export const mostOf = (values) => values.reduce((most, value) => (value !== null && (most === null || value > most) ? value : most), null);

/** Cumulative buckets -> how many fell between each bound and the one before; sorted by bound. */
export function bands(series) {
  const bound = (labels) => (labels.le === "+Inf" ? Infinity : Number(labels.le));
  const sorted = [...series].sort((a, b) => bound(a.labels) - bound(b.labels));
  return sorted.map(({ labels, values }, index) => ({
    le: bound(labels),
    values: values.map((value, at) => {
      if (value === null) return null;
      const below = index ? (sorted[index - 1].values[at] ?? 0) : 0;
      return Math.max(0, value - below);
    }),
  }));
}

/** The colour of a value: that of the last threshold it reaches. */
export function thresholdColour(thresholds, value) {
  const reached = (thresholds?.steps ?? []).filter((step) => step.value === null || value >= step.value);
  return reached.at(-1)?.color ?? null;
}

/** Neighbouring equal values become one stretch: [first index, index after the last, value]. */
export function stretches(values) {
  const found = [];
  values.forEach((value, index) => {
    const last = found.at(-1);
    if (last && last[2] === value && last[1] === index) last[1] = index + 1;
    else if (value !== null) found.push([index, index + 1, value]);
  });
  return found;
}

/** [name, place] pairs -> a few words for each name: "TargetDown: eh broker, pub clock and 3 more". */
export function grouped(pairs, most = 3) {
  const places = new Map();
  for (const [name, place] of pairs) places.set(name, [...(places.get(name) ?? []), place]);
  return [...places].map(([name, found]) => {
    const shown = [...new Set(found)].filter(Boolean);
    const rest = shown.length > most ? ` and ${shown.length - most} more` : "";
    return shown.length ? `${name}: ${shown.slice(0, most).join(", ")}${rest}` : name;
  });
}

/** Where the links of a series lead, [{ title, path }]; their addresses name a console's usual port, and this one serves them too. */
export function linksOf(links, labels, values, atMs) {
  return (links ?? []).flatMap(({ title, url }) => {
    let known = true;
    const filled = url.replace(/\$\{(__field\.labels\.|__value\.)?(\w+)\}/g, (_, of, name) => {
      const value = { "__field.labels.": labels[name], "__value.": atMs }[of] ?? (of ? undefined : values[name]?.[0]);
      known &&= value !== undefined && value !== "";
      return encodeURIComponent(value ?? "");
    });
    const { pathname, search } = new URL(filled);
    return known ? [{ title, path: pathname + search }] : [];
  });
}

/** Points of a mark's series -> [from, to], a new one after each gap. */
export function lastings(points, step) {
  const found = [];
  for (const [at] of points) {
    const last = found.at(-1);
    if (last && at - last[1] < 1.5 * step) last[1] = at;
    else found.push([at, at]);
  }
  return found;
}

/** Marks of one kind that begin together are one: { name, colour, from, to, words }, in the order of time. */
export function together(marks, step) {
  const found = [];
  for (const mark of [...marks].sort((a, b) => a.from - b.from)) {
    const same = found.findLast((other) => other.name === mark.name && mark.from - other.from <= 2 * step && (mark.name !== "Runs" || other.run === mark.run));
    if (!same) {
      found.push({ ...mark, all: [mark.words] });
      continue;
    }
    same.to = Math.max(same.to, mark.to);
    if (!same.all.includes(mark.words)) same.all.push(mark.words);
  }
  return found.map(({ all, ...mark }) => ({ ...mark, words: all.length > 3 ? `${all.slice(0, 3).join(", ")} and ${all.length - 3} more` : all.join(", ") }));
}
