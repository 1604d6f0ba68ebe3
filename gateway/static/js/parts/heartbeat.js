/**
 * The last outcomes of an agent, one bar for each, the newest on the right.
 *
 * The shapes differ without colour: good is a full bar, poor is filled up to its uptime, missed is hollow, excused is
 * dashed, the first ping is short. A ping_seq without a known outcome leaves a gap.
 */

import { BEATS_SHOWN } from "../fleet.js";
import { duration, formatFullTime, milliseconds, percent, plural } from "../format.js";
import { html, memo, useEffect, useRef, useState } from "../preact.js";
import { BEATS, gpuNotes, outcomeKind, reason, remark } from "../labels.js";
import { showTooltip } from "./tooltip.js";

const SLOT = 6;
const BAR = 4;
const HEIGHT = 28;

const box = (x, y, height) => `M${x} ${y}h${BAR}v${height}h${-BAR}z`;

function shape(ping, x) {
  switch (outcomeKind(ping)) {
    case "poor": {
      const filled = Math.max(3, (HEIGHT * (ping.uptime_percent ?? 0)) / 100);
      return { poor: box(x, HEIGHT - filled, filled), rest: box(x, 0, HEIGHT - filled) };
    }
    case "missed":
      return {
        missed: box(x + 0.5, 0.5, HEIGHT - 1)
          .replaceAll(`h${BAR}`, `h${BAR - 1}`)
          .replaceAll(`h${-BAR}`, `h${1 - BAR}`),
      };
    case "excused":
      return { excused: [0, 11, 22].map((y) => box(x, y, 6)).join("") };
    case "first":
      return { first: box(x, HEIGHT - 11, 11) };
    default:
      return { good: box(x, 0, HEIGHT) };
  }
}

/** One path for all bars of a kind: far fewer elements than one for each bar. */
function paths(pings, newest) {
  const all = {};
  const xOf = (seq) => (BEATS_SHOWN - 1 - (newest - seq)) * SLOT + 1;
  const known = new Set(pings.map((ping) => ping.ping_seq));
  for (const ping of pings) {
    for (const [kind, d] of Object.entries(shape(ping, xOf(ping.ping_seq)))) all[kind] = (all[kind] ?? "") + d;
  }
  for (let seq = newest; seq > newest - BEATS_SHOWN; seq -= 1) {
    if (!known.has(seq)) all.none = (all.none ?? "") + box(xOf(seq), HEIGHT - 3, 3);
  }
  return all;
}

export function summary(pings) {
  if (pings.length === 0) return "no outcome yet";
  const counts = new Map();
  for (const ping of pings) counts.set(outcomeKind(ping), (counts.get(outcomeKind(ping)) ?? 0) + 1);
  const parts = [...counts].map(([kind, times]) => `${times} ${BEATS[kind]}`);
  return `last ${plural(pings.length, "outcome")}: ${parts.join(", ")}`;
}

function reasonLines(ping) {
  const lines = [reason(ping.reason), ...gpuNotes(ping), ...(ping.remarks ?? []).map(remark)];
  return [...new Set(lines.filter(Boolean))];
}

export function BeatNote({ ping }) {
  const kind = outcomeKind(ping);
  const window = ping.window_seconds ? ` of ${duration(ping.window_seconds)}` : "";
  return html`<div>
    <strong class="tone-${kind}">${BEATS[kind]}</strong> <span class="quiet">#${ping.ping_seq}</span>
    <div>${formatFullTime(ping.pinged_at)}</div>
    ${ping.uptime_percent != null && html`<div>uptime ${percent(ping.uptime_percent)}${window}</div>`}
    ${ping.response_ms != null && html`<div>answered in ${milliseconds(ping.response_ms)}</div>`}
    ${reasonLines(ping).map((line) => html`<div key=${line}>${line}</div>`)}
  </div>`;
}

/** They move one on with a new outcome. A row that only came onto the screen stands still: moving costs every frame. */
export const Heartbeat = memo(({ pings }) => {
  const newest = pings[0]?.ping_seq ?? 0;
  const all = paths(pings, newest);
  const element = useRef();
  const first = useRef(newest);
  first.current ||= newest;
  const read = useReading(element, pings);
  const slotOf = (seq) => BEATS_SHOWN - 1 - (newest - seq);
  const show = (seq, area) => {
    const ping = pings.find((other) => other.ping_seq === seq);
    showTooltip(ping && html`<${BeatNote} ping=${ping} />`, area.left + ((slotOf(seq) + 0.5) / BEATS_SHOWN) * area.width, area.top);
  };
  useEffect(() => {
    if (read != null) show(read, element.current.getBoundingClientRect());
  }, [read]);
  const point = (event) => {
    const area = event.currentTarget.getBoundingClientRect();
    const slot = Math.floor(((event.clientX - area.left) / area.width) * BEATS_SHOWN);
    show(newest - (BEATS_SHOWN - 1 - slot), area);
  };
  return html`<svg
    ref=${element} class="beats" role="img" aria-label=${summary(pings)} data-newest=${newest}
    viewBox="0 0 ${BEATS_SHOWN * SLOT} ${HEIGHT}" preserveAspectRatio="none"
    onPointerMove=${point} onPointerLeave=${() => showTooltip(null)}
  >
    <g key=${newest} class=${newest === first.current ? "" : "beats-moving"}>
      ${Object.keys(all).map((kind) => html`<path key=${kind} class="beat-${kind}" d=${all[kind]} />`)}
    </g>
    ${read != null && html`<rect class="beat-read" x=${slotOf(read) * SLOT} y="0" width=${SLOT} height=${HEIGHT} />`}
  </svg>`;
});

/** The number of the outcome that is read by the arrow keys; null while none is. It ends when the focus leaves the row. */
function useReading(element, pings) {
  const [read, setRead] = useState(null);
  useEffect(() => {
    const step = ({ detail: by }) =>
      setRead((seq) => {
        const known = pings.map((ping) => ping.ping_seq); // newest first
        const at = known.indexOf(seq);
        return known[at < 0 ? 0 : Math.min(known.length - 1, Math.max(0, at - by))] ?? null;
      });
    const row = element.current.closest(".row");
    const leave = () => {
      setRead(null);
      showTooltip(null);
    };
    element.current.addEventListener("beatstep", step);
    row?.addEventListener("focusout", leave);
    return () => {
      element.current?.removeEventListener("beatstep", step);
      row?.removeEventListener("focusout", leave);
    };
  }, [pings]);
  return read;
}
