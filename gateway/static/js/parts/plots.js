/** How outcomes become lines on a canvas. An uptime holds for the whole window before its ping. */

import { milliseconds } from "../format.js";
import { html } from "../preact.js";
import { beatKind } from "../words.js";
import { BeatNote } from "./heartbeat.js";
import { tip } from "./tooltip.js";

const FONT = "11px Inter, system-ui, sans-serif";
const LABEL_ROOM = 70;

/** The colour that a custom property stands for just now, as the canvas wants it. */
function colour(place, name) {
  const probe = document.createElement("i");
  probe.style.color = `var(${name})`;
  place.append(probe);
  const value = getComputedStyle(probe).color;
  probe.remove();
  return value;
}

const transparent = (value, alpha) => `color-mix(in srgb, ${value} ${alpha * 100}%, transparent)`;

const secondsOf = (ping) => Date.parse(ping.pinged_at) / 1000;

function axes(place, valueOf) {
  const shared = {
    stroke: colour(place, "--quiet"),
    font: FONT,
    grid: { stroke: colour(place, "--line"), width: 1 },
    ticks: { show: false },
  };
  return [
    { ...shared, grid: { show: false }, size: 24, space: LABEL_ROOM },
    {
      ...shared,
      size: 56,
      gap: 6,
      values: (_plot, splits) => splits.map((value) => (value == null ? "" : valueOf(value))),
    },
  ];
}

const two = (value) => String(value).padStart(2, "0");

/** Seconds where minutes would repeat, days where hours would. */
function clockLabels(_plot, splits, _axis, _space, step) {
  return splits.map((seconds) => {
    const at = new Date(seconds * 1000);
    const clock = `${two(at.getHours())}:${two(at.getMinutes())}`;
    if (step < 60) return `${clock}:${two(at.getSeconds())}`;
    if (step < 86_400) return clock;
    return at.toLocaleDateString("en-GB", { day: "numeric", month: "short" });
  });
}

function options(place, frame, pings, { height, axis, series, range, hooks = {} }) {
  const [x, y] = axes(place, axis);
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
  if (left == null || left < 0 || pings.length === 0) return tip(null);
  const pointed = plot.posToVal(left, "x");
  const away = (ping) => Math.abs(secondsOf(ping) - pointed);
  const ping = pings.reduce((nearest, other) => (away(other) < away(nearest) ? other : nearest));
  const area = plot.over.getBoundingClientRect();
  return tip(html`<${BeatNote} ping=${ping} />`, area.left + plot.valToPos(secondsOf(ping), "x"), area.top);
}

/**
 * Each judged window as a level line from its beginning to its end. A window reaches back over the misses before
 * it, so nothing is missing there; where no window was, the line is broken.
 */
export function levels(pings) {
  const [times, values] = [[], []];
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

export function uptimeChart(UPlot, place, newestFirst, frame) {
  const pings = newestFirst.toReversed();
  const data = levels(pings);
  const lowest = Math.min(99, ...data[1].filter((value) => value != null));
  const bottom = Math.max(0, Math.floor(lowest - (100 - lowest) * 0.15));
  const line = colour(place, "--healthy");
  const marks = (plot) =>
    markTroubles(plot, pings, { missed: colour(place, "--missing"), excused: colour(place, "--maintenance") });
  const series = { stroke: line, width: 1.5, fill: transparent(line, 0.14), points: { show: false } };
  const all = options(place, frame, pings, {
    height: 150,
    series,
    range: [bottom, 100.0001],
    hooks: { draw: [marks] },
    axis: (value) => `${Number(value.toFixed(2))}%`,
  });
  return new UPlot(all, data, place);
}

/** A cross for each miss, two strokes for what was excused: there is no uptime to draw at those. */
function markTroubles({ ctx, bbox, valToPos }, pings, colours) {
  const size = 3.5 * devicePixelRatio;
  ctx.save();
  ctx.lineWidth = 1.6 * devicePixelRatio;
  for (const ping of pings) {
    const kind = beatKind(ping);
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

export function responseChart(UPlot, place, newestFirst, frame) {
  const pings = newestFirst.toReversed();
  const values = pings.map((ping) => ping.response_ms);
  const highest = Math.max(1, ...values.filter((value) => value != null));
  const line = colour(place, "--recovering");
  const series = { stroke: line, width: 1.25, points: { show: pings.length < 200, size: 4, fill: line, stroke: line } };
  const all = options(place, frame, pings, { height: 96, series, range: [0, highest * 1.15], axis: milliseconds });
  return new UPlot(all, [pings.map(secondsOf), values], place);
}
