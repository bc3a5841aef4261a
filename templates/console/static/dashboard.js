// A dashboard's page: the JSON that Grafana is given, its choices, and its queries asked again and again.
import { drawPanel, element } from "./panels.js";
import { chosen, grouped, instant, interpolate, intervals, lastings, legend, onGrid, seconds, spoken, together } from "./queries.js";
import { readDashboard, unknownIn } from "./reading.js";
import { timeOfDay } from "./units.js";

const board = document.getElementById("board");
const choices = document.getElementById("choices");
const trouble = document.getElementById("trouble");
const happened = document.getElementById("happened");
const leads = board.dataset.runs === "yes"; // where runs have pages
const address = new URLSearchParams(location.search);
const ranges = [["now-5m", "5 minutes"], ["now-15m", "15 minutes"], ["now-1h", "hour"], ["now-6h", "6 hours"], ["now-24h", "day"], ["now-7d", "week"]];
const rates = [["", "off"], ["1s", "1 s"], ["5s", "5 s"], ["30s", "30 s"]];
const scrapeS = Number(board.dataset.scrapeInterval);
const state = { variables: [], values: {}, panels: [], annotations: [], connected: [] };

class PrometheusError extends Error {}

/** Browsers give up what they ask for when this machine's networks change, as they do while a testbed comes up. */
async function reach(url, again = true) {
  try {
    return await fetch(url);
  } catch {
    if (!again) throw new PrometheusError("the console does not answer");
    await new Promise((later) => { setTimeout(later, 500); });
    return reach(url, false);
  }
}

async function ask(what, parameters) {
  const answer = await reach(`${board.dataset.prometheus}/api/v1/${what}?${new URLSearchParams(parameters)}`);
  let told;
  try { told = await answer.json(); } catch { throw new PrometheusError(`the console answered with status ${answer.status}`); }
  if (told.status !== "success") throw new PrometheusError(told.error ?? `status ${answer.status}`);
  return told.data;
}

const span = () => {
  const now = Date.now() / 1000;
  return [instant(address.get("from") ?? state.time.from, now), instant(address.get("to") ?? state.time.to, now)];
};
const remember = () => {
  history.replaceState(null, "", `?${address}`);
  document.querySelectorAll("a[data-board]").forEach((link) => { link.search = String(address); });
};

// -- variables --

const inQueries = () => Object.fromEntries(state.variables.map((variable) => [variable.name, chosen(variable, state.values[variable.name])]));

async function findValues(variable) {
  const [, series, label] = /^label_values\((.*), *(\w+)\)$/s.exec(variable.query.query);
  const [start, end] = span();
  const found = await ask(`label/${label}/values`, { "match[]": interpolate(series, inQueries()), start: String(start), end: String(end) });
  return found.sort();
}

const pickable = () => state.variables.filter(({ name, hide }) => name !== "testbed" && !hide); // the page is this testbed's

async function fillChoices(variables = pickable()) {
  const parts = await Promise.all(variables.map(async (variable) => {
    const found = await findValues(variable).catch((error) => {
      if (error instanceof PrometheusError) return []; // the panels say so
      throw error;
    });
    return picker(variable, [...new Set([...found, ...state.values[variable.name].filter((value) => value !== "$__all")])]);
  }));
  for (const part of parts) {
    const old = choices.querySelector(`[data-variable="${part.dataset.variable}"]`);
    if (old) old.replaceWith(part);
    else choices.insertBefore(part, choices.querySelector("[data-kept]"));
  }
}

function picker(variable, offered) {
  const selected = state.values[variable.name];
  const all = selected.includes("$__all");
  const words = all ? "All" : selected.join(", ");
  const change = () => {
    const ticked = [...list.querySelectorAll("input:checked")].map((box) => box.value).filter((value) => value !== "$__all");
    address.delete(`var-${variable.name}`);
    ticked.forEach((value) => address.append(`var-${variable.name}`, value));
    state.values[variable.name] = ticked.length ? ticked : ["$__all"];
    summary.textContent = ticked.length ? ticked.join(", ") : "All";
    every.checked = !ticked.length;
    remember();
    fillChoices(pickable().filter(({ query }) => query.query.includes(`$${variable.name}`))).catch(report);
    refresh();
  };
  const box = (value, text, checked, onchange) => {
    const input = element("input", { type: "checkbox", value, onchange });
    input.checked = checked;
    return element("label", {}, input, text);
  };
  const summary = element("summary", { "aria-label": `${variable.label}: ${words}` }, words);
  const everyLabel = box("$__all", "All", all, () => {
    list.querySelectorAll("input").forEach((input) => { input.checked = false; });
    change();
  });
  const every = everyLabel.querySelector("input");
  const list = element("div", { class: "list", role: "group", "aria-label": variable.label }, everyLabel,
    ...offered.map((value) => box(value, value, !all && selected.includes(value), change)));
  return element("div", { class: "pick", "data-variable": variable.name }, variable.label, element("details", {}, summary, list));
}

