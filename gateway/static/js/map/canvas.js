/** The map on a canvas: all of it, a cell at a time, and a pulse where a host was pinged. */

import { corner, groupsOf, hostAt, place } from "./layout.js";
import { drawAll, drawCell, palette } from "./draw.js";

const PULSE_MS = 700;
const MOST_PULSES = 300; // more at once would only flicker

export class MapCanvas {
  constructor(element) {
    this._element = element;
    this._drawn = null;
    this._pulses = new Map(); // when each host was pinged
    this._frame = null;
    this._isStill = matchMedia("(prefers-reduced-motion: reduce)").matches;
  }

  /**
   * Draws the whole map within a box; `only` is the name of the one group to draw, `scale` that of names, gaps and the
   * largest cell. Returns how long it took.
   */
  draw(map, colouring, width, height, { only = null, scale = 1, largest } = {}) {
    const began = performance.now();
    const groups = groupsOf(map.columns).filter(({ name }) => only == null || name === only);
    const isOne = groups.length === 1 && (only != null || groups[0].name === "-");
    const placed = place(isOne ? [{ ...groups[0], name: "" }] : groups, width, height, scale, largest);
    const element = this._element;
    element.width = Math.round(width * devicePixelRatio);
    element.height = Math.round(placed.height * devicePixelRatio);
    element.style.width = `${width}px`;
    element.style.height = `${placed.height}px`;
    const context = element.getContext("2d");
    context.scale(devicePixelRatio, devicePixelRatio);
    const view = { ...map, colouring };
    const colours = palette(document.body);
    drawAll(context, placed, view, colours);
    const cells = new Map();
    for (const group of placed.groups) group.hosts.forEach((host, n) => cells.set(host, { group, n }));
    this._drawn = { placed, context, view, colours, cells };
    const took = performance.now() - began;
    element.dataset.drawnMs = took.toFixed(1);
    return took;
  }

  /** Draws hosts again that were pinged, and lets their cells pulse. */
  pinged(hosts, now = performance.now()) {
    for (const host of hosts) {
      this._cell(host);
      if (!this._isStill && this._pulses.size < MOST_PULSES) this._pulses.set(host, now);
    }
    if (this._pulses.size > 0) this._frame ??= requestAnimationFrame((at) => this._pulse(at));
  }

  _cell(host) {
    const { placed, context, view, colours, cells } = this._drawn ?? {};
    const cell = cells?.get(host);
    if (cell) drawCell(context, placed, cell.group, cell.n, host, view, colours);
    return cell;
  }

  _pulse(at) {
    this._frame = null;
    for (const [host, began] of this._pulses) {
      const age = Math.max(0, at - began) / PULSE_MS;
      const cell = this._cell(host);
      if (age >= 1 || !cell) {
        this._pulses.delete(host);
        continue;
      }
      const { placed, context, colours } = this._drawn;
      const { x, y } = corner(placed, cell.group, cell.n);
      const side = placed.size - (placed.size > 7 ? 1.5 : 0.5);
      context.globalAlpha = 0.75 * (1 - age);
      context.fillStyle = colours.ink;
      context.fillRect(x, y, side, side);
      context.globalAlpha = 1;
    }
    if (this._pulses.size > 0) this._frame = requestAnimationFrame((next) => this._pulse(next));
  }

  /** The host at a point of the canvas, in CSS pixels; null where there is none. */
  hostAt(x, y) {
    return this._drawn ? hostAt(this._drawn.placed, x, y) : null;
  }

  /** The hosts whose cells touch a rectangle. */
  hostsWithin({ left, top, right, bottom }) {
    if (!this._drawn) return [];
    const { placed, cells } = this._drawn;
    const found = [];
    for (const [host, { group, n }] of cells) {
      const { x, y } = corner(placed, group, n);
      if (x < right && x + placed.size > left && y < bottom && y + placed.size > top) found.push(host);
    }
    return found;
  }

  stop() {
    if (this._frame != null) cancelAnimationFrame(this._frame);
    this._pulses.clear();
  }
}
