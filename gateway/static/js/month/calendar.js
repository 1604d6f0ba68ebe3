/** The days of a month, each with its uptime and its seconds by state. A day zooms the timeline to itself. */

import { bookedWords } from "../bookings.js";
import { duration, plural } from "../format.js";
import { classes, html } from "../preact.js";
import { link } from "../route.js";
import { SECONDS } from "../labels.js";
import { formatPeriod, weeksOf } from "./model.js";

const WEEKDAYS = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"];
const DAY_MS = 86_400_000;

export function Calendar({ answer, shown, bounds, bookings }) {
  const isWhole = shown.since === bounds.since && shown.until === bounds.until;
  return html`<section class="calendar" aria-label="Days">
    <h2>Days <span class="quiet">of UTC</span></h2>
    <table>
      <thead><tr>${WEEKDAYS.map((name) => html`<th key=${name} scope="col">${name}</th>`)}</tr></thead>
      <tbody>${weeksOf(answer.days).map(
        (week) => html`<tr key=${week.find(Boolean).day}>${week.map(
          (day, at) => html`<td key=${at}>${day && html`<${Day} day=${day} shown=${shown} bookings=${bookings} />`}</td>`,
        )}</tr>`,
      )}</tbody>
    </table>
    <p class="note"><a href=${link({ period: null })} aria-current=${isWhole ? "true" : undefined}>the whole month</a></p>
  </section>`;
}

function Day({ day, shown, bookings }) {
  const since = Date.parse(`${day.day}T00:00:00Z`);
  const isShown = shown.since === since && shown.until === since + DAY_MS;
  const all = { ...day.seconds, unreported: day.unreported_seconds };
  const parts = SECONDS.filter(({ name }) => all[name] > 0);
  const words = parts.map(({ name, label }) => `${duration(all[name])} ${label}`).join(", ");
  const pings = `${plural(day.pings, "ping")}${day.missed > 0 ? `, ${day.missed} missed` : ""}`;
  const booked = bookedWords(bookings, since, since + DAY_MS);
  const uptime = day.uptime_percent;
  const tone = uptime == null ? "pending" : uptime >= 99 ? "good" : uptime >= 90 ? "poor" : "missed";
  return html`<a
    class=${classes({ day: true, [`tone-${tone}`]: true, "is-shown": isShown })}
    href=${link({ period: formatPeriod({ since, until: since + DAY_MS }) })} data-day=${day.day}
    title=${`${words || "nothing reported"}; ${pings}${booked ? `; maintenance: ${booked}` : ""}`}
  >
    <span class="day-number">${Number(day.day.slice(8))}</span>
    <b>${uptime == null ? "" : shortPercent(uptime)}</b>
    <span class="spoken">${uptime == null ? "nothing judged" : "percent"}${words ? `; ${words}` : ""}; ${pings}${booked ? `; maintenance: ${booked}` : ""}</span>
    ${booked && html`<i class="is-booked" aria-hidden="true"></i>`}
    <span class="stack" aria-hidden="true">${parts.map(
      ({ name }) => html`<i key=${name} class="fill-${name}" style=${{ flexGrow: all[name] / DAY_SECONDS }}></i>`,
    )}</span>
  </a>`;
}

const DAY_SECONDS = DAY_MS / 1000;

/** At most four figures, cut and never rounded up. */
function shortPercent(value) {
  if (value >= 100) return "100";
  return (Math.floor(value * 100 + 1e-9) / 100).toFixed(2);
}
