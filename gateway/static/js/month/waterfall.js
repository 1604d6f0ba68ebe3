/** From 100 % to the figure of the statement: what each cause cost, in points and in money where a rate is set. */

import { count, duration, exactPercent, formatTime, plural, SPACE } from "../format.js";
import { html, useState } from "../preact.js";
import { link } from "../route.js";
import { reason, remark } from "../labels.js";
import { formatPeriod, money, waterfall } from "./model.js";
import { remedy } from "./remedies.js";

const LISTED = 20;

export function Waterfall({ answer, rate }) {
  const figure = answer.host.uptime_percent;
  if (figure == null) return html`<section class="block"><h2>Nothing was judged in this month yet</h2></section>`;
  const steps = waterfall(answer.causes);
  const lowest = Math.min(figure, ...steps.map((step) => step.to));
  const bottom = Math.max(0, lowest - (100 - lowest) * 0.04);
  const scale = (points) => `${(100 * (points - bottom)) / Math.max(1e-9, 100 - bottom)}%`;
  return html`<section class="waterfall" aria-label="Why the figure is what it is">
    <h2>Where the points went <span class="quiet">${steps.length === 0 ? "nothing was lost" : `${points(100 - figure)} lost to ${plural(answer.causes.length, "cause")}; the bars begin at ${exactPercent(bottom)}`}</span></h2>
    <p class="note">A host is up while all its expected GPUs are. While one is down the host counts as down, and the time is charged to that GPU; of several at once, to the first.</p>
    <ol class="falls">
      <li class="fall is-end"><div class="fall-line"><span class="fall-name">Judged time</span><span class="fall-cost"></span><span class="fall-bar" aria-hidden="true"><i class="fill-up" style=${{ left: 0, right: 0 }}></i></span><b>100%</b></div></li>
      ${steps.map((step) => html`<${Fall} key=${keyOf(step.cause)} step=${step} answer=${answer} rate=${rate} scale=${scale} />`)}
      <li class="fall is-end"><div class="fall-line"><span class="fall-name">The statement</span>
        <span class="fall-cost">${rate ? money(answer.judged_seconds * (figure / 100), rate) : ""}</span>
        <span class="fall-bar" aria-hidden="true"><i class="fill-up" style=${{ left: 0, width: scale(figure) }}></i></span>
        <b>${exactPercent(figure)}</b></div></li>
    </ol>
    ${rate && html`<p class="note">At ${rate.rate} ${rate.currency} an hour of uptime, the host's label rate_per_hour.</p>`}
  </section>`;
}

const keyOf = (cause) => (cause.rest ? "rest" : `${cause.gpu} ${cause.state} ${cause.reason}`);

const LEAST_POINTS = 0.0005; // less does not show in three decimals, as figures have them

const points = (value) => `${value.toFixed(3)}${SPACE}points`;

/** What was lost, in points. */
const cost = (value) => (value < LEAST_POINTS ? `< 0.001${SPACE}points` : `−${points(value)}`);

/** Whom a loss is charged to and why, in plain words. */
export function causeWords(cause) {
  if (cause.rest) return `${plural(cause.rest, "more cause")}`;
  const subject = cause.gpu ? `GPU ${cause.index ?? "?"}` : "Host";
  if (cause.state === "unreported") return `Asked and never answered${cause.reason ? `: ${reason(cause.reason)}` : ""}`;
  const why = cause.reason ? remark(cause.reason) || cause.reason : "the report gave no reason";
  return `${subject} ${cause.state}: ${why}`;
}

function Fall({ step, answer, rate, scale }) {
  const [isOpen, setOpen] = useState(false);
  const { cause } = step;
  const tone = cause.rest ? "unknown" : cause.state === "unreported" ? "unreported" : cause.state;
  const fix = cause.rest ? "" : remedy(cause);
  return html`<li class="fall" data-cause=${keyOf(cause)}>
    <details onToggle=${(event) => setOpen(event.target.open)}>
      <summary class="fall-line">
        <span class="fall-name">${causeWords(cause)}<small class="quiet">${cause.losses > 1 ? `${count(cause.losses)} times, ` : ""}${duration(cause.seconds)} in all</small></span>
        <span class="fall-cost">${cost(cause.points)}${rate ? html`<small>−${money(cause.seconds, rate)}</small>` : ""}</span>
        <span class="fall-bar" aria-hidden="true"><i class="fill-${tone}" style=${{ left: scale(step.to), width: `max(3px, calc(${scale(step.from)} - ${scale(step.to)}))` }}></i></span>
        <b>${exactPercent(Math.max(0, step.to))}</b>
      </summary>
      ${isOpen && html`<div class="fall-more">
        ${fix && html`<p class="fix"><strong>What to do.</strong> ${fix}</p>`}
        <${Losses} cause=${cause} answer=${answer} />
      </div>`}
    </details>
  </li>`;
}

/** The single losses of a cause, the longest of them where they are many. */
function Losses({ cause, answer }) {
  const of = answer.losses.filter((loss) => !cause.rest && keyOf(loss) === keyOf(cause));
  const shown = [...of].sort((one, other) => other.seconds - one.seconds).slice(0, LISTED);
  if (shown.length === 0) return null;
  return html`<ul class="losses">${shown.map(
    (loss) => html`<li key=${loss.since}><a href=${link({ period: around(loss) })}>${formatTime(loss.since)} to ${formatTime(loss.until)}</a>
      <span>${duration(loss.seconds)}</span><span>${cost(loss.points)}</span></li>`,
  )}</ul>
  ${cause.losses > shown.length && html`<p class="note">The ${count(shown.length)} longest of ${count(cause.losses)}.</p>`}`;
}

/** A period around a loss, with some time before and after it. */
function around({ since, until }) {
  const [begin, end] = [Date.parse(since), Date.parse(until)];
  const margin = Math.max(120_000, (end - begin) * 0.6);
  return formatPeriod({ since: begin - margin, until: end + margin });
}
