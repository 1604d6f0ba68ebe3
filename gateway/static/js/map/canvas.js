/** The map on a canvas: all of it, a cell at a time, and a pulse where a host was pinged. */

import { corner, groupsOf, hostAt, place } from "./layout.js";
import { drawAll, drawCell, emptyPicture, palette } from "./draw.js";

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
    const ratio = devicePixelRatio;
    element.width = Math.round(width * ratio);
    element.height = Math.round(placed.height * ratio);
    element.style.width = `${width}px`;
    element.style.height = `${placed.height}px`;
    const context = element.getContext("2d");
    context.scale(ratio, ratio);
    const view = { ...map, colouring };
    const colours = palette(document.body);
    const picture = emptyPicture(element.width, element.height, ratio);
    drawAll(context, picture, placed, view, colours);
    this._drawn = { placed, context, picture, view, colours, cells: cellsOf(placed, map.columns.agent_ids.length) };
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
    if (!this._drawn) return null;
    const { placed, context, picture, view, colours, cells } = this._drawn;
    if (cells.numbers[host] < 0) return null;
    const group = placed.groups[cells.groups[host]];
    const n = cells.numbers[host];
    return drawCell(context, picture, placed, group, n, host, view, colours);
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
      const { context, colours } = this._drawn;
      context.globalAlpha = 0.75 * (1 - age);
      context.fillStyle = colours.ink;
      context.fillRect(cell.x, cell.y, cell.side, cell.side);
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
    const { placed } = this._drawn;
    const found = [];
    for (const group of placed.groups) {
      group.hosts.forEach((host, n) => {
        const { x, y } = corner(placed, group, n);
        if (x < right && x + placed.size > left && y < bottom && y + placed.size > top) found.push(host);
      });
    }
    return found;
  }

  stop() {
    if (this._frame != null) cancelAnimationFrame(this._frame);
    this._pulses.clear();
  }
}

/** Where each host stands: the index of its group, and its number within that, which is -1 for one that is not drawn. */
function cellsOf(placed, hosts) {
  const cells = { groups: new Int32Array(hosts), numbers: new Int32Array(hosts).fill(-1) };
  placed.groups.forEach((group, at) =>
    group.hosts.forEach((host, n) => {
      cells.groups[host] = at;
      cells.numbers[host] = n;
    }),
  );
  return cells;
}
