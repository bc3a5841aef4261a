// Reads a dashboard as Grafana gets it. Whatever this console does not draw is an error with its place: never ignored.
import { known as knownUnits } from "./units.js";

const fail = (place, words) => { throw new Error(`${place}: ${words}`); };
const text = (value, place) => typeof value === "string" || fail(place, "is to be text");
const number = (value, place) => typeof value === "number" || fail(place, "is to be a number");
const truth = (value, place) => typeof value === "boolean" || fail(place, "is to be true or false");
const nothing = (value, place) => value === undefined || fail(place, "is not drawn by this console");
const one = (...allowed) => (value, place) =>
  allowed.includes(value) || fail(place, `is ${JSON.stringify(value)}; this console draws only ${allowed.map((a) => JSON.stringify(a)).join(", ")}`);
const list = (of) => (value, place) => {
  if (!Array.isArray(value)) fail(place, "is to be a list");
  value.forEach((item, index) => of(item, `${place}[${index}]`));
};
const each = (of) => (value, place) => Object.entries(value).forEach(([key, item]) => of(item, `${place}.${key}`));
const shape = (keys) => (value, place) => {
  if (typeof value !== "object" || value === null || Array.isArray(value)) fail(place, "is to be an object");
  for (const [key, item] of Object.entries(value)) (keys[key] ?? nothing)(item, `${place}.${key}`);
};

const datasource = shape({ type: one("prometheus"), uid: one("${datasource}") });
const unit = one(...knownUnits);
const colour = one("green", "yellow", "red", "blue");
const thresholds = shape({ mode: one("absolute"), steps: list(shape({ value: (v, p) => v === null || number(v, p), color: colour })) });
const mappings = list(shape({ type: one("value"), options: each(shape({ text, color: colour, index: number })) }));
const calcs = list(one("lastNotNull", "max"));
const target = (formats) => shape({ refId: text, expr: text, legendFormat: text, datasource, instant: one(false), range: one(true), format: one(...formats) });
// Links from a series lead to a console, from Grafana by a whole address, from here within this one.
const links = list(shape({
  title: text, url: text, targetBlank: one(true), type: one("link"), tags: list(nothing), icon: one(""), tooltip: one(""), asDropdown: one(false),
  includeVars: one(false), keepTime: one(false), placement: one("inControlsMenu"),
}));
const fields = (custom) => shape({ defaults: shape({ unit, noValue: text, thresholds, mappings, links, custom: shape(custom) }), overrides: list(nothing) });
const legend = (mode) => shape({ displayMode: one(mode), placement: one("bottom"), showLegend: one(true), calcs });
const panel = (custom, options, formats = [""]) => shape({
  type: text, id: number, title: text, description: text, datasource, interval: text, transparent: one(false),
  gridPos: shape({ h: number, w: number, x: number, y: number }), repeatDirection: one("h"),
  targets: list(target(formats)), fieldConfig: fields(custom), options: shape(options),
});

const panels = {
  row: shape({ type: text, id: number, title: text, collapsed: one(false), gridPos: shape({ h: one(1), w: one(24), x: one(0), y: number }), panels: list(nothing) }),
  stat: panel({}, {
    colorMode: one("value"), graphMode: one("area"), textMode: one("auto"), justifyMode: one("auto"), orientation: one("auto"), wideLayout: one(true),
    showPercentChange: one(false), percentChangeColorMode: one("standard"), reduceOptions: shape({ calcs: list(one("lastNotNull")) }),
  }),
  timeseries: panel({
    lineWidth: one(1), fillOpacity: one(0, 10), showPoints: one("never"), spanNulls: one(false), axisSoftMin: one(0),
    scaleDistribution: shape({ type: one("log"), log: one(10) }),
  }, { legend: legend("table"), tooltip: shape({ mode: one("multi"), sort: one("desc") }) }),
  heatmap: panel({}, {
    calculate: one(false), cellGap: one(1), showValue: one("auto"), selectionMode: one("x"), legend: shape({ show: one(true) }),
    color: shape({ mode: one("scheme"), scheme: one("Turbo"), scale: one("exponential"), exponent: one(0.5), steps: one(64), fill: one(""), reverse: one(false) }),
    exemplars: shape({ color: text }), filterValues: shape({ le: number }), tooltip: shape({ mode: one("single") }), yAxis: shape({ unit }),
  }, ["heatmap"]),
  "state-timeline": panel({ fillOpacity: one(70), lineWidth: one(0) }, {
    alignValue: one("left"), showValue: one("auto"), rowHeight: one(0.8), mergeValues: one(true), perPage: number, legend: legend("list"),
    tooltip: shape({ mode: one("single"), sort: one("asc") }),
  }),
};

