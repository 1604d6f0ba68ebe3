/** The properties of an agent as a list of names and values. */

import { ago, count, duration, formatFullTime, percent } from "../format.js";
import { html } from "../preact.js";
import { useNow } from "../store.js";
import { hrefOf, wordOf } from "./chips.js";
import { Countdown } from "./countdown.js";
import { Interval, Uptime } from "./row.js";

/** `beats` are the agent's last outcomes, newest first. */
export function Facts({ agent, beats = [], search }) {
  const now = useNow();
  const judged = beats.find((ping) => ping.uptime_percent != null && ping.verdict !== "first");
  const streak = agent.good_streak > 0 ? `${count(agent.good_streak)} good in a row` : "no good streak";
  return html`<dl class="facts">
    <${Fact} name="Next ping"><${Countdown} at=${agent.next_ping_at} interval=${agent.current_interval_minutes} /><//>
    <${Fact} name="Interval" note=${streak}><${Interval} agent=${agent} /><//>
    <${Fact} name="Uptime, last judged" note=${judged?.window_seconds ? `of ${duration(judged.window_seconds)}` : null}>${percent(agent.uptime_percent)}<//>
    <${Fact} name="Uptime, 24 h"><${Uptime} agent=${agent} /><//>
    <${Fact} name="Last answer" note=${formatFullTime(agent.last_answered_at)}>${ago(agent.last_answered_at, now)}<//>
    <${Fact} name="Pings" note=${`${count(agent.missed_pings)} missed`}>${count(agent.total_pings)}<//>
    ${agent.by_http
      ? html`<${Fact} name="Asked" note="reports are not signed">by HTTP<//>`
      : html`<${Fact} name="Connection">${connection(agent.connected)}<//>`}
    <${Fact} name="Registered" note=${formatFullTime(agent.registered_at)}>${ago(agent.registered_at, now)}<//>
  </dl>
  <${Labels} agent=${agent} search=${search} />`;
}

const Fact = ({ name, note, children }) =>
  html`<div><dt>${name}</dt><dd>${children}</dd>${note && html`<dd class="note">${note}</dd>`}</div>`;

const connection = (connected) => (connected == null ? "not known" : connected ? "connected" : "not connected");

const asText = (value) => (typeof value === "string" ? value : JSON.stringify(value));

/** A label, which finds the other hosts that have it. */
function Label({ name, value, search }) {
  const word = wordOf(name, value);
  const text = html`<span class="quiet">${name}</span> ${asText(value)}`;
  return html`<li>${word ? html`<a href=${hrefOf(word, search)} title=${`all hosts with ${word}`}>${text}</a>` : text}</li>`;
}

/** The labels given at registration. The URL is one too: it is shown, and never linked. */
function Labels({ agent, search }) {
  const metadata = Object.entries(agent.metadata ?? {});
  const hasAny = agent.agent_url || agent.capabilities?.length > 0 || metadata.length > 0;
  if (!hasAny) return null;
  return html`<ul class="labels" aria-label="Labels">
    ${agent.agent_url && html`<li><code>${agent.agent_url}</code></li>`}
    ${(agent.capabilities ?? []).map((capability) => html`<li key=${capability}>${capability}</li>`)}
    ${metadata.map(([name, value]) => html`<${Label} key=${name} name=${name} value=${value} search=${search} />`)}
  </ul>`;
}
