/** The history of an agent as a table that grows on request. */

import { exportLink } from "../api.js";
import { count, duration, milliseconds, formatTime, percent, plural } from "../format.js";
import { html, memo, useEffect, useState } from "../preact.js";
import { BEATS, outcomeKind, reasonOf } from "../labels.js";
import { Glyph } from "./glyph.js";
import { SecondsByState } from "./summary.js";

const STEP = 25;
const COLUMNS = ["Time", "Outcome", "Uptime", "Answered in", "Next after"];

/** `series` has the sums of the period, `outcomes` its pings; `hours` reach from now back to its beginning. */
export function Outcomes({ id, outcomes, hours, period, series }) {
  const [shown, setShown] = useState(STEP);
  useEffect(() => setShown(STEP), [id, period.text]);
  const { pings, lost, problem, more } = outcomes;
  const sums = series.answer?.text === period.text ? series.answer : null;
  const next = () => {
    setShown(shown + 4 * STEP);
    if (more && shown + 4 * STEP > pings.length) more();
  };
  const nothing = outcomes.isLoading ? "Reading the history." : "Nothing in this period.";
  const hasMore = shown < pings.length || more;
  return html`<section class="block" aria-label="History">
    <h2>History <span class="quiet">${sums ? `${plural(sums.pings, "ping")}, ${count(sums.missed)} missed` : ""}</span></h2>
    ${problem && html`<p class="problem" role="alert">${problem.message}</p>`}
    ${sums && html`<${SecondsByState} seconds=${sums.seconds} unreported=${sums.unreported_seconds} />`}
    ${lost > 0 && html`<p class="problem">${plural(lost, "outcome")} of ${period.isOpen ? "this period" : "the time since its beginning"} never reached history.</p>`}
    ${pings.length === 0 && !problem && html`<p class="quiet">${nothing}</p>`}
    ${
      pings.length > 0 &&
      html`<div class="scroller" tabindex="0" role="region" aria-label="Outcomes, newest first"><table class="outcomes">
      <thead><tr>${COLUMNS.map((name) => html`<th key=${name} scope="col">${name}</th>`)}</tr></thead>
      <tbody>${pings.slice(0, shown).map((ping) => html`<${Line} key=${ping.ping_seq} ping=${ping} />`)}</tbody>
    </table></div>`
    }
    <p class="after">
      ${hasMore && html`<button type="button" onClick=${next}>Show more</button>`}
      <a href=${exportLink(id, hours, "csv")} download>CSV</a> <a href=${exportLink(id, hours, "parquet")} download>Parquet</a>
      ${!period.isOpen && html`<span class="quiet">from the beginning of the period until now</span>`}
    </p>
  </section>`;
}

const Line = memo(({ ping }) => {
  const kind = outcomeKind(ping);
  const why = reasonOf(ping);
  const level = ping.consecutive_poor_uptime;
  return html`<tr>
    <td><time datetime=${ping.pinged_at}>${formatTime(ping.pinged_at)}</time></td>
    <td class="tone-${kind}"><${Glyph} name=${kind} />${BEATS[kind]}${why && html`<span class="quiet">${why}</span>`}</td>
    <td title=${ping.window_seconds ? `of ${duration(ping.window_seconds)}` : undefined}>${percent(ping.uptime_percent)}</td>
    <td>${milliseconds(ping.response_ms)}</td>
    <td>${duration(ping.interval_minutes * 60)}${level > 0 && html`<span class="quiet">×${level}</span>`}</td>
  </tr>`;
});
