// The topology, alive: health, rates and hops once a second, and the wires between the nodes.
import { grouped } from "./queries.js";
import { format, timeOfDay } from "./units.js";

const picture = document.querySelector(".picture");
const pulse = document.getElementById("pulse");
const alerts = document.getElementById("alerts");
const wires = picture?.querySelector(".wires");
const links = (picture?.dataset.links ?? "").trim().split(" ").filter(Boolean).map((link) => link.split(">"));
const wired = new Map();

// A column of many nodes has one wire for all of them.
const anchor = (node) => document.getElementById(`node-${node}`).closest(".column.many .stack") ?? document.getElementById(`node-${node}`);

for (const [from, to] of links) {
  const [left, right] = [anchor(from), anchor(to)];
  const key = `${left.id || left.parentElement.dataset.column}>${right.id || right.parentElement.dataset.column}`;
  if (!wired.has(key)) wired.set(key, { left, right, pairs: [], path: document.createElementNS("http://www.w3.org/2000/svg", "path") });
  wired.get(key).pairs.push([from, to]);
}
wires?.append(...[...wired.values()].map(({ path }) => path));

/** First all is measured, then all is drawn: the browser lays the page out once. */
function place() {
  const home = picture.getBoundingClientRect();
  const ways = [...wired.values()].map(({ left, right, path }) => {
    const [a, b] = [left.getBoundingClientRect(), right.getBoundingClientRect()];
    const [x1, y1] = [a.right - home.left, a.top + a.height / 2 - home.top];
    const [x2, y2] = [b.left - home.left, b.top + b.height / 2 - home.top];
    const bend = Math.max(20, (x2 - x1) / 2);
    return [path, `M${x1} ${y1}C${x1 + bend} ${y1} ${x2 - bend} ${y2} ${x2} ${y2}`];
  });
  for (const [path, way] of ways) path.setAttribute("d", way);
}

const healthOf = (services) => {
  const states = Object.values(services ?? {}).map((service) => service.up).filter((up) => up !== undefined);
  if (!states.length) return "unknown";
  return states.every((up) => up === 1) ? "up" : states.some((up) => up === 1) ? "partly" : "down";
};
const said = { up: "up", partly: "partly up", down: "down", unknown: "" };
// Services that Prometheus watches under another name than the file's.
const watchedAs = { ntp: "clock", monitor: "prometheus" };
const perSecond = (value) => format(value, "mps");

function ratesOf(role, found) {
  if (!found) return "";
  const shown = [];
  const add = (mark, value) => value !== undefined && shown.push(`${mark} ${perSecond(value)}`);
  if (role === "broker") {
    add("in", found.in);
    add("out", found.out);
  } else {
    add("↑", found.sent);
    add("↓", found.received);
  }
  return shown.join(" · ");
}

/** Only troubles are read aloud; the time is not, each second. */
function say(words, trouble) {
  pulse.setAttribute("aria-live", trouble ? "polite" : "off");
  pulse.classList.toggle("problem", trouble);
  if (pulse.textContent !== words) pulse.textContent = words;
}

function show(figures) {
  if (figures.error) {
    say(`no live figures: ${figures.error}`, true);
    picture.querySelectorAll(".node").forEach((card) => paint(card, "unknown"));
    return;
  }
  say(`live, ${timeOfDay(figures.at * 1000)}`, false);
  const moving = new Set();
  for (const card of picture.querySelectorAll(".node")) {
    const services = figures.services[card.dataset.node];
    paint(card, healthOf(services), figures.hot[card.dataset.node]);
    for (const item of card.querySelectorAll("[data-service]")) {
      const { service, role } = item.dataset;
      const found = services?.[watchedAs[role] ?? service];
      item.querySelector(".dot").dataset.health = found?.up === undefined ? "unknown" : found.up === 1 ? "up" : "down";
      item.querySelector(".rate").textContent = ratesOf(role, found);
      if (found && (found.sent > 0 || found.received > 0 || found.in > 0)) moving.add(card.dataset.node);
    }
  }
  for (const { path, pairs } of wired.values()) {
    path.classList.toggle("flows", pairs.some(([from, to]) => moving.has(from) && moving.has(to)));
    path.classList.toggle("broken", pairs.every((ends) => ends.some((node) => healthOf(figures.services[node]) === "down")));
  }
  for (const hop of picture.querySelectorAll("[data-hop]")) {
    const delay = figures.hops[hop.dataset.hop];
    hop.querySelector(".value").textContent = delay === undefined ? "–" : format(delay, "s");
  }
  const firing = figures.alerts.map(({ name, node, service }) => [name, [node, service].filter(Boolean).join(" ")]);
  const told = grouped(firing);
  if (alerts.dataset.told === told.join("\n")) return;
  alerts.dataset.told = told.join("\n");
  alerts.replaceChildren(...told.map((words) => {
    const alert = document.createElement("span");
    alert.textContent = words;
    return alert;
  }));
}

function paint(card, health, hot) {
  card.dataset.health = health;
  card.querySelector(".health").textContent = [said[health], hot === undefined ? "" : format(hot, "celsius")].filter(Boolean).join(" · ");
  if (health === "unknown") card.querySelectorAll(".dot").forEach((dot) => { dot.dataset.health = "unknown"; });
}

if (picture) {
  new ResizeObserver(place).observe(picture); // at once, when it is laid out, and whenever it is another size
  if (picture.dataset.live) {
    let source;
    const open = () => {
      source = new EventSource(picture.dataset.live);
      source.onmessage = (message) => show(JSON.parse(message.data));
      source.onerror = () => say("the console does not answer", true);
    };
    // First the page, then what moves on it.
    if (document.readyState === "complete") open();
    else addEventListener("load", open, { once: true });
    // A page that nobody looks at asks for nothing.
    document.addEventListener("visibilitychange", () => {
      if (document.hidden) source?.close();
      else if (source?.readyState === EventSource.CLOSED) open();
    });
  }
}
