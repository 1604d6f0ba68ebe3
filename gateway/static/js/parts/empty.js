/** Shown for a fleet without agents: ways to add the first one. */

import { html } from "../preact.js";
import { NewHost } from "./addhost.js";
import { Copyable } from "./copyable.js";

export function Empty({ caller }) {
  const { mayChange, busUrl } = caller;
  const here = location.origin + location.pathname.replace(/\/$/, "");
  const body = `'{"agent_id": "agent-001"}'`;
  return html`<section class="empty" aria-label="No agents yet">
    <svg class="flatline" viewBox="0 0 400 60" preserveAspectRatio="xMinYMid meet" aria-hidden="true">
      <path d="M0 40h150l8-8 8 8h14l10-30 14 46 10-16h186" />
    </svg>
    <h1>Nobody to ping yet</h1>
    <p>The first agent shows up on this page by itself, with its first ping within seconds. Start one:</p>
    <ol>
      <li><h2>A host with GPUs</h2>
        ${
          mayChange
            ? html`<p>One command lets it in${busUrl && html`, over the bus at <code data-name="bus">${busUrl}</code>`}.</p><${NewHost} />`
            : html`<p>An operator lets it in: this page shows them the command, and so does this one.</p>
              <${Copyable} label="make an enrolment" text="gpuping enroll new" />`
        }</li>
      <li><h2>Just to see it work</h2><p>Four test agents with simulated GPUs.</p>
        <${Copyable} label="start with test agents" text="gpuping up --register-agents 4 --scenario flapping" /></li>
      <li><h2>Over REST</h2><p>Announces a host whose agent starts later; until then it stays pending.</p>
        <${Copyable} label="register over REST"
          text=${`curl ${here}/ping-system/agents/register -H 'Content-Type: application/json' -d ${body}`} /></li>
    </ol>
  </section>`;
}
