/** The charts' data and options for uPlot. What they draw are buckets of outcomes: storage sums them (docs/api.md). */

import { axisLabel, axisMilliseconds, count, formatFullTime, isShownInUtc, milliseconds, percent, plural } from "../format.js";
import { html } from "../preact.js";
import { showTooltip } from "./tooltip.js";

const FONT = "11px Inter, system-ui, sans-serif";
const LABEL_WIDTH = 70;

/** The present value of a CSS colour property: a canvas cannot use `var()`. */
function colour(container, name) {
  const probe = document.createElement("i");
  probe.style.color = `var(${name})`;
  probe.style.forcedColorAdjust = "none";
  container.append(probe);
  const value = getComputedStyle(probe).color;
  probe.remove();
  return value;
}

const transparent = (value, alpha) => `color-mix(in srgb, ${value} ${alpha * 100}%, transparent)`;

const secondsOf = (time) => Date.parse(time) / 1000;
const middleOf = (bucket) => (secondsOf(bucket.since) + secondsOf(bucket.until)) / 2;

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

/** Labels of the time axis: with seconds for steps below a minute, as dates for steps of a day or more. */
function clockLabels(_plot, splits, _axis, _space, step) {
  return splits.map((seconds) => axisLabel(seconds * 1000, step));
}

function options(UPlot, container, frame, buckets, { height, axis, series, range, hooks = {} }) {
  const [x, y] = axes(container, axis);
  return {
    width: frame.width,
    height,
    padding: [8, 22, 0, 0],
    legend: { show: false },
    // marks stand at full hours and days of the zone that is shown
    tzDate: (seconds) => (isShownInUtc() ? UPlot.tzDate(new Date(seconds * 1000), "Etc/UTC") : new Date(seconds * 1000)),
    cursor: { y: false, points: { show: false }, drag: { x: false, y: false } },
    scales: { x: { range: [frame.since, frame.until] }, y: { range } },
    axes: [{ ...x, values: clockLabels }, y],
    series: [{}, ...series],
    hooks: { ...hooks, setCursor: [(plot) => note(plot, buckets)] },
  };
}

function note(plot, buckets) {
  const { left } = plot.cursor;
  if (left == null || left < 0 || buckets.length === 0) return showTooltip(null);
  const pointed = plot.posToVal(left, "x");
  const away = (bucket) => Math.max(secondsOf(bucket.since) - pointed, pointed - secondsOf(bucket.until), 0);
  const bucket = buckets.reduce((nearest, other) => (away(other) < away(nearest) ? other : nearest));
  const area = plot.over.getBoundingClientRect();
  const at = Math.min(area.width, Math.max(0, plot.valToPos(middleOf(bucket), "x")));
  return showTooltip(html`<${BucketNote} bucket=${bucket} />`, area.left + at, area.top);
}

function BucketNote({ bucket }) {
  const { pings, missed, excused } = bucket;
  const isMixed = pings > 1 && bucket.min_uptime_percent != null && bucket.min_uptime_percent !== bucket.uptime_percent;
  const away = [missed > 0 && `${count(missed)} missed`, excused > 0 && `${count(excused)} excused`].filter(Boolean);
  return html`<div>
    <div>${formatFullTime(bucket.since)} to ${formatFullTime(bucket.until)}</div>
    <div><strong>${bucket.uptime_percent == null ? "nothing reported" : `uptime ${percent(bucket.uptime_percent)}`}</strong></div>
    ${isMixed && html`<div>lowest of a ping ${percent(bucket.min_uptime_percent)}</div>`}
    <div>${[plural(pings, "ping"), ...away].join(", ")}</div>
    ${bucket.response_ms_p50 != null && html`<div>answered in ${milliseconds(bucket.response_ms_p50)}${pings > 1 ? `, 95 in 100 within ${milliseconds(bucket.response_ms_p95)}` : ""}</div>`}
  </div>`;
}

/**
 * The points of a line of buckets: each is a level piece from its beginning to its end. The line has a gap where there
 * is time that no report accounts for.
 */
