/** The page of one agent's month: what the statement says, and why. */

import * as api from "../api.js";
import { asSentence } from "../api.js";
import { count, duration, exactPercent, formatFullTime, formatTime, nameOfMonth, zone } from "../format.js";
import { html, useEffect, useRef, useState } from "../preact.js";
import { link } from "../route.js";
import { Figure } from "../parts/figure.js";
import { Icon } from "../parts/glyph.js";
import { useBookings } from "../parts/maintenance.js";
import { useZone } from "../zone.js";
import { Calendar } from "./calendar.js";
import { monthBeside, monthBounds, parsePeriod, rateOf } from "./model.js";
import { TimelinePart } from "./timeline.js";
import { Waterfall } from "./waterfall.js";

export function MonthPage({ route, returns }) {
  const { agent: id, month } = route;
  useZone();
  const { answer, problem } = useExplanation(id, month, returns);
  const registered = useRegistered(id, returns);
  const { bookings } = useBookings(id, returns);
  const bounds = monthBounds(month);
  const shown = parsePeriod(route.period, bounds) ?? bounds;
  const title = useRef();
  // whoever comes from far below in the list begins at the top, and a reader with the host's name
  useEffect(() => title.current.focus(), []);
  return html`<main class="month" aria-busy=${!answer && !problem}>
    <header class="month-head">
      <div>
        <p class="crumbs"><a href=${link({ agent: null, month: null, period: null })}>Fleet</a> / <a href=${link({ month: null, period: null })}>${id}</a></p>
        <h1 tabindex="-1" ref=${title}>${id}</h1>
        <nav class="month-steps" aria-label="Month">
          <a class="plain" href=${link({ month: monthBeside(month, -1), period: null })} aria-label="The month before"><${Icon} name="left" /></a>
          <h2>${nameOfMonth(month)}</h2>
          <a class="plain" href=${link({ month: monthBeside(month, 1), period: null })} aria-label="The month after"><${Icon} name="right" /></a>
        </nav>
      </div>
      ${answer && html`<${Head} answer=${answer} />`}
    </header>
    ${problem && html`<p class="trouble is-bad" role="alert">${asSentence(problem)}</p>`}
    ${!answer && !problem && html`<div class="loading"><i></i><i></i><i></i></div>`}
    ${answer && html`<${Facts} answer=${answer} />`}
    ${answer?.conflicts?.length > 0 && html`<p class="problem" role="alert">Two agents answered in turn under this id, so that these figures mix both: ${answer.conflicts.map(({ since, until }) => `${formatTime(since)} to ${formatTime(until)}`).join("; ")}.</p>`}
    ${answer && html`<${Waterfall} answer=${answer} rate=${rateOf(registered)} shown=${shown} />`}
    ${
      answer &&
      html`<div class="month-columns">
        <${Calendar} answer=${answer} shown=${shown} bounds=${bounds} bookings=${bookings} />
        <${TimelinePart} id=${id} answer=${answer} shown=${shown} bounds=${bounds} returns=${returns} bookings=${bookings} />
      </div>`
    }
    ${answer && html`<${Links} id=${id} month=${month} answer=${answer} />`}
  </main>`;
}

const AGAIN_MS = 3_000;

/** `{ answer, problem }`: asked anew for each month, after each return of the gateway, and until storage can answer. */
function useExplanation(id, month, returns) {
  const [attempt, setAttempt] = useState(0);
  const [state, setState] = useState({ answer: null, problem: null, of: "" });
  const of = `${id} ${month}`;
  useEffect(() => {
    let isWanted = true;
    let timer = null;
    api.explanation(id, month).then(
      (answer) => isWanted && setState({ answer, problem: null, of }),
      (error) => {
        if (!isWanted) return;
        setState((before) => ({ answer: before.of === of ? before.answer : null, problem: error.message, of }));
        if (isPassing(error)) timer = setTimeout(() => setAttempt(attempt + 1), AGAIN_MS);
      },
    );
    return () => {
      isWanted = false;
      clearTimeout(timer);
    };
  }, [id, month, returns, attempt]);
  return state.of === of ? state : { answer: null, problem: null };
}

/** Whether a failure is of the moment: the gateway or storage does not answer, or is busy. */
const isPassing = ({ status }) => status === 0 || status === 429 || status >= 500;

function useRegistered(id, returns) {
  const [agent, setAgent] = useState(null);
  useEffect(() => {
    let isWanted = true;
    api.agent(id).then(
      (answer) => isWanted && setAgent(answer),
      () => {}, // a removed agent has a past all the same
    );
    return () => {
      isWanted = false;
    };
  }, [id, returns]);
  return agent;
}

function Head({ answer }) {
  return html`<div class="month-figure">
    <b data-name="month-uptime"><${Figure} percent=${answer.host.uptime_percent} rests=${answer.judged_seconds} show=${exactPercent} /></b>
    <span class="quiet">uptime of the statement, ${answer.final ? "final" : "provisional"}</span>
  </div>`;
}

function Facts({ answer }) {
  const { host } = answer;
  const coverage = host.coverage_percent;
  return html`<dl class="facts month-facts">
    <div><dt>Enrolled</dt><dd>${duration(answer.enrolled_seconds)}</dd><dd class="note">${formatFullTime(answer.since)} to ${formatFullTime(answer.until)}</dd></div>
    <div><dt>Judged</dt><dd>${duration(answer.judged_seconds)}</dd><dd class="note">${host.seconds.excused > 0 ? `${duration(host.seconds.excused)} excused` : "nothing excused"}</dd></div>
    <div><dt>Covered by reports</dt><dd>${exactPercent(coverage)}</dd></div>
    <div><dt>Pings</dt><dd>${count(answer.pings)}</dd><dd class="note">${count(answer.missed)} missed, ${count(answer.excused)} excused</dd></div>
    <div><dt>GPUs</dt><dd>${count(answer.gpus.length)}${answer.simulated ? ", simulated" : ""}</dd>${answer.by_http && html`<dd class="note">asked by HTTP: reports are not signed</dd>`}</div>
  </dl>`;
}

function Links({ id, month, answer }) {
  const hours = Math.min(87_600, Math.max(1, Math.ceil((Date.parse(answer.generated_at) - monthBounds(month).since) / 3_600_000)));
  return html`<footer class="month-links">
    <a href=${api.statementLink(id, month, "html")}>The statement, to print</a>
    <a href=${api.statementLink(id, month, "csv")} download>CSV</a>
    <a href=${api.statementLink(id, month, "parquet")} download>Parquet</a>
    <a href=${api.statementLink(id, month, "json")}>JSON</a>
    <a href=${api.evidenceLink(id, hours)}>Evidence: the reports as the host signed them</a>
    <span class="quiet">Months and days are those of UTC, as in statements; times are shown in ${zone()}.</span>
  </footer>`;
}