function select(label, options, value, onchange) {
  const made = element("select", { onchange: (event) => onchange(event.target.value) },
    ...options.map(([key, words]) => element("option", { value: key, selected: key === value }, words)));
  return element("label", { class: "pick", "data-kept": true }, label, made);
}

// -- panels --

function makePanels(document_) {
  board.replaceChildren(...document_.panels.map((panel) => {
    const unknown = unknownIn(panel);
    if (panel.type === "row" && !unknown) return element("h2", {}, panel.title);
    const body = element("div", { class: "body" });
    const told = element("p", { class: "told", role: "tooltip", hidden: true }, panel.description ?? "");
    const help = element("button", { class: "help", "aria-label": `What ${panel.title} shows`, "aria-expanded": "false", onclick: () => {
      told.hidden = !told.hidden;
      help.setAttribute("aria-expanded", String(!told.hidden));
    } }, "?");
    const home = element("section", { class: "panel", "aria-label": panel.title, "data-type": panel.type, "data-w": panel.gridPos?.w ?? 8 },
      element("h3", {}, element("span", { class: "what", title: panel.title }, panel.title), help), told, body);
    home.style.setProperty("--full", panel.gridPos?.w ?? 8);
    home.style.setProperty("--h", panel.gridPos?.h ?? 8);
    if (unknown) {
      body.append(element("p", { class: "unknown" }, unknown));
      console.error(unknown);
    } else {
      state.panels.push({ panel, home, body, seen: false, drawn: 0 });
    }
    return home;
  }));
  const watcher = new IntersectionObserver((entries) => {
    for (const entry of entries) {
      const found = state.panels.find(({ home }) => home === entry.target);
      found.seen = entry.isIntersecting;
      if (found.seen && found.drawn < state.round) update(found).catch(report);
    }
  }, { rootMargin: "120px" });
  state.panels.forEach(({ home }) => watcher.observe(home));
}

async function update(each) {
  if (each.running) return;
  each.running = true;
  each.drawn = state.round;
  try {
    await askAndDraw(each);
  } catch (error) {
    if (error instanceof PrometheusError) throw error;
    each.body.replaceChildren(element("p", { class: "unknown" }, error.message));
    console.error(error);
  } finally {
    each.running = false;
  }
}

async function askAndDraw({ panel, home, body }) {
  const [from, to] = span();
  const { step, rate } = intervals(to - from, home.clientWidth / 2, panel.interval ? Math.max(scrapeS, seconds(panel.interval)) : scrapeS);
  const [start, end] = [Math.floor(from / step) * step, Math.floor(to / step) * step];
  const values = { ...inQueries(), __rate_interval: spoken(rate), __interval: spoken(step), __range: spoken(to - from) };
  const answers = await Promise.all(panel.targets.map(({ expr }) =>
    ask("query_range", { query: interpolate(expr, values), start: String(start), end: String(end), step: spoken(step) })));
  const series = answers.flatMap(({ result }, index) => result.map(({ metric, values: points }) => ({
    labels: metric, name: legend(panel.targets[index].legendFormat, metric), values: onGrid(points, start, end, step),
  })));
  const shown = { __from: [String(Math.round(from * 1000))], __to: [String(Math.round(to * 1000))] };
  const context = { start, end, step, echarts: board.dataset.echarts, marks: state.annotations, share, values: { ...state.values, ...shown }, leads };
  await drawPanel(body, panel, series, context);
  home.classList.remove("stale");
  home.dataset.drawn = String(Date.now());
}

// The pointer's line is drawn in every panel (the dashboard's `graphTooltip`).
function share(chart) {
  state.connected = state.connected.filter((other) => !other.isDisposed());
  chart.getZr().on("mousemove", ({ offsetX, offsetY }) => {
    if (!chart.containPixel("grid", [offsetX, offsetY]) || chart.getOption().xAxis[0].type !== "time") return;
    const at = chart.convertFromPixel({ xAxisIndex: 0 }, offsetX);
    for (const other of state.connected) {
      if (other === chart || other.isDisposed() || other.getOption()?.xAxis?.[0].type !== "time") continue;
      other.dispatchAction({ type: "updateAxisPointer", currTrigger: "mousemove", x: other.convertToPixel({ xAxisIndex: 0 }, at), y: 30 });
    }
  });
  state.connected.push(chart);
}

async function annotate() {
  const [start, end] = span();
  const { step } = intervals(end - start, 600, scrapeS);
  const found = (await Promise.all(state.happenings.map(async ({ name, expr, iconColor, titleFormat, textFormat }) => {
    const { result } = await ask("query_range", { query: interpolate(expr, inQueries()), start: String(start), end: String(end), step: spoken(step) });
    return result.flatMap(({ metric, values }) => lastings(values, step).map(([from, to]) => (
      { name, colour: iconColor, from, to, run: metric.run, told: [legend(titleFormat, metric), legend(textFormat, metric).trim()], words: inWords(name, metric, titleFormat, textFormat) })));
  }))).flat();
  state.annotations = together(found, Math.max(step, scrapeS));
  tellHappenings();
  // Of runs, deploys and faults the marks in the charts tell; the head of the page is for alerts.
  const firing = address.get("to") ? [] : found.filter(({ name, to }) => name === "Alerts" && end - to < 3 * Math.max(step, scrapeS));
  return grouped(firing.map(({ told }) => told));
}

