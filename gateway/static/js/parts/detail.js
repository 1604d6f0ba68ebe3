/** The panel about one agent, next to the list. Escape closes it and returns the focus to where it was. */

import { html, useEffect, useRef, useState } from "../preact.js";
import { go, link } from "../route.js";
import { status } from "../labels.js";
import { Charts } from "./charts.js";
import { Copyable } from "./copyable.js";
import { Facts } from "./facts.js";
import { Chip, Icon } from "./glyph.js";
import { Gpus } from "./gpus.js";
import { Outcomes } from "./outcomes.js";
import { PingNow } from "./pingnow.js";
import { useAgent, useOutcomes } from "./detaildata.js";

const close = () => go({ agent: null }, { step: true });

export function Detail({ id, known, beats }) {
  const [hours, setHours] = useState(24);
  const newest = beats?.[0]?.ping_seq ?? 0;
  const { agent, problem } = useAgent(id, known, newest);
  const outcomes = useOutcomes(id, hours, beats);
  const title = useFocusAndEscape(id);
  return html`<aside class="detail" aria-labelledby="detail-title">
    <div class="detail-head">
      ${agent && html`<${Chip} name=${agent.status} label=${status(agent.status).label} />`}
      <h1 id="detail-title" tabindex="-1" ref=${title}>${id}</h1>
      <a class="plain close" href=${link({ agent: null })} aria-label="Close"><${Icon} name="close" /></a>
    </div>
    ${problem && html`<p class="problem" role="alert">${problem}</p>`}
    ${agent && html`<${PingNow} id=${id} />`}
    ${agent && html`<${Facts} agent=${agent} />`}
    <${Charts} outcomes=${outcomes} hours=${hours} setHours=${setHours} />
    ${agent && html`<${Gpus} agent=${agent} newest=${newest} />`}
    <${Outcomes} id=${id} outcomes=${outcomes} hours=${hours} />
    <section class="block" aria-label="In the terminal">
      <h2>In the terminal</h2>
      <${Copyable} label="look at this agent over NATS" text=${`nats req gpuping.ping.${id} ''`} />
      <${Copyable} label="history of this agent" text=${`gpuping history ${id} --hours ${hours}`} />
    </section>
  </aside>`;
}

function useFocusAndEscape(id) {
  const title = useRef();
  useEffect(() => {
    const before = document.activeElement;
    title.current.focus({ preventScroll: true });
    const escape = (event) => {
      if (event.key === "Escape" && event.target.tagName !== "INPUT") close();
    };
    addEventListener("keydown", escape);
    return () => {
      removeEventListener("keydown", escape);
      if (before?.isConnected) before.focus({ preventScroll: true });
    };
  }, [id]);
  return title;
}
