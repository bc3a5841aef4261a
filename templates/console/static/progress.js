// Follows an action's journal: the same events that a terminal shows, from the first one on, whenever the page is opened.
const marks = { done: "✓", failed: "✗", started: "·", note: "" };

function element(name, kind, text = "") {
  const made = document.createElement(name);
  if (kind) made.className = kind;
  made.textContent = text;
  return made;
}

/** Where an action is told: what matters most stays in sight, however long the list of steps grows. */
function furnished(home) {
  const view = {
    home, started: Number(home.dataset.started), rows: new Map(),
    outcome: element("p", "outcome"), elapsed: element("p", "elapsed soft"), nodes: element("div", "nodes"), steps: element("ol"),
  };
  view.steps.setAttribute("aria-label", "Steps");
  view.outcome.setAttribute("role", "status");
  home.append(view.outcome, view.elapsed, view.nodes, view.steps);
  return view;
}

function tellLatestOfNode({ rows, nodes }, event) {
  if (!rows.has(event.node)) {
    const row = element("div");
    row.append(element("span", "dot"), element("strong", "", event.node), element("span"));
    row.dataset.node = event.node;
    rows.set(event.node, row);
    nodes.append(row);
  }
  const [dot, , words] = rows.get(event.node).children;
  dot.dataset.health = event.level === "error" || event.state === "failed" ? "failed" : event.state === "done" ? "done" : "running";
  words.textContent = words.title = event.message;
}

function tellStep(view, event) {
  if (event.node) tellLatestOfNode(view, event);
  if (event.node && event.level === "info") return;
  const line = element("li");
  line.append(
    element("span", "at", `${Math.max(0, event.at - view.started).toFixed(1)} s`),
    element("span", "mark", marks[event.state] ?? ""),
    element("span", "stage", event.stage),
    element("span", `words ${event.level} ${event.state}`, `${event.node ? `${event.node}: ` : ""}${event.message}`),
  );
  if (event.duration_s !== null) line.append(element("span", "took", `${event.duration_s.toFixed(1)} s`));
  // Who says again how far it is (a run; each image while it is built) takes the place of what it said before.
  const again = event.level === "info" && event.state === "note" && { run: "run", images: event.message.split(":")[0] }[event.stage];
  if (again) line.dataset.key = `${event.stage}/${again}`;
  const before = again && [...view.steps.children].findLast((other) => other.dataset.key === line.dataset.key);
  if (before) before.replaceWith(line);
  else view.steps.append(line);
}

function tellOutcome({ home, outcome, elapsed, nodes }, result) {
  elapsed.remove();
  if (location.pathname.startsWith("/actions/")) document.title = `${result.state === "done" ? marks.done : marks.failed} ${document.title}`;
  outcome.classList.add(result.state);
  for (const dot of nodes.querySelectorAll("[data-health=running]")) dot.dataset.health = result.state === "done" ? "done" : "unknown";
  outcome.textContent = result.message ?? "its process ended without saying how; the log in the workspace may tell";
  if (result.notes?.length) outcome.after(element("p", "notes", result.notes.join("\n")));
  if (!result.ended_at) return;
  document.getElementById("stop")?.remove();
  home.dataset.over = result.state;
  offerResults(outcome, result);
}

/** Buttons that lead to what a run left. */
function offerResults(outcome, result) {
  const testbed = document.querySelector(".crumbs a")?.textContent;
  if (!testbed || document.querySelector("a.opens-result")) return;
  const open = (words, kind, path) => {
    const link = element("a", `button main opens-result ${kind}`, words);
    link.href = `/testbeds/${testbed}/${path}`;
    outcome.after(link);
  };
  if (result.experiment) open("Open the summary", "opens-experiment", `experiments/${result.experiment}`);
  else for (const run of result.runs ?? []) open(`Open ${run}`, "opens-run", `runs/${run}`);
}

function follow(home) {
  const view = furnished(home);
  let lost = false;
  const ticking = setInterval(() => {
    const passed = Math.max(0, Math.round(Date.now() / 1000 - view.started));
    view.elapsed.textContent = lost ? "the console does not answer; asking again" : `going on for ${passed < 60 ? "" : `${Math.floor(passed / 60)} min `}${passed % 60} s`;
  }, 1000);
  const source = new EventSource(home.dataset.events);
  source.onopen = () => { lost = false; };
  source.onerror = () => { lost = true; };
  source.addEventListener("step", (message) => tellStep(view, JSON.parse(message.data)));
  source.addEventListener("outcome", (message) => {
    source.close();
    clearInterval(ticking);
    tellOutcome(view, JSON.parse(message.data));
  });
}

document.querySelectorAll(".progress[data-events]").forEach(follow);
