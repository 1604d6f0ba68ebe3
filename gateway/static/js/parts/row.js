/** One agent: how it stands, its last outcomes, and when it is pinged next. */

import { duration, formatFullTime, milliseconds, plural } from "../format.js";
import { requestBeats, showRow } from "../live.js";
import { classes, html, memo, useEffect, useRef } from "../preact.js";
import { go } from "../route.js";
import { areTwo, isUnopened, remark, status } from "../labels.js";
import { Countdown } from "./countdown.js";
import { Figure } from "./figure.js";
import { Chip } from "./glyph.js";
import { Heartbeat } from "./heartbeat.js";

export const Row = memo(({ agent, beats, query, baseSeconds, index, isStale, isOpen }) => {
  const label = labelOf(agent);
  const row = useRef();
  useVisibility(row, agent.agent_id, isStale);
  const open = (event) => {
    if (!event.target.closest("a, button") && !getSelection().toString()) go({ agent: agent.agent_id }, { step: true });
  };
  return html`<div
    ref=${row} class=${classes({ row: true, "is-open": isOpen })} role="row" aria-rowindex=${index + 2} onClick=${open}
    data-agent=${agent.agent_id} data-status=${agent.status}
  >
    <div class="cell cell-id" role="cell">
      <a href=${`#/agent/${encodeURIComponent(agent.agent_id)}${query ? `?${query}` : ""}`} aria-current=${isOpen ? "true" : undefined}>${agent.agent_id}</a>
      <span class="quiet">${gpuLine(agent)}</span>
      ${areTwo(agent) && html`<span class="conflict-line" title="give one of them another id, or stop it">${remark("two_under_one_id")}</span>`}
      ${typeof agent.metadata?.note === "string" && html`<span class="quiet note-line" title=${agent.metadata.note}>${agent.metadata.note}</span>`}
    </div>
    <div class="cell cell-status" role="cell"><${Chip} name=${isJudged(agent) ? agent.status : "pending"} label=${label} /></div>
    <div class="cell cell-beats" role="cell"><${Heartbeat} pings=${beats} /></div>
    <div class="cell cell-uptime number" role="cell"><${Uptime} agent=${agent} baseSeconds=${baseSeconds} /></div>
    <div class="cell cell-interval" role="cell"><${Interval} agent=${agent} /></div>
    <div class="cell cell-next number" role="cell">
      <${Countdown} at=${agent.next_ping_at} interval=${agent.current_interval_minutes} />
    </div>
    <div class="cell cell-response number" role="cell" title=${`last answered: ${formatFullTime(agent.last_answered_at)}`}>
      ${milliseconds(agent.last_response_ms)}
    </div>
  </div>`;
});

/** Whether any ping of the agent was judged yet: the first one only shows that it has a GPU. */
export const isJudged = (agent) => agent.status !== "healthy" || agent.uptime_percent != null || agent.good_streak > 0;

export const labelOf = (agent) => (isJudged(agent) ? status(agent.status).label : "Not judged");

/** The uptime of 24 h. */
export const Uptime = ({ agent, baseSeconds }) =>
  html`<${Figure} percent=${agent.uptime_24h_percent} rests=${agent.uptime_24h_seconds} baseSeconds=${baseSeconds} />`;

const onScreen = new Map(); // what to call when a row comes onto the screen or leaves it, by its element
const observer = new IntersectionObserver(
  (entries) => {
    for (const { target, isIntersecting } of entries) onScreen.get(target)?.(isIntersecting);
  },
  { rootMargin: "200px" },
);

/** Follows a row's events while it is on the screen, and requests its beats where they are not known. */
function useVisibility(row, id, isStale) {
  const isVisible = useRef(false);
  const needsBeats = useRef(isStale);
  needsBeats.current = isStale;
  useEffect(() => {
    const element = row.current;
    onScreen.set(element, (isShown) => {
      isVisible.current = isShown;
      showRow(id, isShown);
      if (isShown && needsBeats.current) requestBeats(id);
    });
    observer.observe(element);
    return () => {
      observer.unobserve(element);
      onScreen.delete(element);
      showRow(id, false);
    };
  }, [id]);
  useEffect(() => {
    if (isStale && isVisible.current) requestBeats(id);
  }, [id, isStale]);
}

export function gpuLine(agent) {
  const gpus = (agent.gpus ?? []).filter((gpu) => gpu.expected !== false);
  if (agent.by_http) return `${agent.metadata?.gpu_model ?? "GPU"}, asked by HTTP, not signed`;
  if (gpus.length === 0) return agent.metadata?.gpu_model ?? "no GPU seen yet";
  const name = (gpus.find((gpu) => gpu.name)?.name ?? "").replace(/^NVIDIA (GeForce )?/, "") || "GPU";
  const isMig = gpus.some((gpu) => gpu.uuid.includes("/"));
  const unopened = agent.gpus.filter(isUnopened).length;
  const number = unopened > 0 ? `${gpus.length} of ${gpus.length + unopened}` : gpus.length;
  // A simulated GPU of a scenario may have the name of a real one.
  const isNamedReal = agent.simulated && !/simulated/i.test(name);
  const line = `${number} × ${name}${isMig ? " (MIG)" : ""}${isNamedReal ? ", simulated" : ""}`;
  if (gpus.every((gpu) => gpu.reported === false)) return `${line}, as last reported`;
  const troubled = ["down", "degraded", "unknown"]
    .map((state) => [gpus.filter((gpu) => gpu.state === state).length, state])
    .filter(([number]) => number > 0)
    .map(([number, state]) => `, ${number} ${state}`);
  return `${line}${troubled.join("")}`;
}

/** The interval, and a step for each poor outcome in a row that escalated it. */
export function Interval({ agent }) {
  const level = agent.consecutive_poor_uptime;
  const steps = [1, 2, 3, 4, 5, 6].slice(0, level);
  return html`<span>${duration(agent.current_interval_minutes * 60)}</span>
    ${
      level > 0 &&
      html`<span class="escalation" title=${`escalated by ${plural(level, "poor outcome")} in a row`}>
      <span class="steps" aria-hidden="true">${steps.map((step) => html`<i key=${step} class="step-${step}"></i>`)}</span>
      <span><span class="spoken">escalation level </span>×${level}</span>
    </span>`
    }`;
}
