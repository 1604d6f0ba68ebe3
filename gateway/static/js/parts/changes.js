/** What changed in the fleet: status changes, troubles of GPUs that began or ended, and why. */

import { formatTime, milliseconds, percent, zone } from "../format.js";
import { html, memo } from "../preact.js";
import { reasonOf } from "../labels.js";
import { hrefOfAll, wordOf } from "./chips.js";
import { Glyph } from "./glyph.js";

const SHOWN = 30;

export function Changes({ news, query, isUnknown }) {
  return html`<section class="feed" aria-label="What changed" tabindex="0">
    <h2>What changed <span class="quiet">${zone()}</span></h2>
    ${news.length === 0 && html`<p class="quiet">${isUnknown ? "Not known now: storage does not answer." : "Nothing in the last 24 h."}</p>`}
    <ol>${news.slice(0, SHOWN).map((entry) => html`<${Item} key=${entry.key} text=${JSON.stringify(entry)} query=${query} zone=${zone()} />`)}</ol>
  </section>`;
}

/** The hosts of an entry in words: `14 hosts of FRA`. */
export function hostsOf({ ids, place, isAtLeast }) {
  if (ids.length === 1) return ids[0];
  return `${ids.length}${isAtLeast ? " or more" : ""} hosts${place ? ` of ${place}` : ""}`;
}

/** The hosts of an entry; those of one site as a link to it. */
function Hosts({ entry }) {
  const word = entry.place && wordOf("site", entry.place);
  return word ? html`<a href=${hrefOfAll(word)}>${hostsOf(entry)}</a>` : hostsOf(entry);
}

/** `text` is the entry as JSON: one that is made anew and says the same is not drawn again. */
const Item = memo(({ text, query }) => {
  const entry = JSON.parse(text);
  const { ids, tone, kind, at, isSince, subject, before, what, rest } = entry;
  const time = new Date(at).toISOString();
  const to = (id) => `#/agent/${encodeURIComponent(id)}${query ? `?${query}` : ""}`;
  return html`<li class="tone-${tone}" data-kind=${kind}>
    <${Glyph} name=${tone} />
    ${ids.length > 1 ? html`<strong title=${ids.join(", ")}><${Hosts} entry=${entry} /></strong>` : html`<a href=${to(ids[0])}>${ids[0]}</a>`}
    <time datetime=${time}>${isSince ? "since " : ""}${formatTime(time)}</time>
    <span class="what">${subject}${before}<b>${what}</b>${entry.percent != null && `, ${percent(entry.percent)}`}${rest && `${subject && !rest.startsWith(",") ? ": " : rest.startsWith(",") ? "" : ", "}${rest}`}</span>
  </li>`;
});

/** Uptime, response time and reason of an outcome, as far as it has them; begins with a comma. */
export function outcomeDetails(ping) {
  const parts = [];
  if (ping.uptime_percent != null) parts.push(percent(ping.uptime_percent));
  else if (ping.response_ms != null) parts.push(milliseconds(ping.response_ms));
  const why = reasonOf(ping);
  if (why) parts.push(why);
  return parts.length > 0 ? `, ${parts.join(", ")}` : "";
}
