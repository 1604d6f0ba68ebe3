/** When each GPU was in which state: one row for the host and one a GPU, from the month down to a single ping. */

import * as api from "../api.js";
import { axisLabel, duration, formatFullTime, formatTime, percent, plural, zone, zoneOffset } from "../format.js";
import { html, memo, useEffect, useRef, useState } from "../preact.js";
import { go, link } from "../route.js";
import { BEATS, outcomeKind, reason, remark, SECONDS } from "../labels.js";
import { showTooltip } from "../parts/tooltip.js";
import { axisMarks, formatPeriod, intervalSteps, moved, rowPaths, STATES, stretchAt, zoomed } from "./model.js";

const POINTS = 500;
const WIDTH = 1000;
const HEIGHT = 20;
const AGAIN_MS = 3_000;

const show = (period) => go({ period: formatPeriod(period) });

export function TimelinePart({ id, answer, shown, bounds, returns, bookings }) {
  const { timeline, problem } = useTimeline(id, shown, returns);
  const isWhole = shown.since === bounds.since && shown.until === bounds.until;
  return html`<section class="timeline" aria-label="Timeline of each GPU">
    <div class="block-head">
      <h2>Timeline <span class="quiet">${formatFullTime(shown.since)} to ${formatFullTime(shown.until)}</span></h2>
      <div class="periods" role="group" aria-label="Zoom">
        <button type="button" disabled=${isWhole} onClick=${() => show(moved(shown, -0.5, bounds))} aria-label="Earlier">←</button>
        <button type="button" disabled=${isWhole} onClick=${() => show(zoomed(shown, 3, bounds))} aria-label="Zoom out">−</button>
        <button type="button" onClick=${() => show(zoomed(shown, 1 / 3, bounds))} aria-label="Zoom in">+</button>
        <button type="button" disabled=${isWhole} onClick=${() => show(moved(shown, 0.5, bounds))} aria-label="Later">→</button>
      </div>
    </div>
    ${problem && html`<p class="problem" role="alert">The timeline could not be read: ${problem}</p>`}
    <${Rows} timeline=${timeline} answer=${answer} shown=${shown} bounds=${bounds} bookings=${bookings} />
    <p class="note">${SECONDS.map(({ name, label }) => html`<span key=${name} class="key key-${name}">${label}</span>`)}</p>
    <p class="note">Drag over a part to zoom into it; arrows, + and − do the same by keyboard. ${isWhole ? "" : html`<a href=${link({ period: null })}>The whole month</a>`} Times: ${zone()}.</p>
  </section>`;
}

/** The timeline of a period; what was drawn before stays until the next one is there. */
function useTimeline(id, { since, until }, returns) {
  const [attempt, setAttempt] = useState(0);
  const [state, setState] = useState({ timeline: null, problem: null });
  useEffect(() => {
    let isWanted = true;
    let timer = null;
    const query = { since: new Date(since).toISOString(), until: new Date(until).toISOString(), points: POINTS };
    api.timeline(id, query).then(
      (timeline) => isWanted && setState({ timeline, problem: null }),
      (error) => {
        if (!isWanted) return;
        setState((before) => ({ ...before, problem: error.message }));
        if (error.status === 0 || error.status >= 500) timer = setTimeout(() => setAttempt(attempt + 1), AGAIN_MS);
      },
    );
    return () => {
      isWanted = false;
      clearTimeout(timer);
    };
  }, [id, since, until, returns, attempt]);
  return state;
}

