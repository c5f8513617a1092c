// Curves of several jobs on one axis.
"use strict";

(() => {
  const tools = document.getElementById("compare-tools");
  const [metric, axis, smoothing, log] = ["metric", "axis", "smoothing", "log"].map((id) => document.getElementById(`compare-${id}`));
  const element = document.getElementById("compare-chart");
  const chart = new Chart(element);
  let jobs = [];

  /** Where on the axis a job's steps are. */
  function placesOf(job) {
    if (axis.value === "tokens") return job.series.trained_tokens;
    return axis.value === "share" && job.total_steps ? job.steps.map((step) => step / job.total_steps) : job.steps;
  }

  function draw() {
    const shown = jobs.filter((job) => job.series[metric.value] && (axis.value !== "tokens" || job.series.trained_tokens));
    const places = [...new Set(shown.flatMap((job) => placesOf(job)))].sort((a, b) => a - b);
    const rank = new Map(places.map((at, index) => [at, index]));
    const lines = shown.map((job) => {
      const values = smoothed(job.series[metric.value], /^(full_)?valid_/.test(metric.value) ? 0 : Number(smoothing.value));
      const line = places.map(() => null);
      placesOf(job).forEach((place, index) => { line[rank.get(place)] = values[index]; });
      return { label: job.title, values: line, colour: jobs.indexOf(job) };
    });
    element.dataset.lines = String(lines.length);
    chart.draw(places, lines, { log: log.checked, xLabel: axis.value });
  }

  async function begin() {
    jobs = await (await call(tools.dataset.curves)).json();
    const names = [...new Set(jobs.flatMap((job) => Object.keys(job.series)))].filter((name) => !PLACES.includes(name)).sort((a, b) => (b === "train_loss") - (a === "train_loss") || a.localeCompare(b));
    metric.replaceChildren(...names.map((name) => new Option(labelOf(name), name)));
    metric.disabled = false;
    draw();
  }

  tools.addEventListener("submit", (event) => event.preventDefault());
  for (const control of [metric, axis, smoothing, log]) control.addEventListener("input", draw);
  begin().catch((error) => showProblem(`The curves cannot be shown. ${error.message}`, "curves"));
})();
