/**
 * Draws a placed map on a canvas, and single cells of it again when they change.
 *
 * Cells are written as pixels and put on the canvas at once: 50,000 hosts with eight GPUs each are 400,000 rectangles,
 * which take a browser a hundred times as long.
 */

import { count } from "../format.js";
import { uptimeOfDay } from "./data.js";
import { corner, titleOf } from "./layout.js";

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
const WORSE = { u: 0, n: 1, g: 2, d: 3 }; // of GPUs that share a pixel the worst is drawn
const NO_GPUS = "--strong-line";
const WIDE_STRIPE = 4; // pixels of the page: wider ones have a gap between them

/** The tones as colours of the present theme, as pixels; and `ink`, in which names are written, as a colour. */
export function palette(element) {
  const style = getComputedStyle(element);
  const colourOf = (tone) => resolved(element, style.getPropertyValue(tone).trim());
  const tones = {};
  for (const tone of new Set([...Object.values(STATE_TONES), ...Object.values(STATUS_TONES), NO_GPUS])) {
    tones[tone] = pixelOf(colourOf(tone));
  }
  const byLetter = (names) => Object.fromEntries(Object.entries(names).map(([letter, tone]) => [letter, tones[tone]]));
  return { tones, states: byLetter(STATE_TONES), statuses: byLetter(STATUS_TONES), ink: colourOf("--ink") };
}

/** A canvas knows no `light-dark()`: the browser is asked for the colour that it makes of it. */
function resolved(element, value) {
  const probe = document.createElement("span");
  probe.style.color = value;
  probe.style.forcedColorAdjust = "none"; // states are told by colour on the map, in forced colours too
  element.append(probe);
  const colour = getComputedStyle(probe).color;
  probe.remove();
  return colour;
}

/** A colour as one number, in the byte order that pixels have on this machine. */
function pixelOf(colour) {
  const context = new OffscreenCanvas(1, 1).getContext("2d");
  context.fillStyle = colour;
  context.fillRect(0, 0, 1, 1);
  return new Uint32Array(context.getImageData(0, 0, 1, 1).data.buffer)[0];
}

/** The pixels of a canvas of so many pixels; `ratio` of them are one of the page. */
export function emptyPicture(width, height, ratio) {
  const image = new ImageData(Math.max(1, width), Math.max(1, height));
  return { image, pixels: new Uint32Array(image.data.buffer), ratio };
}

export function drawAll(context, picture, placed, view, colours) {
  for (const group of placed.groups) {
    for (let n = 0; n < group.hosts.length; n += 1) paint(picture, placed, group, n, group.hosts[n], view, colours);
  }
  context.putImageData(picture.image, 0, 0);
  context.fillStyle = colours.ink;
  context.font = `600 ${13 * placed.scale}px Inter, system-ui, sans-serif`;
  for (const group of placed.groups) {
    if (!group.name) continue;
    const ending = ` · ${count(group.hosts.length)}`;
    const room = group.width - context.measureText(ending).width;
    context.fillText(fitted(context, titleOf(group.name), room) + ending, group.left, group.top + 14 * placed.scale);
  }
}

/** The text, shortened with an ellipsis where it is wider than the room that it has. */
function fitted(context, text, room) {
  if (context.measureText(text).width <= room) return text;
  const letters = [...text];
  while (letters.length > 0 && context.measureText(`${letters.join("")}…`).width > room) letters.pop();
  return `${letters.join("")}…`;
}

/** Draws one host again. Returns the square that it takes, in pixels of the page. */
export function drawCell(context, picture, placed, group, n, host, view, colours) {
  const { left, top, side } = paint(picture, placed, group, n, host, view, colours);
  context.putImageData(picture.image, 0, 0, left, top, side, side);
  return { x: left / picture.ratio, y: top / picture.ratio, side: side / picture.ratio };
}

/** Writes one host into the picture: a stripe a GPU, or one square. Returns where it is, in pixels. */
function paint({ image, pixels, ratio }, placed, group, n, host, view, colours) {
  const { x, y } = corner(placed, group, n);
  const left = Math.round(x * ratio);
  const top = Math.round(y * ratio);
  const gap = Math.max(1, Math.round((placed.size > 7 ? 1.5 : 0.5) * ratio));
  const side = Math.max(1, Math.round((x + placed.size) * ratio) - left - gap);
  const bottom = Math.min(top + side, image.height);
  for (let column = 0; column < side && left + column < image.width; column += 1) {
    const colour = colourAt(column, side, host, view, colours, ratio);
    for (let row = top; row < bottom; row += 1) pixels[row * image.width + left + column] = colour;
  }
  return { left, top, side };
}

/** The pixel of one column of a host's cell; 0, which is nothing, between two wide stripes. */
function colourAt(column, side, host, { columns, offsets, colouring }, colours, ratio) {
  if (colouring === "uptime") return colours.tones[uptimeTone(uptimeOfDay(columns, host))];
  if (colouring === "escalation") return colours.tones[escalationTone(columns.escalations[host])];
  const status = columns.statuses[host];
  const count = columns.gpu_counts[host];
  if (count === 0) return colours.statuses[status] ?? colours.tones[NO_GPUS];
  const first = Math.floor((column * count) / side);
  const isWide = side / count > WIDE_STRIPE * ratio;
  if (isWide && first < count - 1 && Math.floor(((column + 1) * count) / side) > first) return 0;
  // a host that does not answer is down as a whole, whatever its GPUs were when it last did
  if (status === "x" || status === "m") return colours.statuses[status];
  const end = isWide ? first + 1 : Math.ceil(((column + 1) * count) / side);
  let worst = columns.gpu_states[offsets[host] + first];
  for (let gpu = first + 1; gpu < end; gpu += 1) {
    const letter = columns.gpu_states[offsets[host] + gpu];
    if (WORSE[letter] > WORSE[worst]) worst = letter;
  }
  return colours.states[worst];
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