function Rows({ timeline, answer, shown, bounds, bookings }) {
  const area = useRef();
  const [drag, setDrag] = useState(null); // two shares of the width
  const [width, setWidth] = useState(700);
  useEffect(() => {
    const observer = new ResizeObserver(([entry]) => setWidth(entry.contentRect.width));
    observer.observe(area.current);
    return () => observer.disconnect();
  }, []);
  const shareOf = (event) => {
    const box = area.current.querySelector(".lane").getBoundingClientRect();
    return Math.min(1, Math.max(0, (event.clientX - box.left) / box.width));
  };
  const press = (event) => {
    if (event.button !== 0 || event.pointerType === "touch") return;
    const begin = shareOf(event);
    setDrag([begin, begin]);
    area.current.setPointerCapture?.(event.pointerId);
  };
  const release = () => {
    if (!drag) return;
    const [from, to] = [...drag].sort((one, other) => one - other);
    setDrag(null);
    const length = shown.until - shown.since;
    if (to - from > 0.006) show({ since: shown.since + from * length, until: shown.since + to * length });
  };
  const key = (event) => {
    const next = {
      "+": () => zoomed(shown, 1 / 3, bounds),
      "=": () => zoomed(shown, 1 / 3, bounds),
      "-": () => zoomed(shown, 3, bounds),
      ArrowLeft: () => moved(shown, -0.25, bounds),
      ArrowRight: () => moved(shown, 0.25, bounds),
    }[event.key];
    if (!next) return;
    event.preventDefault();
    show(next());
  };
  const marks = axisMarks(shown, Math.max(3, Math.floor(width / 92)), zoneOffset(shown.since));
  const placeOf = (at) => `${((100 * (at - shown.since)) / (shown.until - shown.since)).toFixed(3)}%`;
  return html`<div
    class="lanes" ref=${area} tabindex="0" role="group" aria-label="Timeline; arrows move it, + and − zoom"
    onKeyDown=${key} onPointerDown=${press} onPointerUp=${release}
    onPointerMove=${(event) => drag && setDrag([drag[0], shareOf(event)])}
  >
    ${timeline?.rows.map((row) => html`<${Lane} key=${row.gpu ?? "host"} row=${row} timeline=${timeline} />`)}
    ${timeline && timeline.rows.length === 0 && html`<p class="quiet">No ping in this period.</p>`}
    ${timeline && html`<${Booked} bookings=${bookings} timeline=${timeline} />`}
    ${timeline && html`<${Pings} timeline=${timeline} />`}
    <${Staircase} answer=${answer} shown=${shown} />
    <div class="lane-name"></div>
    <div class="lane axis">${marks.times.map(
      (at) => html`<span key=${at} style=${{ left: placeOf(at) }}>${axisLabel(at, marks.step)}</span>`,
    )}</div>
    ${drag && html`<div class="drag-box"><i style=${{ left: `${100 * Math.min(...drag)}%`, width: `${100 * Math.abs(drag[1] - drag[0])}%` }}></i></div>`}
  </div>`;
}

const lengthOf = (timeline) => (Date.parse(timeline.until) - Date.parse(timeline.since)) / 1000;

const Lane = memo(({ row, timeline }) => {
  const seconds = lengthOf(timeline);
  const paths = rowPaths(row.stretches, seconds, WIDTH, HEIGHT);
  const name = row.gpu ? `GPU ${row.index ?? "?"}` : "Host";
  const point = (event) => {
    const box = event.currentTarget.getBoundingClientRect();
    const at = ((event.clientX - box.left) / box.width) * seconds;
    const stretch = stretchAt(row.stretches, at, (2 * seconds) / box.width);
    showTooltip(stretch && html`<${StretchNote} name=${name} stretch=${stretch} begin=${Date.parse(timeline.since)} />`, event.clientX, box.top);
  };
  return html`
    <div class="lane-name" title=${row.gpu ? `${row.name} ${row.gpu}` : undefined}>${name}</div>
    <svg class="lane" role="img" aria-label=${`${name}: ${spoken(row)}`} viewBox="0 0 ${WIDTH} ${HEIGHT}" preserveAspectRatio="none"
      data-row=${row.gpu ? row.index : "host"} data-stretches=${row.stretches.length}
      onPointerMove=${point} onPointerLeave=${() => showTooltip(null)}>
      ${STATES.map((state) => html`<path key=${state} class="state-${state}" d=${paths[state]} />`)}
    </svg>`;
});

/** What a row says, for those who do not see it. */
function spoken(row) {
  const sums = SECONDS.map(({ name, label }) => [label, row.stretches.reduce((sum, one) => sum + (one[name] ?? 0), 0)]);
  return sums.filter(([, value]) => value > 0).map(([label, value]) => `${duration(value)} ${label}`).join(", ");
}

function StretchNote({ name, stretch, begin }) {
  const at = (seconds) => formatTime(new Date(begin + seconds * 1000).toISOString());
  const parts = SECONDS.filter(({ name: state }) => stretch[state] > 0);
  const reasons = (stretch.reasons ?? []).map((code) => remark(code) || reason(code)).filter(Boolean);
  return html`<div>
    <div>${name}, ${at(stretch.begin_seconds)} to ${at(stretch.end_seconds)}</div>
    ${parts.map(({ name: state, label }) => html`<div key=${state}><strong>${duration(stretch[state])} ${label}</strong></div>`)}
    ${reasons.map((text) => html`<div key=${text}>${text}</div>`)}
  </div>`;
}

