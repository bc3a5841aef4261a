// Draws one panel of each kind from series on a grid of steps. Numbers and states are text in the page; curves are canvas.
import { bands, labelStep, lastOf, linksOf, mostOf, stretches, thresholdColour } from "./queries.js";
import { format, tick, timeOfDay } from "./units.js";

const style = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const palette = () => [1, 2, 3, 4, 5, 6, 7, 8].map((n) => style(`--s${n}`));
const named = (name) => ({ green: style("--good"), yellow: style("--warn"), red: style("--bad"), blue: style("--s1") })[name];
const turbo = ["#30123b", "#4145ab", "#4675ed", "#39a2fc", "#1bcfd4", "#24eca6", "#61fc6c", "#a4fc3b", "#d1e834", "#f3c63a", "#fe9b2d", "#f36315", "#d93806", "#b11901", "#7a0402"];

export function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else if (value !== false && value !== undefined) made.setAttribute(key, value === true ? "" : value);
  }
  made.append(...children);
  return made;
}

const svg = (name, attributes) => {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
};

let library;
/** The charts' library, fetched when the first panel needs it. */
const charts = (url) => (library ??= new Promise((loaded, failed) => {
  const script = element("script", { src: url });
  script.onload = () => loaded(window.echarts);
  script.onerror = () => {
    library = undefined; // the next panel tries again
    failed(new Error("the charts' library did not load"));
  };
  document.head.append(script);
}));

/** Puts new parts in the place of old ones; what had the focus, or stands where it was, has it again. */
function redraw(home, ...parts) {
  const stops = () => [...home.querySelectorAll("button, a, [tabindex]")];
  const nameOf = (stop) => stop?.ariaLabel ?? stop?.textContent;
  const at = stops().indexOf(document.activeElement);
  const focused = nameOf(stops()[at]);
  home.replaceChildren(...parts);
  if (at < 0) return;
  const same = nameOf(stops()[at]) === focused ? stops()[at] : stops().find((stop) => nameOf(stop) === focused);
  (same ?? stops()[at])?.focus({ preventScroll: true });
}

/** Where a panel's links lead from a series, from one of its points or from the time shown; nowhere on a page without runs. */
const leadsOf = (panel, context, labels, atMs) => linksOf(context.leads ? panel.fieldConfig.defaults.links : [], labels, context.values, atMs);
const opens = ({ title, path }, attributes, ...words) => element("a", { href: path, target: "_blank", ...attributes, title }, ...words);

function empty(body, panel) {
  drop(body);
  body.replaceChildren(element("p", { class: "empty" }, panel.fieldConfig.defaults.noValue ?? "No data"));
}

/** Takes a panel's chart off, so that its canvas is given back. */
function drop(body) {
  body.chart?.dispose();
  body.chart = undefined;
  body.watcher?.disconnect();
}

async function canvas(body, context) {
  const echarts = await charts(context.echarts);
  if (body.chart?.getDom().isConnected) return body.chart;
  drop(body);
  const home = element("div", { class: "chart", "aria-hidden": "true" });
  const legend = element("div", { class: "legend" });
  body.replaceChildren(home, legend);
  body.chart = echarts.init(home);
  body.watcher = new ResizeObserver(() => body.chart?.resize());
  body.watcher.observe(home);
  context.share(body.chart);
  return body.chart;
}

const clock = (rangeS) => (at) => {
  const time = timeOfDay(at);
  if (rangeS <= 600) return time;
  const date = new Date(at);
  const two = (n) => String(n).padStart(2, "0");
  return rangeS > 86400 ? `${two(date.getMonth() + 1)}-${two(date.getDate())} ${time.slice(0, 5)}` : time.slice(0, 5);
};

