// What every page can do: choices that submit themselves, sheets that close, logs that follow.
document.addEventListener("change", (event) => {
  if (event.target.dataset?.submit === "change") event.target.form.requestSubmit();
});

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
    lines.scrollTop = lines.scrollHeight;
  };
  toEnd();
  document.addEventListener("htmx:after:swap", () => follow.checked && toEnd());
  setInterval(() => {
    const reading = window.getSelection().toString() !== "";
    if (follow.checked && !reading && !document.hidden) htmx.trigger(log, "tick");
  }, 2000);
}
