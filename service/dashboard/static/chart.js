// Curves on uPlot: one axis, any number of series, smoothing as TensorBoard's, a log scale, colours of the style sheet.
"use strict";

const LINES = ["--accent", "--valid", "--good", "--bad", "--muted", "--warn"];

function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

/** Exponential moving average without the bias towards its start (Kingma and Ba, 2015, section 3). */
function smoothed(values, weight) {
  if (!weight) return values;
  let mean = 0, correction = 1;
  return values.map((value) => {
    if (value == null) return null;
    mean = mean * weight + (1 - weight) * value;
    correction *= weight;
    return mean / (1 - correction);
  });
}

const NAMES = { grad_norm: "gradient norm", tokens_per_second: "tokens per second" };
const PLACES = ["step", "total_steps", "trained_tokens"];  // of a point, not curves

/** What people call a metric. */
const labelOf = (name) => NAMES[name] ?? name.replaceAll("_", " ");

class Chart {
  /** `series`: [{label, values, dash?, faint?}], each as long as `steps`. */
  constructor(element) {
    this.element = element;
    this.plot = null;
    this.shape = "";
    new ResizeObserver(() => this.plot?.setSize(this.size())).observe(element);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { this.shape = ""; this.redraw?.(); });
  }

  size() {
    return { width: Math.max(240, this.element.clientWidth), height: Math.max(120, this.element.clientHeight - 40) };
  }

  draw(steps, series, { log = false, xLabel = "step" } = {}) {
    this.redraw = () => this.draw(steps, series, { log, xLabel });
    const few = steps.length < 30;
    const shape = JSON.stringify([log, xLabel, few, series.map((line) => line.label)]);
    const data = [steps, ...series.map((line) => line.values)];
    if (this.plot && this.shape === shape) {
      this.plot.setData(data);
      return;
    }
    this.plot?.destroy();
    this.shape = shape;
    const axis = { stroke: colour("--muted"), grid: { stroke: colour("--line"), width: 1 }, ticks: { stroke: colour("--line"), width: 1 }, font: "12px system-ui, sans-serif" };
    this.plot = new uPlot({
      ...this.size(),
      scales: { x: { time: false }, y: { distr: log ? 3 : 1 } },
      axes: [{ ...axis }, { ...axis, size: 56 }],
      cursor: { points: { size: 6 }, drag: { x: true, y: false } },
      series: [
        { label: xLabel },
        ...series.map((line, index) => ({
          label: line.label,
          stroke: colour(LINES[(line.colour ?? index) % LINES.length]),
          width: line.faint ? 1 : 1.8,
          alpha: line.faint ? 0.35 : 1,
          spanGaps: true,
          points: { show: few, size: 5 },
          value: (_, value) => value == null ? "–" : value.toPrecision(4),
        })),
      ],
    }, data, this.element);
  }
}