const axes = (context, chart) => {
  const [soft, line] = [style("--soft"), style("--line")];
  const fontSize = Math.round(parseFloat(getComputedStyle(document.documentElement).fontSize) * 0.8); // larger on a wall
  const fitting = Math.floor(chart.getWidth() / (8 * fontSize)); // labels of a time axis
  return {
    animation: false,
    textStyle: { fontFamily: "system-ui, sans-serif" },
    grid: { left: 6, right: 2 * fontSize, top: fontSize, bottom: 4, containLabel: true },
    xAxis: {
      type: "time", splitNumber: Math.max(1, fitting - 1), min: context.start * 1000, max: context.end * 1000, splitLine: { show: false }, axisLine: { lineStyle: { color: line } },
      axisLabel: { color: soft, fontSize, hideOverlap: true, formatter: clock(context.end - context.start) }, axisPointer: { show: true, type: "line", label: { show: false } },
    },
    tooltip: { renderMode: "richText", confine: true, backgroundColor: style("--card"), borderColor: line, textStyle: { color: style("--ink"), fontSize } },
    soft, line, fontSize, fitting,
  };
};

const shade = { Runs: 0.07, Faults: 0.14, Alerts: 0.1 };

/** What happened, drawn behind a chart: a line where it begins, and a shade for as long as a run, a fault or an alert lasted. */
function marked(context, place) {
  const seen = context.marks.filter(({ from, to }) => to >= context.start && from <= context.end);
  const shaded = seen.filter(({ name, from, to }) => name in shade && to > from);
  return {
    markLine: {
      silent: true, symbol: "none", label: { show: false },
      data: [
        ...seen.map(({ from, colour }) => ({ xAxis: place(Math.max(from, context.start)), lineStyle: { color: named(colour), type: "dashed", width: 1 } })),
        ...shaded.filter(({ name, to }) => name === "Runs" && to < context.end).map(({ to, colour }) => ({ xAxis: place(to), lineStyle: { color: named(colour), type: "dotted", width: 1 } })),
      ],
    },
    markArea: {
      silent: true, data: shaded.map(({ name, from, to, colour }) => [
        { xAxis: place(Math.max(from, context.start)), itemStyle: { color: named(colour), opacity: shade[name] } }, { xAxis: place(Math.min(to, context.end)) },
      ]),
    },
  };
}

const marksAt = (context, at) => context.marks
  .filter(({ name, from, to }) => at >= from - context.step && at <= (name in shade ? Math.max(to, from + context.step) : from + context.step))
  .map(({ words }) => words);

/** A heat map in words: where most of it lies. */
function spokenBands(rows, named) {
  const sums = rows.map(({ values }) => values.reduce((sum, value) => sum + (value ?? 0), 0));
  const most = sums.indexOf(Math.max(...sums));
  const highest = sums.findLastIndex((sum) => sum > 0);
  return `most took ${most ? `${named[most - 1]} to ` : "up to "}${named[most]}, the slowest up to ${named[highest]}`;
}

const msOf = (context, index) => Math.round((context.start + index * context.step) * 1000);

/** One lane of a state timeline: a part for each stretch of the same state, which leads where its beginning leads. */
function band(panel, states, name, labels, values, context) {
  const now = lastOf(values);
  const made = element("div", { class: "band", role: "img", "aria-label": `${name}: ${states[now]?.text ?? now}` });
  made.style.height = `${panel.options.rowHeight * 100}%`;
  for (const [from, to, value] of stretches(values)) {
    const [began, ended] = [msOf(context, from), msOf(context, to)];
    const words = states[value]?.text ?? String(value);
    const part = element("i", { title: `${words}, ${timeOfDay(began)} to ${timeOfDay(ended)}` }, words);
    const [lead] = leadsOf(panel, context, labels, began);
    if (lead) {
      part.classList.add("leads");
      part.addEventListener("click", () => window.open(lead.path, "_blank"));
    }
    part.style.left = `${(from / values.length) * 100}%`;
    part.style.width = `${((to - from) / values.length) * 100}%`;
    part.style.backgroundColor = named(states[value]?.color) ?? style("--soft");
    made.append(part);
  }
  return made;
}

