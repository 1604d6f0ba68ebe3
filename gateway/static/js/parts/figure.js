/** A percentage of time. One that rests on less than one base interval says on how much, wherever it stands. */

import { duration, percent } from "../format.js";
import { html } from "../preact.js";
import { current } from "../store.js";

const ROUNDING_SECONDS = 1;

/** The judged seconds: what the percentage is a share of. */
export const judgedSeconds = (seconds, unreported = 0) =>
  (seconds?.up ?? 0) + (seconds?.degraded ?? 0) + (seconds?.down ?? 0) + (seconds?.unknown ?? 0) + unreported;

/** Whether so many judged seconds are less than one interval; false where either is not known. */
export const isEarly = (rests, baseSeconds) => rests != null && baseSeconds != null && rests < baseSeconds - ROUNDING_SECONDS;

/** `rests` are the judged seconds of the figure. */
export function Figure({ percent: value, rests, show = percent, baseSeconds = current().fleet.baseSeconds }) {
  if (value == null || !isEarly(rests, baseSeconds)) return show(value);
  return html`<span class="early" title="less than one interval was judged so far">${show(value)}<span class="quiet"> of ${duration(rests)}</span></span>`;
}