/** Maintenance that was booked: its time is excused. */
function Booked({ bookings, timeline }) {
  const [since, until] = [Date.parse(timeline.since), Date.parse(timeline.until)];
  const within = bookings.filter((one) => Date.parse(one.since) < until && Date.parse(one.until) > since);
  if (within.length === 0) return null;
  const share = (at) => (100 * (Math.min(until, Math.max(since, Date.parse(at))) - since)) / (until - since);
  return html`<div class="lane-name">Booked</div>
    <div class="lane booked">${within.map(
      (one) => html`<i key=${one.booking_id} style=${{ left: `${share(one.since)}%`, width: `max(3px, ${share(one.until) - share(one.since)}%)` }}
        title=${`Maintenance, ${formatTime(one.since)} to ${formatTime(one.until)}: ${one.reason}`}></i>`,
    )}</div>`;
}

/** A mark for each ping, once they are few enough to tell apart. */
function Pings({ timeline }) {
  if (timeline.pings.length === 0) {
    return html`<div class="lane-name">Pings</div><div class="lane quiet pings-many">${plural(timeline.pings_total, "ping")}; zoom in to see each</div>`;
  }
  const since = Date.parse(timeline.since);
  const seconds = lengthOf(timeline);
  const point = (event) => {
    const box = event.currentTarget.getBoundingClientRect();
    const at = since + ((event.clientX - box.left) / box.width) * seconds * 1000;
    const away = (ping) => Math.abs(Date.parse(ping.at) - at);
    const ping = timeline.pings.reduce((nearest, other) => (away(other) < away(nearest) ? other : nearest));
    showTooltip(html`<${PingNote} ping=${ping} />`, box.left + ((Date.parse(ping.at) - since) / 1000 / seconds) * box.width, box.top);
  };
  return html`<div class="lane-name">Pings</div>
    <svg class="lane ping-marks" role="img" aria-label=${plural(timeline.pings.length, "ping")} data-pings=${timeline.pings.length}
      viewBox="0 0 ${WIDTH} ${HEIGHT}" preserveAspectRatio="none" onPointerMove=${point} onPointerLeave=${() => showTooltip(null)}>
      ${Object.keys(BEATS).map((kind) => html`<path key=${kind} class="tone-${kind} ping-mark" d=${marksOf(timeline.pings, kind, since, seconds)} />`)}
    </svg>`;
}

function marksOf(pings, kind, since, seconds) {
  return pings
    .filter((ping) => outcomeKind(ping) === kind)
    .map((ping) => {
      const x = (((Date.parse(ping.at) - since) / 1000 / seconds) * WIDTH).toFixed(2);
      return kind === "missed" || kind === "poor" ? `M${x} 1V${HEIGHT - 1}` : `M${x} 7V${HEIGHT - 3}`;
    })
    .join("");
}

function PingNote({ ping }) {
  const why = reason(ping.reason);
  return html`<div>
    <div>ping ${ping.ping_seq}, ${formatFullTime(ping.at)}</div>
    <div><strong>${BEATS[outcomeKind(ping)]}${ping.uptime_percent == null ? "" : `, ${percent(ping.uptime_percent)}`}</strong></div>
    ${why && html`<div>${why}</div>`}
  </div>`;
}

/** How often the host was pinged: a step up is an escalation, a step down a recovery. */
function Staircase({ answer, shown }) {
  const steps = intervalSteps(answer.steps, shown, Date.parse(answer.until));
  if (steps.length === 0) return null;
  const highest = Math.max(...steps.map((step) => step.minutes));
  const lowest = Math.min(...steps.map((step) => step.minutes));
  const high = (minutes) => (highest === lowest ? 30 : 34 - (28 * Math.log(minutes / lowest)) / Math.log(highest / lowest));
  const x = (at) => ((WIDTH * (at - shown.since)) / (shown.until - shown.since)).toFixed(2);
  const path = steps.map((step, at) => `${at === 0 ? "M" : "L"}${x(step.from)} ${high(step.minutes).toFixed(2)}H${x(step.to)}`).join("");
  const point = (event) => {
    const box = event.currentTarget.getBoundingClientRect();
    const at = shown.since + ((event.clientX - box.left) / box.width) * (shown.until - shown.since);
    const step = steps.find(({ from, to }) => at >= from && at < to);
    showTooltip(step && html`<div>pinged every <strong>${duration(step.minutes * 60)}</strong>${step.level > 0 ? `, after ${plural(step.level, "poor ping")} in a row` : ""}<div>since ${formatFullTime(step.from)}</div></div>`, event.clientX, box.top);
  };
  const range = highest === lowest ? duration(highest * 60) : `${duration(lowest * 60)} to ${duration(highest * 60)}`;
  return html`<div class="lane-name lane-stairs-name">Interval<small>${range}</small></div>
    <svg class="lane lane-stairs" role="img" aria-label=${`Interval between pings: ${range}`} viewBox="0 0 ${WIDTH} 38" preserveAspectRatio="none"
      onPointerMove=${point} onPointerLeave=${() => showTooltip(null)}>
      <path d=${path} />
    </svg>`;
}
