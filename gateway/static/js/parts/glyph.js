/** A shape for every status, outcome and GPU state: colour is never the only sign. */

import { html } from "../preact.js";

const SHAPES = {
  healthy: "M3.2 8.4l3.1 3.1 6.5-7",
  recovering: "M8 13V3.4M3.8 7.4L8 3.2l4.2 4.2",
  pending: "M3 8h.01M8 8h.01M13 8h.01",
  maintenance: "M5 3v10M11 3v10",
  poor: "M8 2.5L14.2 13.5H1.8zM8 6.8v2.6M8 11.4h.01",
  missing: "M4 4l8 8M12 4l-8 8",
};

const SAME = {
  good: "healthy",
  first: "pending",
  missed: "missing",
  excused: "maintenance",
  up: "healthy",
  degraded: "poor",
  down: "missing",
  unknown: "pending",
};

export function Glyph({ name }) {
  const kind = SAME[name] ?? name;
  return html`<svg class="glyph" viewBox="0 0 16 16" aria-hidden="true"><path d=${SHAPES[kind] ?? SHAPES.pending} /></svg>`;
}

export const Chip = ({ name, label }) => html`<span class="chip tone-${name}"><${Glyph} name=${name} />${label}</span>`;

const ICONS = {
  search: "M7 2.5a4.5 4.5 0 1 1 0 9a4.5 4.5 0 0 1 0-9zM10.4 10.4L14 14",
  close: "M4 4l8 8M12 4l-8 8",
  copy: "M5.5 5.5h8v8h-8zM3 10.5V2.5h8",
  done: "M3 8.5l3.2 3.2L13 4.5",
  system: "M2.5 3h11v7.5h-11zM6 13.5h4",
  light:
    "M8 5.2a2.8 2.8 0 1 1 0 5.6a2.8 2.8 0 0 1 0-5.6z" +
    "M8 1.4v1.4M8 13.2v1.4M1.4 8h1.4M13.2 8h1.4M3.3 3.3l1 1M11.7 11.7l1 1M12.7 3.3l-1 1M4.3 11.7l-1 1",
  dark: "M13 9.6A5.6 5.6 0 0 1 6.4 3a5.4 5.4 0 1 0 6.6 6.6z",
  up: "M4 9.5L8 5.5l4 4",
  down: "M4 6.5l4 4 4-4",
  left: "M9.5 4L5.5 8l4 4",
  right: "M6.5 4l4 4-4 4",
};

export const Icon = ({ name }) =>
  html`<svg class="icon" viewBox="0 0 16 16" aria-hidden="true"><path d=${ICONS[name]} /></svg>`;
