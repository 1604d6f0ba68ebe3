/** The newest outcomes of the whole fleet. */

import { milliseconds, formatTime, percent } from "../format.js";
import { html, memo } from "../preact.js";
import { link } from "../route.js";
import { BEATS, outcomeKind, reason } from "../labels.js";
import { Glyph } from "./glyph.js";

const SHOWN = 30;

export function Feed({ recent }) {
  return html`<section class="feed" aria-label="Recent outcomes">
    <h2>Recent outcomes</h2>
    ${recent.length === 0 && html`<p class="quiet">The first one shows up here by itself.</p>`}
    <ol>${recent.slice(0, SHOWN).map((ping) => html`<${Item} key=${`${ping.agent_id} ${ping.ping_seq}`} ping=${ping} />`)}</ol>
  </section>`;
}

const Item = memo(({ ping }) => {
  const kind = outcomeKind(ping);
  return html`<li class="tone-${kind}">
    <${Glyph} name=${kind} />
    <a href=${link({ agent: ping.agent_id })}>${ping.agent_id}</a>
    <time datetime=${ping.pinged_at}>${formatTime(ping.pinged_at)}</time>
    <span class="what"><b>${BEATS[kind]}</b>${outcomeDetails(ping)}</span>
  </li>`;
});

/** Uptime, response time and reason of an outcome, as far as it has them; begins with a comma. */
export function outcomeDetails(ping) {
  const parts = [];
  if (ping.uptime_percent != null) parts.push(percent(ping.uptime_percent));
  if (ping.response_ms != null) parts.push(milliseconds(ping.response_ms));
  if (ping.outcome !== "answered" && ping.reason) parts.push(reason(ping.reason));
  return parts.length > 0 ? `, ${parts.join(", ")}` : "";
}
