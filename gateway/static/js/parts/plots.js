/** The charts' data and options for uPlot. An uptime applies to the whole window before its ping. */

import { milliseconds } from "../format.js";
import { html } from "../preact.js";
import { outcomeKind } from "../labels.js";
import { BeatNote } from "./heartbeat.js";
import { showTooltip } from "./tooltip.js";

const FONT = "11px Inter, system-ui, sans-serif";
const LABEL_WIDTH = 70;

/** The present value of a CSS colour property: a canvas cannot use `var()`. */
function colour(container, name) {
  const probe = document.createElement("i");
  probe.style.color = `var(${name})`;
  container.append(probe);
  const value = getComputedStyle(probe).color;
  probe.remove();
  return value;
}

const transparent = (value, alpha) => `color-mix(in srgb, ${value} ${alpha * 100}%, transparent)`;

const secondsOf = (ping) => Date.parse(ping.pinged_at) / 1000;

function axes(container, valueOf) {
  const shared = {
    stroke: colour(container, "--quiet"),
    font: FONT,
    grid: { stroke: colour(container, "--line"), width: 1 },
    ticks: { show: false },
  };
  return [
    { ...shared, grid: { show: false }, size: 24, space: LABEL_WIDTH },
    {
      ...shared,
      size: 56,
      gap: 6,
      values: (_plot, splits) => splits.map((value) => (value == null ? "" : valueOf(value))),
    },
  ];
}

const two = (value) => String(value).padStart(2, "0");

/** Labels of the time axis: with seconds for steps below a minute, as dates for steps of a day or more. */
function clockLabels(_plot, splits, _axis, _space, step) {
  return splits.map((seconds) => {
    const at = new Date(seconds * 1000);
    const clock = `${two(at.getHours())}:${two(at.getMinutes())}`;
    if (step < 60) return `${clock}:${two(at.getSeconds())}`;
    if (step < 86_400) return clock;
    return at.toLocaleDateString("en-GB", { day: "numeric", month: "short" });
  });
}

function options(container, frame, pings, { height, axis, series, range, hooks = {} }) {
  const [x, y] = axes(container, axis);
  return {
    width: frame.width,
    height,
    padding: [8, 22, 0, 0],
    legend: { show: false },
    cursor: { y: false, points: { show: false }, drag: { x: false, y: false } },
    scales: { x: { range: [frame.since, frame.until] }, y: { range } },
    axes: [{ ...x, values: clockLabels }, y],
    series: [{}, series],
    hooks: { ...hooks, setCursor: [(plot) => note(plot, pings)] },
  };
}

function note(plot, pings) {
  const { left } = plot.cursor;
  if (left == null || left < 0 || pings.length === 0) return showTooltip(null);
  const pointed = plot.posToVal(left, "x");
  const away = (ping) => Math.abs(secondsOf(ping) - pointed);
  const ping = pings.reduce((nearest, other) => (away(other) < away(nearest) ? other : nearest));
  const area = plot.over.getBoundingClientRect();
  return showTooltip(html`<${BeatNote} ping=${ping} />`, area.left + plot.valToPos(secondsOf(ping), "x"), area.top);
}

/**
 * The points of the uptime line: each judged window is a level piece from its beginning to its end. A window covers the
 * misses before its ping, so they leave no gap. The line has a gap where there was no window.
 */
export function uptimeLine(pings) {
  const times = [];
  const values = [];
  let reached = Number.NEGATIVE_INFINITY;
  for (const ping of pings) {
    if (ping.uptime_percent == null || !ping.window_seconds) continue;
    const end = secondsOf(ping);
    const begin = Math.max(reached, end - ping.window_seconds);
    if (begin > reached + 1 && times.length > 0) {
      times.push((begin + reached) / 2);
      values.push(null);
    }
    times.push(begin, end);
    values.push(ping.uptime_percent, ping.uptime_percent);
    reached = end;
  }
  return [times, values];
}

export function uptimeChart(UPlot, container, newestFirst, frame) {
  const pings = newestFirst.toReversed();
  const data = uptimeLine(pings);
  const lowest = Math.min(99, ...data[1].filter((value) => value != null));
  const bottom = Math.max(0, Math.floor(lowest - (100 - lowest) * 0.15));
  const line = colour(container, "--healthy");
  const marks = (plot) =>
    markOutages(plot, pings, { missed: colour(container, "--missing"), excused: colour(container, "--maintenance") });
  const series = { stroke: line, width: 1.5, fill: transparent(line, 0.14), points: { show: false } };
  const all = options(container, frame, pings, {
    height: 150,
    series,
    range: [bottom, 100.0001],
    hooks: { draw: [marks] },
    axis: (value) => `${Number(value.toFixed(2))}%`,
  });
  return new UPlot(all, data, container);
}

/** Draws a cross for each miss and two strokes for each excused ping, which have no uptime to draw. */
function markOutages({ ctx, bbox, valToPos }, pings, colours) {
  const size = 3.5 * devicePixelRatio;
  ctx.save();
  ctx.lineWidth = 1.6 * devicePixelRatio;
  for (const ping of pings) {
    const kind = outcomeKind(ping);
    if (!colours[kind]) continue;
    const x = valToPos(secondsOf(ping), "x", true);
    const y = bbox.top + bbox.height - 2.5 * size;
    if (x < bbox.left) continue;
    ctx.strokeStyle = colours[kind];
    ctx.beginPath();
    const ends =
      kind === "missed"
        ? [
            [-1, -1, 1, 1],
            [1, -1, -1, 1],
          ]
        : [
            [-0.6, -1, -0.6, 1],
            [0.6, -1, 0.6, 1],
          ];
    for (const [fromX, fromY, toX, toY] of ends) {
      ctx.moveTo(x + fromX * size, y + fromY * size);
      ctx.lineTo(x + toX * size, y + toY * size);
    }
    ctx.stroke();
  }
  ctx.restore();
}

export function responseChart(UPlot, container, newestFirst, frame) {
  const pings = newestFirst.toReversed();
  const values = pings.map((ping) => ping.response_ms);
  const highest = Math.max(1, ...values.filter((value) => value != null));
  const line = colour(container, "--recovering");
  const series = { stroke: line, width: 1.25, points: { show: pings.length < 200, size: 4, fill: line, stroke: line } };
  const all = options(container, frame, pings, { height: 96, series, range: [0, highest * 1.15], axis: milliseconds });
  return new UPlot(all, [pings.map(secondsOf), values], container);
}
