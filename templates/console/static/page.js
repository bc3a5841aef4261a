// What every page can do: choices that submit themselves, sheets that close, logs that follow.
document.addEventListener("change", (event) => {
  if (event.target.dataset?.submit === "change") event.target.form.requestSubmit();
});

// A button that was pressed says so, and cannot be pressed again while the console takes it up.
document.addEventListener("submit", (event) => {
  const form = event.target;
  if (form.method !== "post") return;
  if (form.dataset.sent) {
    event.preventDefault();
    return;
  }
  form.dataset.sent = "yes";
  document.querySelector("[hx-get*='/changed']")?.remove(); // the answer leads on; a reload would be in its way
  const button = event.submitter ?? form.querySelector("button");
  button.dataset.words = button.textContent;
  button.textContent += " …";
  button.setAttribute("aria-disabled", "true");
});
window.addEventListener("pageshow", (event) => {
  if (event.persisted) location.reload(); // back to a page as it was: its buttons are out of date
});

// Words such as "5 min ago" of a page that stays open.
const limits = [[90, 1, "s"], [5400, 60, "min"], [129600, 3600, "h"], [Infinity, 86400, "days"]];
function age(element) {
  const passed = Math.max(0, Date.now() / 1000 - Number(element.dataset.at));
  const [, unit, words] = limits.find(([limit]) => passed < limit);
  const text = `${Math.round(passed / unit)} ${words} ago`;
  if (element.textContent !== text) element.textContent = text;
}
setInterval(() => { if (!document.hidden) document.querySelectorAll("time[data-at]").forEach(age); }, 5000);

const openSheets = () => document.querySelectorAll("details.confirm[open], .choices details[open]");
document.addEventListener("keydown", (event) => {
  if (event.key !== "Escape") return;
  for (const sheet of openSheets()) {
    sheet.open = false;
    sheet.querySelector("summary").focus();
  }
});
document.addEventListener("click", (event) => {
  for (const sheet of openSheets()) if (!sheet.contains(event.target)) sheet.open = false;
});

const log = document.getElementById("log");
if (log) {
  const follow = document.getElementById("follow");
  const toEnd = () => {
    const lines = log.querySelector(".log");
    if (lines) lines.scrollTop = lines.scrollHeight;
  };
  toEnd();
  document.addEventListener("htmx:after:swap", () => follow.checked && toEnd());
  setInterval(() => {
    const reading = window.getSelection().toString() !== "";
    if (follow.checked && !reading && !document.hidden) htmx.trigger(log, "tick");
  }, 2000);
}
