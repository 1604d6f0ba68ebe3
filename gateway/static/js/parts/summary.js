/** The fleet in figures: GPUs first, then uptime, response time, due agents, pings. */

import { isWhole } from "../fleet.js";
import { count, duration, milliseconds, NOTHING, percent, plural, SPACE } from "../format.js";
import { classes, html } from "../preact.js";
import { useNow } from "../store.js";
import { SECONDS } from "../labels.js";
import { Countdown } from "./countdown.js";
import { judgedSeconds } from "./figure.js";
import { Glyph } from "./glyph.js";

export function Summary({ fleet }) {
  return html`<section class="summary" aria-label="The fleet in numbers">
    <${GpusUp} gpus=${fleet.gpus} />
    <${Uptime} fleet=${fleet} />
    <div class="figure">
      <h2>Response time, 24${SPACE}h</h2>
      <p class="big" data-name="p50">${milliseconds(fleet.responseMs.p50)}</p>
      ${fleet.responseMs.p95 != null && html`<p class="note">median; 95 in 100 within <b data-name="p95">${milliseconds(fleet.responseMs.p95)}</b></p>`}
    </div>
    <${Due} fleet=${fleet} />
    <${Pings} fleet=${fleet} />
  </section>`;
}

/** How many GPUs were up at the last ping of their host, and how many hosts have lost all of theirs. */
function GpusUp({ gpus }) {
  const rest = ["degraded", "down", "unknown"].filter((state) => gpus?.[state] > 0);
  const lost = gpus?.hosts_lost_all ?? 0;
  return html`<div class="figure figure-main">
    <h2>GPUs up, at the last ping</h2>
    <p class="big" data-name="gpus-up">${
      gpus ? html`<span class="up">${count(gpus.up)}</span> <span class="of">of ${count(gpus.total)}</span>` : NOTHING
    }</p>
    <p class="note">
      ${lost > 0 && html`<span class="tone-missing lost-all"><${Glyph} name="missing" />${plural(lost, "host")} lost all</span>`}
      ${rest.map((state) => html`<span key=${state} class="key key-${state}">${count(gpus[state])} ${state}</span>`)}
      ${gpus?.total > 0 && rest.length === 0 && lost === 0 && "every GPU of every host"}
      ${gpus?.total === 0 && "no host has reported its GPUs yet"}
    </p>
  </div>`;
}

/** A figure from less than one base interval a host says nothing about a day yet, and says so. */
export function earlyNote(fleet) {
  const judged = judgedSeconds(fleet.uptime?.seconds, fleet.uptime?.unreported_seconds);
  if (fleet.baseSeconds == null || judged >= fleet.baseSeconds * Math.max(1, fleet.total) * 0.98) return "";
  return `too early to tell: judged so far ${duration(judged)}, less than one interval (${duration(fleet.baseSeconds)}) a host`;
}

function Uptime({ fleet }) {
  const { uptime } = fleet;
  const value = percent(uptime?.uptime_percent);
  const early = value === NOTHING ? "" : earlyNote(fleet);
  const isAway = fleet.degraded.includes("storage");
  return html`<div class="figure figure-uptime">
    <h2>Fleet uptime, 24${SPACE}h</h2>
    <p class="trended"><span class=${classes({ big: true, "is-early": early })} data-name="uptime">${value}</span>${!early && html`<${Trend} fleet=${fleet} />`}</p>
    ${early && html`<p class="note early-note" role="note">${early}</p>`}
    ${value === NOTHING && html`<p class="note">${isAway ? (fleet.reasons.storage ?? "storage did not answer") : "known after the second ping of an agent"}</p>`}
    ${value !== NOTHING && html`<${SecondsByState} seconds=${uptime.seconds} unreported=${uptime.unreported_seconds} />`}
    ${value !== NOTHING && html`<${Longer} fleet=${fleet} />`}
  </div>`;
}