/** Buttons to the pages before and after this one, where one page does not hold all lanes. */
function pager(page, lanes, perPage, turn) {
  if (lanes <= perPage) return [];
  const end = Math.min(lanes, (page + 1) * perPage);
  return [element("div", { class: "pager" },
    element("button", { onclick: turn(-1), disabled: page === 0, "aria-label": "Page before" }, "‹"),
    `${page * perPage + 1} to ${end} of ${lanes}`,
    element("button", { onclick: turn(1), disabled: end === lanes, "aria-label": "Next page" }, "›"))];
}

const draw = {
  stat(body, panel, series, context) {
    const { unit, thresholds } = panel.fieldConfig.defaults;
    const shown = series.map((each) => ({ ...each, last: lastOf(each.values) })).filter((each) => each.last !== null);
    if (!shown.length) return empty(body, panel);
    redraw(body, ...shown.map(({ name, labels, values, last }) => {
      const colour = thresholds ? named(thresholdColour(thresholds, last)) : style("--ink");
      const [lead] = leadsOf(panel, context, labels);
      const about = { class: "figure", "data-value": last };
      const figure = lead ? opens(lead, about, format(last, unit)) : element("div", about, format(last, unit));
      figure.style.color = colour;
      const box = element("div", { class: "stat" }, figure, sparkline(values, thresholds ? colour : style("--s1")));
      if (shown.length > 1) box.prepend(element("div", { class: "series" }, name));
      return box;
    }));
  },

  async timeseries(body, panel, series, context) {
    const { unit, custom } = panel.fieldConfig.defaults;
    const log = custom?.scaleDistribution?.type === "log";
    if (!series.some(({ values }) => values.some((value) => value !== null))) return empty(body, panel);
    const chart = await canvas(body, context);
    const base = axes(context, chart);
    const colours = palette();
    const muted = (body.muted ??= new Set());
    const lines = series.map(({ name, values }, index) => ({
      id: String(index), name, type: "line", showSymbol: false, connectNulls: false, color: colours[index % colours.length],
      lineStyle: { width: custom.lineWidth + 0.4 }, areaStyle: { opacity: custom.fillOpacity / 100, origin: log ? "start" : "auto" }, emphasis: { disabled: true },
      data: muted.has(name) ? [] : values.map((value, at) => [(context.start + at * context.step) * 1000, log && value !== null && value <= 0 ? null : value]),
    }));
    Object.assign(lines[0], marked(context, (at) => at * 1000));
    chart.setOption({
      ...base,
      yAxis: {
        type: log ? "log" : "value", logBase: 10, min: log || custom?.axisSoftMin === undefined ? undefined : ({ min }) => Math.min(custom.axisSoftMin, min),
        axisLabel: { color: base.soft, fontSize: base.fontSize, hideOverlap: true, formatter: (value) => tick(value, unit) }, splitLine: { lineStyle: { color: base.line } }, splitNumber: 4,
      },
      tooltip: {
        ...base.tooltip, trigger: "axis", formatter: (near) => [
          [timeOfDay(near[0].value[0]), ...marksAt(context, near[0].value[0] / 1000)].join(" · "),
          ...near.filter(({ value }) => value[1] !== null && value[1] !== undefined).sort((a, b) => b.value[1] - a.value[1])
            .slice(0, 20).map((point) => `${point.marker} ${point.seriesName || panel.title}: ${format(point.value[1], unit)}`),
        ].join("\n"),
      },
      series: lines,
    }, { replaceMerge: ["series"] });
    legend(body, panel, series, lines.map(({ color }) => color), context, () => draw.timeseries(body, panel, series, context));
  },

  async heatmap(body, panel, series, context) {
    const { unit } = panel.options.yAxis;
    const { color, cellGap, filterValues } = panel.options;
    const rows = bands(series);
    const cells = rows.flatMap(({ values }, row) => values.map((value, at) => [at, row, value]))
      .filter(([, , value]) => value !== null && value > filterValues.le);
    if (!cells.length) return empty(body, panel);
    const chart = await canvas(body, context);
    const base = axes(context, chart);
    const most = Math.max(...cells.map(([, , value]) => value));
    const used = cells.map(([, row]) => row);
    const [lowest, highest] = [Math.max(0, Math.min(...used) - 1), Math.min(rows.length - 1, Math.max(...used) + 1)];
    const named = rows.map(({ le }) => (le === Infinity ? "∞" : format(le, unit)));
    const times = rows[0].values.map((_, at) => (context.start + at * context.step) * 1000);
    const told = clock(context.end - context.start);
    const apart = labelStep(context.end - context.start, base.fitting, context.step) * 1000;
    chart.setOption({
      ...base,
      grid: { ...base.grid, top: 3 * base.fontSize },
      xAxis: { type: "category", data: times, axisLine: { lineStyle: { color: base.line } }, axisTick: { show: false }, axisLabel: { color: base.soft, fontSize: base.fontSize, interval: (_, at) => at % apart === 0, formatter: (at) => told(Number(at)) } },
      yAxis: { type: "category", data: named.slice(lowest, highest + 1), axisLine: { show: false }, axisTick: { show: false }, axisLabel: { color: base.soft, fontSize: base.fontSize, hideOverlap: true } },
      visualMap: {
        type: "continuous", min: 0, max: 1, dimension: 2, orient: "horizontal", right: 6, top: 0, itemWidth: 0.8 * base.fontSize, itemHeight: 7 * base.fontSize, calculable: false, textStyle: { color: base.soft, fontSize: base.fontSize },
        text: [format(most, "short"), "0"], inRange: { color: turbo },
      },
      tooltip: {
        ...base.tooltip, formatter: ({ data }) => `${timeOfDay(times[data[0]])}\n${named[data[1] + lowest - 1] ?? "0"} to ${named[data[1] + lowest]}: ${format(data[3], "short")}`,
      },
      series: [{
        type: "heatmap", progressive: 0, itemStyle: { borderWidth: cellGap / 2, borderColor: style("--card") }, emphasis: { disabled: true },
        data: cells.map(([at, row, value]) => [at, row - lowest, (value / most) ** color.exponent, value]),
        ...marked(context, (at) => Math.max(0, Math.round((at - context.start) / context.step))),
      }],
    }, { replaceMerge: ["series"] });
    const home = chart.getDom();
    home.removeAttribute("aria-hidden");
    home.setAttribute("role", "img");
    home.setAttribute("aria-label", `${panel.title}: ${spokenBands(rows, named)}`);
    redraw(body.querySelector(".legend"), ...leadsOf(panel, context, {}).map((lead) => opens(lead, { class: "lead" }, lead.title)));
  },

  "state-timeline"(body, panel, series, context) {
    const { mappings = [] } = panel.fieldConfig.defaults;
    const { perPage } = panel.options;
    const states = Object.assign({}, ...mappings.map(({ options }) => options));
    const lanes = series.filter(({ values }) => values.some((value) => value !== null)).sort((a, b) => a.name.localeCompare(b.name, "en", { numeric: true }));
    if (!lanes.length) return empty(body, panel);
    body.page = Math.min(body.page ?? 0, Math.ceil(lanes.length / perPage) - 1);
    const shown = lanes.slice(body.page * perPage, (body.page + 1) * perPage);
    const timeline = element("div", { class: "timeline", tabindex: "0", role: "group", "aria-label": panel.title });
    timeline.append(...shown.map(({ name, labels, values }) =>
      element("div", { class: "lane" }, element("span", { title: name }, name), band(panel, states, name, labels, values, context))));
    const told = clock(context.end - context.start);
    const quarters = body.clientWidth < 30 * parseFloat(getComputedStyle(body).fontSize) ? [0, 0.5, 1] : [0, 0.25, 0.5, 0.75, 1];
    const ticks = quarters.map((share) => element("span", {}, told((context.start + share * (context.end - context.start)) * 1000)));
    const parts = [timeline, element("div", { class: "ticks" }, element("span"), element("div", {}, ...ticks))];
    const turn = (by) => () => {
      body.page += by;
      draw["state-timeline"](body, panel, series, context);
    };
    const key = Object.values(states).sort((a, b) => a.index - b.index).map(({ text, color }) => {
      const swatch = element("i", { class: "swatch" });
      swatch.style.backgroundColor = named(color);
      return element("span", {}, swatch, text);
    });
    // A stretch leads to the run that was going when it began; by keyboard there is one way, from the end.
    const leads = leadsOf(panel, context, {}, msOf(context, lanes[0].values.length - 1)).map((lead) => opens(lead, { class: "lead" }, lead.title));
    parts.push(element("div", { class: "states" }, ...key, ...pager(body.page, lanes.length, perPage, turn), ...leads));
    const scrolled = body.querySelector(".timeline")?.scrollTop ?? 0;
    redraw(body, ...parts);
    timeline.scrollTop = scrolled;
  },
};

