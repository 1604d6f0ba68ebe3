/** What changed in the fleet: outcomes of another kind than the one before, and why. */

import { grouped } from "../grouping.js";
import { formatTime, milliseconds, percent, zone } from "../format.js";
import { html, memo } from "../preact.js";
import { BEATS, outcomeKind, reasonOf } from "../labels.js";
import { Glyph } from "./glyph.js";

const SHOWN = 30;

export function Changes({ changes, query, isUnknown }) {
  const groups = grouped(changes).slice(0, SHOWN);
  return html`<section class="feed" aria-label="What changed">
    <h2>What changed <span class="quiet">${zone()}</span></h2>
    ${groups.length === 0 && html`<p class="quiet">${isUnknown ? "Not known now: storage does not answer." : "Nothing in the last 24 h."}</p>`}
    <ol>${groups.map((group) => html`<${Item} key=${keyOf(group)} change=${group[0]} many=${group.length > 1 ? group : null} query=${query} />`)}</ol>
  </section>`;
}

const keyOf = ([{ ping }]) => `${ping.agent_id} ${ping.ping_seq}`;

const Item = memo(({ change, many, query }) => {
  const { ping, previous } = change;
  const kind = outcomeKind(ping);
  const since = many ? many.at(-1).ping : ping;
  const to = (id) => `#/agent/${encodeURIComponent(id)}${query ? `?${query}` : ""}`;
  return html`<li class="tone-${kind}" data-kind=${kind}>
    <${Glyph} name=${kind} />
    ${
      many
        ? html`<strong title=${many.map((other) => other.ping.agent_id).join(", ")}>${many.length} agents</strong>`
        : html`<a href=${to(ping.agent_id)}>${ping.agent_id}</a>`
    }
    <time datetime=${since.pinged_at}>${many ? "since " : ""}${formatTime(since.pinged_at)}</time>
    <span class="what">${previous && html`${BEATS[previous]} → `}<b>${BEATS[kind]}</b>${many ? reasonText(ping) : outcomeDetails(ping)}</span>
  </li>`;
});

function reasonText(ping) {
  const why = reasonOf(ping);
  return why ? `, ${why}` : "";
}

/** Uptime, response time and reason of an outcome, as far as it has them; begins with a comma. */
export function outcomeDetails(ping) {
  const parts = [];
  if (ping.uptime_percent != null) parts.push(percent(ping.uptime_percent));
  else if (ping.response_ms != null) parts.push(milliseconds(ping.response_ms));
  const why = reasonOf(ping);
  if (why) parts.push(why);
  return parts.length > 0 ? `, ${parts.join(", ")}` : "";
}
