/** Draws a placed map on a canvas, and single cells of it again when they change. */

import { corner } from "./layout.js";

/** Which letter stands for which colour; the colours come from the page's custom properties. */
const STATE_TONES = { u: "--healthy", g: "--poor", d: "--missing", n: "--pending" };
const STATUS_TONES = {
  h: "--healthy",
  r: "--recovering",
  n: "--pending",
  m: "--maintenance",
  p: "--poor",
  x: "--missing",
};
const NO_GPUS = "--strong-line";
const NO_LABEL = "-"; // the group of hosts without the label

/** The tones as colours of the present theme. */
export function palette(element) {
  const style = getComputedStyle(element);
  const colours = {};
  for (const name of new Set([...Object.values(STATE_TONES), ...Object.values(STATUS_TONES), NO_GPUS])) {
    colours[name] = resolved(element, style.getPropertyValue(name).trim());
  }
  colours.ink = resolved(element, style.getPropertyValue("--ink").trim());
  return colours;
}

/** A canvas knows no `light-dark()`: the browser is asked for the colour that it makes of it. */
function resolved(element, value) {
  const probe = document.createElement("span");
  probe.style.color = value;
  element.append(probe);
  const colour = getComputedStyle(probe).color;
  probe.remove();
  return colour;
}

export function drawAll(context, placed, map, colours) {
  context.clearRect(0, 0, context.canvas.width, context.canvas.height);
  for (const group of placed.groups) {
    if (group.name) {
      context.fillStyle = colours.ink;
      context.font = `600 ${13 * placed.scale}px Inter, system-ui, sans-serif`;
      context.fillText(`${group.name === NO_LABEL ? "without the label" : group.name} · ${group.hosts.length}`, 0, group.top + 14 * placed.scale);
    }
    group.hosts.forEach((host, n) => drawCell(context, placed, group, n, host, map, colours));
  }
}

/** One host: a stripe a GPU, or its status as one square where it has reported none. */
export function drawCell(context, placed, group, n, host, map, colours) {
  const { x, y } = corner(placed, group, n);
  const gap = placed.size > 7 ? 1.5 : 0.5;
  const side = placed.size - gap;
  context.clearRect(x, y, placed.size, placed.size);
  for (const { left, width, tone } of stripes(map, host, side)) {
    context.fillStyle = colours[tone];
    context.fillRect(x + left, y, width, side);
  }
}

function stripes(map, host, side) {
  const { columns, offsets, colouring } = map;
  if (colouring === "uptime") return [{ left: 0, width: side, tone: uptimeTone(columns.uptimes[host]) }];
  if (colouring === "escalation") return [{ left: 0, width: side, tone: escalationTone(columns.escalations[host]) }];
  const status = columns.statuses[host];
  const count = columns.gpu_counts[host];
  // a host that does not answer is down as a whole, whatever its GPUs were when it last did
  if (count === 0 || status === "x" || status === "m") {
    return [{ left: 0, width: side, tone: STATUS_TONES[status] ?? NO_GPUS }];
  }
  const width = side / count;
  const found = [];
  for (let gpu = 0; gpu < count; gpu += 1) {
    const letter = columns.gpu_states[offsets[host] + gpu];
    found.push({ left: gpu * width, width: Math.max(width - (width > 4 ? 1 : 0), 0.5), tone: STATE_TONES[letter] });
  }
  return found;
}

function uptimeTone(tenths) {
  if (tenths < 0) return "--pending";
  if (tenths >= 990) return "--healthy";
  return tenths >= 900 ? "--poor" : "--missing";
}

function escalationTone(poor) {
  if (poor === 0) return "--healthy";
  return poor < 3 ? "--poor" : "--missing";
}
