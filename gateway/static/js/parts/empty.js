/** Shown for a fleet without agents: three ways to add the first one. */

import { html } from "../preact.js";
import { Copyable } from "./copyable.js";

export function Empty() {
  const here = location.origin + location.pathname.replace(/\/$/, "");
  const body = `'{"agent_id": "agent-001"}'`;
  return html`<section class="empty" aria-label="No agents yet">
    <svg class="flatline" viewBox="0 0 400 60" preserveAspectRatio="xMinYMid meet" aria-hidden="true">
      <path d="M0 40h150l8-8 8 8h14l10-30 14 46 10-16h186" />
    </svg>
    <h1>Nobody to ping yet</h1>
    <p>The first agent shows up on this page by itself, with its first ping within seconds. Start one:</p>
    <ol>
      <li><h2>On a host with GPUs</h2><p>It registers itself over the bus and is pinged from then on.</p>
        <${Copyable} label="start an agent" text="AGENT_ID=agent-001 NATS_URL=nats://this-host:4222 gpuping agentd" /></li>
      <li><h2>Just to see it work</h2><p>Four test agents with simulated GPUs.</p>
        <${Copyable} label="start with test agents" text="gpuping up --register-agents 4 --scenario flapping" /></li>
      <li><h2>Over REST</h2><p>Announces a host whose agent starts later; until then it stays pending.</p>
        <${Copyable} label="register over REST"
          text=${`curl ${here}/ping-system/agents/register -H 'Content-Type: application/json' -d ${body}`} /></li>
    </ol>
  </section>`;
}