export function levelLine(buckets, valuesOf) {
  const times = [];
  const lines = valuesOf.map(() => []);
  let reached = Number.NEGATIVE_INFINITY;
  for (const bucket of buckets) {
    const values = valuesOf.map((valueOf) => valueOf(bucket));
    if (values[0] == null) continue;
    const end = secondsOf(bucket.until);
    const begin = Math.max(reached, secondsOf(bucket.since));
    if (begin > reached + 1 && times.length > 0) {
      times.push((begin + reached) / 2);
      for (const line of lines) line.push(null);
    }
    times.push(begin, end);
    lines.forEach((line, at) => line.push(values[at], values[at]));
    reached = end;
  }
  return [times, ...lines];
}

/** The points of a line through the middle of each bucket, with gaps where the pings were interrupted. */
export function pointLine(buckets, values) {
  const times = [];
  const lines = values.map(() => []);
  buckets.forEach((bucket, at) => {
    const middle = middleOf(bucket);
    const reached = at > 0 ? secondsOf(buckets[at - 1].until) : Number.NEGATIVE_INFINITY;
    if (at > 0 && secondsOf(bucket.since) > reached + 1) {
      times.push((secondsOf(bucket.since) + reached) / 2);
      for (const line of lines) line.push(null);
    }
    times.push(middle);
    lines.forEach((line, which) => line.push(values[which][at]));
  });
  return [times, ...lines];
}

export function uptimeChart(UPlot, container, buckets, frame) {
  const data = levelLine(buckets, [(bucket) => bucket.uptime_percent, (bucket) => bucket.min_uptime_percent ?? bucket.uptime_percent]);
  const lowest = Math.min(99, ...data[1].concat(data[2]).filter((value) => value != null));
  const bottom = Math.max(0, Math.floor(lowest - (100 - lowest) * 0.15));
  const line = colour(container, "--healthy");
  const low = colour(container, "--poor");
  const marks = (plot) =>
    markOutages(plot, buckets, { missed: colour(container, "--missing"), excused: colour(container, "--maintenance") });
  const series = [
    { stroke: line, width: 1.5, fill: transparent(line, 0.14), points: { show: false } },
    { stroke: transparent(low, 0.6), width: 1, points: { show: false } }, // the lowest ping of each bucket, where it differs
  ];
  const differs = data[1].some((value, at) => value != null && value - data[2][at] > 0.0005);
  const all = options(UPlot, container, frame, buckets, {
    height: 150,
    series: differs ? [series[1], series[0]] : [series[0]],
    range: [bottom, 100.0001],
    hooks: { draw: [marks] },
    axis: (value) => `${Number(value.toFixed(2))}%`,
  });
  return new UPlot(all, differs ? [data[0], data[2], data[1]] : [data[0], data[1]], container);
}

/** Draws a cross where pings were missed and two strokes where they were excused, which have no uptime to draw. */
function markOutages({ ctx, bbox, valToPos }, buckets, colours) {
  const size = 3.5 * devicePixelRatio;
  ctx.save();
  ctx.lineWidth = 1.6 * devicePixelRatio;
  for (const bucket of buckets) {
    const kind = bucket.missed > 0 ? "missed" : bucket.excused > 0 ? "excused" : null;
    if (!kind) continue;
    const x = valToPos(middleOf(bucket), "x", true);
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

export function responseChart(UPlot, container, buckets, frame) {
  const median = buckets.map((bucket) => bucket.response_ms_p50);
  const slowest = buckets.map((bucket) => bucket.response_ms_p95);
  const highest = Math.max(1, ...slowest.filter((value) => value != null));
  const line = colour(container, "--recovering");
  const points = { show: buckets.length < 150, size: 4, fill: line, stroke: line };
  const series = [
    { stroke: transparent(line, 0.45), width: 1, points: { show: false } },
    { stroke: line, width: 1.25, points },
  ];
  const all = options(UPlot, container, frame, buckets, { height: 96, series, range: [0, highest * 1.15], axis: axisMilliseconds });
  return new UPlot(all, pointLine(buckets, [slowest, median]), container);
}