const choice = shape({ text: (v, p) => typeof v === "string" || list(text)(v, p), value: (v, p) => typeof v === "string" || list(text)(v, p), selected: one(true) });
const variable = {
  datasource: shape({ name: one("datasource"), label: text, type: one("datasource"), query: one("prometheus"), skipUrlSync: one(false), allowCustomValue: one(true), multi: one(false), includeAll: one(false), current: shape({}), options: list(nothing), regex: one(""), hide: one(0) }),
  query: shape({
    name: text, label: text, type: text, datasource, skipUrlSync: truth, refresh: one(2), sort: one(1), allowCustomValue: one(true), options: list(nothing), regex: one(""), hide: one(0, 2),
    query: shape({ query: (v, p) => /^label_values\(.*, *\w+\)$/s.test(v) || fail(p, "is not label_values(SERIES, LABEL)"), refId: text }),
    includeAll: truth, multi: truth, allValue: one(".*", ".+"), current: choice,
  }),
};

// The page's own buttons for the other dashboards, and its way back to the testbed, stand for them.
const lead = {
  dashboards: shape({ title: text, type: text, tags: list(text), asDropdown: one(true), includeVars: one(true), keepTime: one(true), targetBlank: one(false), icon: text, tooltip: text, url: one(""), placement: one("inControlsMenu") }),
  link: shape({ title: text, type: text, tags: list(nothing), asDropdown: one(false), includeVars: one(false), keepTime: one(false), targetBlank: one(true), icon: text, tooltip: text, url: (v, p) => /\/testbeds\/\$\{testbed\}$/.test(v) || fail(p, "does not lead to the testbed"), placement: one("inControlsMenu") }),
};

const whole = shape({
  uid: text, title: text, description: text, tags: list(text), editable: one(false), graphTooltip: one(1), refresh: text, timezone: one("browser"),
  time: shape({ from: text, to: text }), timepicker: shape({}), schemaVersion: one(42), fiscalYearStartMonth: one(0), id: nothing, version: number, preload: one(false), liveNow: one(false),
  annotations: shape({ list: list(shape({
    name: text, datasource, enable: one(true), hide: one(false), iconColor: colour, expr: text, titleFormat: text, textFormat: text, builtIn: one(0), placement: one("inControlsMenu"),
  })) }),
  links: list((v, p) => (lead[v.type] ?? fail(p, `is a link of the type ${v.type}, which this console does not know`))(v, p)),
  templating: shape({ list: list((v, p) => (variable[v.type] ?? fail(p, `is a variable of the type ${v.type}, which this console does not know`))(v, p)) }),
  panels: list((v, p) => typeof v === "object" || fail(p, "is to be an object")),
});

/** Throws where the dashboard as a whole is not of the kind that is drawn; panels are checked one by one. */
export function readDashboard(document) {
  whole(document, "dashboard");
  return document;
}

/** What this console cannot draw of a panel, in words; empty: it draws all of it. */
export function unknownIn(panelDocument) {
  const name = `panel "${panelDocument.title ?? "?"}"`;
  try {
    (panels[panelDocument.type] ?? fail(name, `is of the type ${JSON.stringify(panelDocument.type)}, which this console does not draw`))(panelDocument, name);
  } catch (error) {
    return error.message;
  }
  return "";
}