const inWords = (name, metric, title, text) => (name === "Runs" ? legend(title, metric) : `${legend(title, metric)} ${legend(text, metric).trim()}`);
const counts = { Alerts: ["alert", "alerts"], Runs: ["run", "runs"], Deploys: ["deploy", "deploys"], Faults: ["fault", "faults"] };
const LISTED = 40;

/** What the marks in the charts are, in words: how many of each kind, and opened each with its time. */
function tellHappenings() {
  const marks = state.annotations;
  const said = state.happenings.flatMap(({ name, iconColor }) => {
    const count = marks.filter((mark) => mark.name === name).length;
    return count ? [element("span", { class: "kind" }, element("i", { class: "swatch", "data-colour": iconColor }), `${count} ${counts[name]?.[count === 1 ? 0 : 1] ?? name}`)] : [];
  });
  const key = JSON.stringify(marks);
  if (happened.dataset.shown === key) return; // nothing moves under the pointer
  happened.dataset.shown = key;
  happened.hidden = !said.length;
  const clock = (at) => timeOfDay(at * 1000);
  const items = marks.slice(-LISTED).reverse().map(({ colour, from, to, words, run }) => element("li", {},
    element("i", { class: "swatch", "data-colour": colour }), element("span", { class: "at" }, to > from && run ? `${clock(from)} to ${clock(to)}` : clock(from)),
    leads && run ? element("a", { href: `/testbeds/${encodeURIComponent(board.dataset.testbed)}/runs/${encodeURIComponent(run)}` }, words) : words));
  if (marks.length > LISTED) items.push(element("li", { class: "soft" }, `and ${marks.length - LISTED} before`));
  happened.querySelector("summary").replaceChildren("Marked in the charts: ", ...said);
  happened.querySelector("ol").replaceChildren(...items);
}

function report(error) {
  const words = error instanceof PrometheusError ? `No figures: ${error.message}` : String(error.message ?? error);
  trouble.textContent = words;
  state.panels.forEach(({ home }) => home.classList.add("stale"));
  if (!(error instanceof PrometheusError)) console.error(error);
}

let busy = false;
async function refresh() {
  state.round = (state.round ?? 0) + 1;
  if (busy) return;
  busy = true;
  try {
    // One failure is told once: the others have the same cause.
    const [firing] = await Promise.all([annotate(), ...state.panels.filter(({ seen }) => seen).map(update)]);
    trouble.textContent = firing.length ? `Firing: ${firing.join(" · ")}` : "";
    board.dataset.ready = "yes";
  } catch (error) {
    report(error);
  } finally {
    busy = false;
  }
}

function beat() {
  clearInterval(state.timer);
  const every = address.get("refresh") ?? state.refresh;
  if (every) state.timer = setInterval(() => { if (!document.hidden) refresh(); }, seconds(every) * 1000);
}

async function start() {
  const answer = await reach(board.dataset.document);
  if (!answer.ok) throw new Error(`the dashboard did not load (status ${answer.status})`);
  const document_ = readDashboard(await answer.json());
  state.time = document_.time;
  state.refresh = address.get("to") && address.get("to") !== "now" ? "" : document_.refresh;
  state.variables = document_.templating.list.filter(({ type }) => type === "query");
  state.happenings = document_.annotations.list;
  for (const { name, current, skipUrlSync } of state.variables) {
    const given = skipUrlSync ? [] : address.getAll(`var-${name}`);
    const values = given.length ? given : [current?.value ?? []].flat();
    state.values[name] = values.includes("$__all") || !values.length ? ["$__all"] : values;
  }
  state.values.testbed = [board.dataset.testbed];
  const given = address.get("from");
  const known = ranges.some(([key]) => key === (given ?? state.time.from));
  choices.append(
    select("Time", known ? ranges : [[given, "as linked"], ...ranges], given ?? state.time.from, (value) => {
      address.set("from", value);
      address.delete("to");
      state.refresh = document_.refresh;
      remember();
      fillChoices().then(refresh).catch(report);
      beat();
    }),
    select("Refresh", rates, address.get("refresh") ?? state.refresh, (value) => {
      address.set("refresh", value);
      remember();
      beat();
    }),
  );
  state.round = 1;
  makePanels(document_);
  remember();
  await Promise.all([fillChoices(), refresh()]);
  beat();
  setInterval(() => { if (!document.hidden && !choices.contains(document.activeElement)) fillChoices().catch(report); }, 15000);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => location.reload());
}

start().catch(report);