function sparkline(values, colour) {
  const there = values.map((value, at) => [at, value]).filter(([, value]) => value !== null);
  const picture = svg("svg", { viewBox: "0 0 100 24", preserveAspectRatio: "none", "aria-hidden": "true" });
  if (there.length < 2) return picture;
  const [low, high] = [Math.min(0, ...there.map(([, v]) => v)), Math.max(...there.map(([, v]) => v))];
  const x = (at) => ((at / (values.length - 1)) * 100).toFixed(2);
  const y = (value) => (23 - ((value - low) / (high - low || 1)) * 22).toFixed(2);
  const line = there.map(([at, value], i) => `${i ? "L" : "M"}${x(at)} ${y(value)}`).join("");
  picture.append(
    svg("path", { d: `${line}L${x(there.at(-1)[0])} 24L${x(there[0][0])} 24Z`, fill: colour, opacity: "0.15" }),
    svg("path", { d: line, fill: "none", stroke: colour, "stroke-width": "1.2", "vector-effect": "non-scaling-stroke" }),
  );
  return picture;
}

const reducers = { lastNotNull: ["Last", lastOf], max: ["Max", mostOf] };

function legend(body, panel, series, colours, context, again) {
  const { calcs } = panel.options.legend;
  const { unit } = panel.fieldConfig.defaults;
  const head = element("tr", {}, element("th", { scope: "col" }, "Name"), ...calcs.map((calc) => element("th", { scope: "col", class: "number" }, reducers[calc][0])));
  const timeOf = (values) => {
    const last = values.findLastIndex((value) => value !== null);
    return last < 0 ? undefined : msOf(context, last);
  };
  const rows = series.map(({ name, values, labels }, index) => {
    const swatch = element("i", { class: "swatch" });
    swatch.style.backgroundColor = colours[index];
    const toggle = element("button", {
      "aria-pressed": String(!body.muted.has(name)), title: "Show or hide this line", onclick: () => {
        if (!body.muted.delete(name)) body.muted.add(name);
        again();
      },
    }, swatch, name || panel.title);
    const cells = calcs.map((calc) => {
      const value = reducers[calc][1](values);
      return element("td", { class: "number", "data-calc": calc, "data-value": value ?? "" }, format(value, unit));
    });
    const leads = leadsOf(panel, context, labels, timeOf(values)).map((lead) => opens(lead, {}, lead.title));
    const led = leads.length ? [element("span", { class: "leads" }, ...leads)] : [];
    return element("tr", { "data-series": name }, element("th", { scope: "row" }, toggle, ...led), ...cells);
  });
  const home = body.querySelector(".legend");
  const scrolled = home.scrollTop;
  redraw(home, element("table", {}, element("thead", {}, head), element("tbody", {}, ...rows)));
  home.scrollTop = scrolled;
}

/** Draws the panel's series into its body. */
export async function drawPanel(body, panel, series, context) {
  await draw[panel.type](body, panel, series, context);
}
