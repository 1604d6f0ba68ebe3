/** The GPUs of an agent: their states, and the driver's present readings, requested from the agent itself. */

import * as api from "../api.js";
import { count, formatTime, percent, SPACE } from "../format.js";
import { html, useEffect, useState } from "../preact.js";
import { isUnopened, reason } from "../labels.js";
import { serverNow } from "../store.js";
import { Chip } from "./glyph.js";

export function Gpus(props) {
  if (!props.agent.by_http) return html`<${AskedGpus} ...${props} />`;
  return html`<section class="block" aria-label="GPUs">
    <h2>GPUs</h2>
    <p class="note">This host is asked by HTTP. It says one figure for all of them, and its reports are not signed.</p>
  </section>`;
}

function AskedGpus({ agent, newest, returns }) {
  const [now, setNow] = useState({ gpus: new Map(), problem: null, isSimulated: false });
  useEffect(() => {
    const controller = new AbortController();
    api.gpuStatus(agent.agent_id, { signal: controller.signal }).then(
      (answer) =>
        setNow({
          gpus: new Map((answer.gpus ?? []).map((gpu) => [gpu.uuid, gpu])),
          problem: answer.details_error ?? null,
          isSimulated: answer.simulated,
          askedAt: serverNow(),
        }),
      // what was read before is no longer the present state
      (error) => error.name !== "AbortError" && setNow({ gpus: new Map(), problem: error.message, isSimulated: false }),
    );
    return () => controller.abort();
  }, [agent.agent_id, newest, returns]);
  const isAsked = now.gpus.size > 0;
  const isSimulated = now.isSimulated || agent.simulated; // of a silent host the registry knows it
  // The host itself may not know a GPU that is expected of it, or that it cannot open.
  const unseen = (agent.gpus ?? []).filter(
    (gpu) => !now.gpus.has(gpu.uuid) && (gpu.expected !== false || isUnopened(gpu)),
  );
  const gpus = isAsked ? [...now.gpus.values(), ...unseen] : (agent.gpus ?? []);
  return html`<section class="block" aria-label="GPUs">
    <h2>GPUs <span class="quiet">${count(gpus.length)}${isSimulated ? ", simulated" : ""}</span></h2>
    ${now.problem && html`<p class="note">No readings just now: ${now.problem}</p>`}
    ${gpus.length > 0 && html`<p class="note as-of">${asOf(agent, isAsked, now)}</p>`}
    ${gpus.length === 0 && html`<p class="quiet">None seen yet.</p>`}
    <ul class="gpus">${gpus.map((gpu) => html`<${Gpu} key=${gpu.uuid} gpu=${gpu} />`)}</ul>
  </section>`;
}

/** Of when the states are: asked of the host at that time, or what it reported last. */
function asOf(agent, isAsked, { gpus: present, askedAt }) {
  if (!isAsked && agent.gpus.some((gpu) => gpu.reported === false)) {
    return `The host does not answer. Names are those of its last report, ${formatTime(agent.last_answered_at)}; what its GPUs do now is not known.`;
  }
  if (!isAsked) return `As of its last report, ${formatTime(agent.last_answered_at)}.`;
  const differs = (agent.gpus ?? []).some((gpu) => present.has(gpu.uuid) && present.get(gpu.uuid).state !== gpu.state);
  const asked = `Asked of the host at ${formatTime(new Date(askedAt).toISOString())}.`;
  if (!differs) return asked;
  return `${asked} At its last ping, ${formatTime(agent.last_ping_at)}, a GPU was in another state; the next ping accounts for it.`;
}

/** A MIG device is named by its GPU, its GPU instance and its compute instance: `GPU-…/1/0`. */
function Uuid({ uuid }) {
  const [gpu, instance, compute] = uuid.split("/");
  return html`<code title=${uuid}>${gpu.slice(0, 12)}${instance && html` <b class="mig">MIG ${instance}/${compute}</b>`}</code>`;
}

function Gpu({ gpu }) {
  const readings = readingsOf(gpu);
  return html`<li class="gpu">
    <div class="gpu-head">
      <span class="gpu-index">${gpu.index ?? "–"}</span>
      <span class="gpu-name">${gpu.name || "GPU"}${!isUnopened(gpu) && html`<${Uuid} uuid=${gpu.uuid} />`}</span>
      ${gpu.expected === false && !isUnopened(gpu) && html`<span class="quiet">not expected</span>`}
      <${Chip} name=${gpu.state} label=${gpu.state} />
    </div>
    ${gpu.reasons?.length > 0 && html`<p class="gpu-reasons">${gpu.reasons.map(reason).join("; ")}</p>`}
    ${
      readings.length > 0 &&
      html`<dl class="readings">${readings.map(
        ([name, text, share]) => html`<div key=${name}>
      <dt>${name}</dt><dd>${text}${share != null && html`<${Meter} share=${share} />`}</dd>
    </div>`,
      )}</dl>`
    }
  </li>`;
}

const Meter = ({ share }) =>
  html`<span class="meter" aria-hidden="true"><i style=${{ width: `${Math.min(100, share * 100)}%` }}></i></span>`;

/** A list of [name, text, share of the limit if there is one]. Readings that the driver does not give are left out. */
function readingsOf(gpu) {
  const has = (name) => gpu[name] != null;
  const gib = (bytes) => (bytes / 2 ** 30).toFixed(1);
  const total = has("memory_total_bytes") ? `/${Math.round(gpu.memory_total_bytes / 2 ** 30)}` : "";
  const share = (part, whole) => (has(whole) && gpu[whole] > 0 ? gpu[part] / gpu[whole] : null);
  return [
    has("utilization_percent") && [
      "Load",
      percent(gpu.utilization_percent).replace(/\.\d+/, ""),
      gpu.utilization_percent / 100,
    ],
    has("memory_used_bytes") && [
      "Memory",
      `${gib(gpu.memory_used_bytes)}${total}${SPACE}GiB`,
      share("memory_used_bytes", "memory_total_bytes"),
    ],
    has("power_watts") && [
      "Power",
      `${Math.round(gpu.power_watts)}${SPACE}W`,
      share("power_watts", "power_limit_watts"),
    ],
    has("temperature_celsius") && [
      "Heat",
      `${gpu.temperature_celsius}${SPACE}°C`,
      gpu.temperature_celsius / 100,
    ],
    has("pcie_width") && ["PCIe", `gen ${gpu.pcie_generation ?? "?"} ×${gpu.pcie_width}`],
    gpu.ecc_uncorrected_volatile > 0 && ["ECC errors", count(gpu.ecc_uncorrected_volatile)],
    has("processes") && ["Processes", count(gpu.processes)],
  ].filter(Boolean);
}
