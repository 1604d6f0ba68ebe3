/** The time until an agent's next ping by the server's clock, updated each second. */

import { countdown, formatFullTime } from "../format.js";
import { classes, html } from "../preact.js";
import { useNow } from "../store.js";

const IN_FLIGHT_SECONDS = 15; // until then a due ping may still be waiting for its answer

export function Countdown({ at, interval = null }) {
  const now = useNow();
  if (!at) return html`<span class="quiet">not planned</span>`;
  const left = (Date.parse(at) - now) / 1000;
  const isDue = left <= 0;
  const isLate = left < -IN_FLIGHT_SECONDS;
  const text = isLate ? `late ${countdown(-left)}` : isDue ? "due now" : countdown(left);
  return html`<time class=${classes({ countdown: true, "is-due": isDue, "is-late": isLate })} datetime=${at} title=${formatFullTime(at)}>
    ${text}${interval ? html`<${Elapsed} share=${1 - left / (interval * 60)} />` : null}
  </time>`;
}

/** A bar that shows the elapsed share of the interval. */
function Elapsed({ share }) {
  const percent = Math.min(100, Math.max(0, share * 100));
  return html`<span class="elapsed" aria-hidden="true"><span style=${{ width: `${percent}%` }}></span></span>`;
}
