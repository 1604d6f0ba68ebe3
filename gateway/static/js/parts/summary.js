/** The fleet in four figures: uptime, response time, due agents, pings. */

import { count, duration, milliseconds, NOTHING, percent } from "../format.js";
import { html } from "../preact.js";
import { useNow } from "../store.js";
import { SECONDS } from "../labels.js";
import { Countdown } from "./countdown.js";

export function Summary({ fleet }) {
  return html`<section class="summary" aria-label="The fleet in numbers">
    <${Uptime} uptime=${fleet.uptime} />
    <div class="figure">
      <h2>Response time, 24 h</h2>
      <p class="big" data-name="p50">${milliseconds(fleet.responseMs.p50)}</p>
      <p class="note">median; 95 in 100 within <b data-name="p95">${milliseconds(fleet.responseMs.p95)}</b></p>
    </div>
    <${Due} fleet=${fleet} />
    <${Pings} fleet=${fleet} />
  </section>`;
}

function Uptime({ uptime }) {
  const value = percent(uptime?.uptime_percent);
  return html`<div class="figure figure-main">
    <h2>Fleet uptime, 24 h</h2>
    <p class="big" data-name="uptime">${value}</p>
    ${
      value === NOTHING
        ? html`<p class="note">known after the second ping of an agent</p>`
        : html`<${SecondsByState} seconds=${uptime.seconds} />`
    }
  </div>`;
}

/** The seconds by state, as a bar and as text. */
export function SecondsByState({ seconds }) {
  const parts = SECONDS.map(({ name, label }) => ({ name, label, value: seconds?.[name] ?? 0 })).filter(
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
  const times = [...fleet.agents.values()]
    .map((agent) => agent.next_ping_at && Date.parse(agent.next_ping_at))
    .filter(Boolean);
  const listsAll = fleet.agents.size >= fleet.total;
  const due = listsAll ? times.filter((at) => at <= now).length : fleet.due;
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
  return html`<div class="figure">
    <h2>Pings, 24 h</h2>
    <p class="big" data-name="pings">${count(total)}</p>
    <p class="note" title=${`since the beginning: ${count(fleet.totals.pings)}, ${count(fleet.totals.missed)} missed`}>
      ${verdicts.map(([name, times]) => `${count(times)} ${name}`).join(", ") || "none yet"}
    </p>
  </div>`;
}