/** The uptime of the longer periods, where they hold more than the 24 hours do. */
function Longer({ fleet }) {
  const longer = longerOf(fleet);
  if (longer.length === 0) return null;
  return html`<p class="note longer">${longer.map(
    (sums) => html`<span key=${sums.hours} data-hours=${sums.hours}>${Math.round(sums.hours / 24)} d <b>${percent(sums.uptime_percent)}</b></span>`,
  )}</p>`;
}

function longerOf(fleet) {
  const today = judgedSeconds(fleet.uptime?.seconds, fleet.uptime?.unreported_seconds);
  return fleet.longer.filter((sums) => judgedSeconds(sums.seconds, sums.unreported_seconds) > today + 1);
}

const LEAST_TREND = 0.0005; // points: less does not show in a percentage of three decimals

/** How the 24 hours compare with the 7 days before now, in points. */
function Trend({ fleet }) {
  const week = longerOf(fleet).find((sums) => sums.hours === 168);
  if (week?.uptime_percent == null) return null;
  const by = fleet.uptime.uptime_percent - week.uptime_percent;
  const size = Math.abs(by).toFixed(Math.abs(by) >= 1 ? 1 : 3);
  const words = Math.abs(by) < LEAST_TREND ? "as in the 7 days" : `${size} points ${by > 0 ? "better" : "worse"} than the 7 days`;
  const mark = `${Math.abs(by) < LEAST_TREND ? "=" : `${by > 0 ? "▲" : "▼"}${SPACE}${size}`} against 7${SPACE}d`;
  return html`<span class=${`trend tone-${by < -LEAST_TREND ? "missing" : "healthy"}`} title=${words} data-name="trend"><span aria-hidden="true">${mark}</span><span class="spoken">${words}</span></span>`;
}

/** The seconds by state, as a bar and as text. */
export function SecondsByState({ seconds, unreported = 0 }) {
  const all = { ...seconds, unreported };
  const parts = SECONDS.map(({ name, label }) => ({ name, label, value: all[name] ?? 0 })).filter(
    (part) => part.value > 0,
  );
  const total = parts.reduce((sum, part) => sum + part.value, 0);
  if (total <= 0) return null;
  const words = parts.map((part) => `${duration(part.value)} ${part.label}`);
  return html`<div class="accounted">
    <div class="stack" role="img" aria-label=${words.join(", ")}>
      ${parts.map((part) => html`<i key=${part.name} class="fill-${part.name}" style=${{ flexGrow: part.value / total }}></i>`)}
    </div>
    <p class="note">${parts.map(
      ({ name, label, value }) => html`<span key=${name} class="key key-${name}">${duration(value)} ${label}</span>`,
    )}</p>
  </div>`;
}

function Due({ fleet }) {
  const now = useNow();
  const agents = [...fleet.listed].map((id) => fleet.agents.get(id)).filter(Boolean);
  const times = agents.map((agent) => agent.next_ping_at && Date.parse(agent.next_ping_at)).filter(Boolean);
  const due = isWhole(fleet) ? times.filter((at) => at <= now).length : fleet.due;
  const next = Math.min(...times.filter((at) => at > now));
  return html`<div class="figure">
    <h2>Due now</h2>
    <p class="big" data-name="due">${count(due)}</p>
    <p class="note">${
      Number.isFinite(next)
        ? html`next ping in <b><${Countdown} at=${new Date(next).toISOString()} /></b>`
        : "no ping planned"
    }</p>
  </div>`;
}

function Pings({ fleet }) {
  const verdicts = Object.entries(fleet.uptime?.verdicts ?? {}).filter(([, times]) => times > 0);
  const total = verdicts.reduce((sum, [, times]) => sum + times, 0);
  const isAway = fleet.degraded.includes("storage") && total === 0;
  return html`<div class="figure">
    <h2>Pings, 24${SPACE}h</h2>
    <p class="big" data-name="pings">${isAway ? NOTHING : count(total)}</p>
    <p class="note" title=${`since the beginning: ${count(fleet.totals.pings)}, ${count(fleet.totals.missed)} missed`}>
      ${verdicts.map(([name, times]) => `${count(times)} ${name}`).join(", ") || (isAway ? "not known now" : "none yet")}
    </p>
  </div>`;
}
