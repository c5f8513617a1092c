// A job's curves and events, live: what is stored comes first, then the API's event stream from there on.
"use strict";

(() => {
  const tools = document.getElementById("curve-tools");
  const [metric, smoothing, log, note, list] =
    ["curve-metric", "curve-smoothing", "curve-log", "curve-note", "events"].map((id) => document.getElementById(id));
  const chart = new Chart(document.getElementById("curve"));
  const element = document.getElementById("curve");
  const FIRST = ["loss", "mean_token_accuracy", "accuracy"];
  const LAST = ["learning_rate", "grad_norm", "tokens_per_second"];
  let steps = [], series = {};

  /** `train_loss`, `valid_loss` and `full_valid_loss` are lines of one chart: `loss`. */
  const kindOf = (name) => name.replace(/^(train|valid|full_valid)_/, "");

  function offerMetrics() {
    const rank = (kind) => FIRST.includes(kind) ? FIRST.indexOf(kind) : FIRST.length + 1 + LAST.indexOf(kind);
    const kinds = [...new Set(Object.keys(series).filter((name) => !PLACES.includes(name)).map(kindOf))].sort((a, b) => rank(a) - rank(b));
    if (!kinds.length || kinds.join() === [...metric.options].map((option) => option.value).join()) return;
    const chosen = metric.value;
    metric.replaceChildren(...kinds.map((kind) => new Option(labelOf(kind), kind)));
    metric.value = kinds.includes(chosen) ? chosen : kinds[0];
    metric.disabled = false;
  }

  function draw() {
    element.dataset.points = String(steps.length);
    if (!steps.length) return;
    note.textContent = "";
    offerMetrics();
    const weight = Number(smoothing.value);
    const names = Object.keys(series).filter((name) => kindOf(name) === metric.value).sort((a, b) => (b.startsWith("train") - a.startsWith("train")) || a.localeCompare(b));
    const lines = [];
    names.forEach((name, index) => {
      const label = labelOf(name);
      const noisy = name.startsWith("train") || LAST.includes(name);  // validations are few, and are shown as they are
      lines.push({ label, values: smoothed(series[name], noisy ? weight : 0), colour: index });
      if (weight && noisy) lines.push({ label: `${label} (as measured)`, values: series[name], colour: index, faint: true });
    });
    chart.draw(steps, lines, { log: log.checked });
  }

  function add(metrics) {
    if (steps.length && metrics.step <= steps[steps.length - 1]) return;
    for (const name of Object.keys(metrics)) {
      if (name !== "step" && name !== "total_steps") series[name] ??= steps.map(() => null);
    }
    steps.push(metrics.step);
    for (const [name, values] of Object.entries(series)) values.push(metrics[name] ?? null);
    schedule();
  }

  let drawing = false;
  function schedule() {  // many events come at once: one drawing a frame
    if (drawing) return;
    drawing = true;
    requestAnimationFrame(() => { drawing = false; draw(); });
  }

  function show(event) {
    const item = document.createElement("li");
    item.className = event.level;
    const time = document.createElement("time");
    time.dateTime = new Date(event.created_at * 1000).toISOString();
    const text = document.createElement("p");
    text.textContent = event.message;
    item.append(time, text);
    list.prepend(item);
    makeTimesLocal(item.parentElement);
    announce(event.message);
    for (const part of document.querySelectorAll(".live")) htmx.trigger(part, "changed");
  }

  function follow(after) {
    const stream = new EventSource(`${tools.dataset.events}?stream=true${after ? `&after=${after}` : ""}`);
    stream.addEventListener("fine_tuning.job.event", (message) => {
      const event = JSON.parse(message.data);
      if (event.type === "metrics") add(event.data);
      else show(event);
    });
    stream.addEventListener("message", () => stream.close());  // `[DONE]`, or the error that ended it
  }

  async function begin() {
    const stored = await (await call(tools.dataset.curves)).json();
    ({ steps, series } = stored);
    draw();
    follow(stored.after);
  }

  tools.addEventListener("submit", (event) => event.preventDefault());
  for (const control of [metric, smoothing, log]) control.addEventListener("input", draw);
  begin().catch((error) => showProblem(`The curves cannot be shown. ${error.message}`, "curves"));
})();
