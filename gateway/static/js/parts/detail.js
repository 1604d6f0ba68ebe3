/** The panel about one agent, next to the list. Escape closes it and returns the focus to where it was. */

import { html, useEffect, useRef, useState } from "../preact.js";
import { go, isAgentId, link } from "../route.js";
import { serverNow } from "../store.js";
import { areTwo } from "../labels.js";
import { Charts } from "./charts.js";
import { Copyable } from "./copyable.js";
import { Facts } from "./facts.js";
import { Chip, Icon } from "./glyph.js";
import { Gpus } from "./gpus.js";
import { Maintenance } from "./maintenance.js";
import { Outcomes } from "./outcomes.js";
import { PingNow } from "./pingnow.js";
import { useAgent, useOutcomes, useSeries } from "./detaildata.js";
import { hoursSince, periodOf } from "./periods.js";
import { isJudged, labelOf } from "./row.js";

const CONFLICT = "Two agents answer in turn under this id, and its figures mix both. Give one of them another id, or stop it.";
const NOT_FOUND = 404;
const monthNow = () => new Date(serverNow()).toISOString().slice(0, 7);

const close = () => go({ agent: null }, { step: true });

export function Detail({ route, known, beats, returns, mayPing }) {
  const id = route.agent;
  const title = useFocusAndEscape(id);
  const isModal = useModal();
  return html`<section class="detail" role=${isModal ? "dialog" : "complementary"} aria-modal=${isModal ? "true" : undefined} aria-labelledby="detail-title">
    <div class="detail-head">
      ${known && html`<${Chip} name=${isJudged(known) ? known.status : "pending"} label=${labelOf(known)} />`}
      <h1 id="detail-title" tabindex="-1" ref=${title}>${id}</h1>
      <a class="plain close" href=${link({ agent: null })} aria-label="Close"><${Icon} name="close" /></a>
    </div>
    ${isAgentId(id)
      ? html`<${About} id=${id} route=${route} known=${known} beats=${beats} returns=${returns} mayPing=${mayPing} />`
      : html`<${Nobody} why=${`“${id}” cannot be the id of an agent.`} />`}
  </section>`;
}

/** All that is known of an agent, registered or removed. */
function About({ id, route, known, beats, returns, mayPing }) {
  const now = serverNow();
  const period = periodOf(route.period, now);
  const hours = hoursSince(period.since, now);
  const newest = beats?.[0]?.ping_seq ?? 0;
  const { agent, problem } = useAgent(id, known, newest, returns);
  const outcomes = useOutcomes(id, period, beats, returns);
  const isGone = problem?.status === NOT_FOUND;
  const series = useSeries(id, period, agent, isGone, newest, returns);
  if (isGone && outcomes.problem?.status === NOT_FOUND)
    return html`<${Nobody} why=${`No agent “${id}” is registered, and history has none of that id.`} />`;
  return html`
    ${problem && html`<p class="problem" role="alert">${problem.message}</p>`}
    ${agent && areTwo(agent) && html`<p class="problem" role="alert">${CONFLICT}</p>`}
    ${agent && mayPing && html`<${PingNow} id=${id} />`}
    <p class="to-month"><a href=${link({ month: monthNow(), period: null })}>Why this month's figure is what it is</a></p>
    ${agent && html`<${Facts} agent=${agent} beats=${beats} search=${route.search} />`}
    ${agent && html`<${Maintenance} agent=${agent} mayBook=${mayPing} returns=${returns} />`}
    <${Charts} series=${series} period=${period} agent=${agent} />
    ${agent && html`<${Gpus} agent=${agent} newest=${newest} returns=${returns} />`}
    <${Outcomes} id=${id} outcomes=${outcomes} hours=${hours} period=${period} series=${series} />
    <${InTheTerminal} id=${id} hours=${hours} />
  `;
}

/** Where there is no such agent nothing else is offered: all of it would fail. */
const Nobody = ({ why }) => html`<p class="problem" role="alert">${why}</p>
  <p class="after"><a href=${link({ agent: null })}>Back to the fleet</a></p>`;

const InTheTerminal = ({ id, hours }) => html`<section class="block" aria-label="In the terminal">
  <h2>In the terminal</h2>
  <${Copyable} label="look at this agent over NATS" text=${`nats req gpuping.ping.${id} ''`} />
  <${Copyable} label="history of this agent" text=${`gpuping history ${id} --hours ${hours}`} />
</section>`;

const NARROW = matchMedia("(max-width: 1299px)"); // the panel then lies over the list

/** Whether the panel covers the list, which then takes neither focus nor scrolling. */
function useModal() {
  const [isModal, setModal] = useState(NARROW.matches);
  useEffect(() => {
    const follow = () => setModal(NARROW.matches);
    NARROW.addEventListener("change", follow);
    return () => NARROW.removeEventListener("change", follow);
  }, []);
  useEffect(() => {
    const behind = document.querySelectorAll("main, header.top");
    for (const part of behind) part.inert = isModal;
    document.documentElement.classList.toggle("is-covered", isModal);
    return () => {
      for (const part of behind) part.inert = false;
      document.documentElement.classList.remove("is-covered");
    };
  }, [isModal]);
  return isModal;
}

function useFocusAndEscape(id) {
  const title = useRef();
  useEffect(() => {
    const before = document.activeElement;
    title.current.focus({ preventScroll: true });
    const escape = (event) => {
      if (event.key === "Escape" && event.target.tagName !== "INPUT" && !document.querySelector("dialog[open]")) close();
    };
    addEventListener("keydown", escape);
    return () => {
      removeEventListener("keydown", escape);
      if (before?.isConnected) before.focus({ preventScroll: true });
    };
  }, [id]);
  return title;
}
