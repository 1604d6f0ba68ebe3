/**
 * The map page: loads the packed map, draws it, and keeps it up to date with live events.
 *
 * What is chosen is kept in the URL, so that it can be shared: `map?by=site&colour=uptime`.
 */

import { asSentence } from "../api.js";
import { html, render, useEffect, useRef, useState } from "../preact.js";
import { apply } from "../theme.js";
import { drawAll, drawCell, palette } from "./draw.js";
import { gpuOffsets, groupsOf, hostAt, place } from "./layout.js";

const REFRESH_MS = 30_000;
const STATE_LETTER = { up: "u", degraded: "g", down: "d", unknown: "n" };
const STATUS_LETTER = { healthy: "h", recovering: "r", pending: "n", maintenance: "m", poor: "p", missing: "x" };
const STATUS_NAME = Object.fromEntries(Object.entries(STATUS_LETTER).map(([name, letter]) => [letter, name]));
const COLOURINGS = [
  { name: "state", label: "GPU state", legend: [["up", "up"], ["degraded", "degraded"], ["down", "down or missing"], ["unknown", "unknown"], ["maintenance", "maintenance"]] },
  { name: "uptime", label: "uptime of the last ping", legend: [["up", "99 % and more"], ["degraded", "90 to 99 %"], ["down", "below 90 %"], ["unknown", "not judged"]] },
  { name: "escalation", label: "poor pings in a row", legend: [["up", "none"], ["degraded", "1 or 2"], ["down", "3 and more"]] },
];

const chosen = () => {
  const parameters = new URLSearchParams(location.search);
  const colouring = parameters.get("colour");
  return {
    label: parameters.get("by") ?? "",
    colouring: COLOURINGS.some(({ name }) => name === colouring) ? colouring : "state",
  };
};

function MapPage() {
  const [choice, setChoice] = useState(chosen());
  const [map, setMap] = useState(null);
  const [trouble, setTrouble] = useState(null);
  const choose = (part) => {
    const next = { ...choice, ...part };
    const parameters = new URLSearchParams();
    if (next.label) parameters.set("by", next.label);
    if (next.colouring !== "state") parameters.set("colour", next.colouring);
    history.replaceState(null, "", `?${parameters}`);
    setChoice(next);
  };
  useEffect(() => {
    let isCancelled = false;
    const load = async () => {
      try {
        const answer = await requestMap(choice.label);
        if (!isCancelled) {
          setMap(indexed(answer));
          setTrouble(null);
        }
      } catch (error) {
        if (!isCancelled) setTrouble(error.message);
      }
    };
    load();
    const timer = setInterval(load, REFRESH_MS);
    return () => {
      isCancelled = true;
      clearInterval(timer);
    };
  }, [choice.label]);
  return html`<main class="map-page">
    <div class="map-top">
      <h1><a href="./">gpuping</a> / Map</h1>
      ${map && html`<${Counts} map=${map} />`}
      <span class="spring"></span>
      <label>Group by <input type="text" value=${choice.label} placeholder="site, owner …" maxlength="64"
        onChange=${(event) => choose({ label: event.target.value.trim() })} /></label>
      <label>Colour <select value=${choice.colouring} onChange=${(event) => choose({ colouring: event.target.value })}>
        ${COLOURINGS.map(({ name, label }) => html`<option value=${name}>${label}</option>`)}
      </select></label>
    </div>
    ${trouble && html`<p class="map-trouble" role="alert">${trouble} What is drawn may be out of date.</p>`}
    <${Legend} colouring=${choice.colouring} />
    ${map && map.columns.agent_ids.length === 0 && html`<p>No agent is registered yet.</p>`}
    ${map && map.columns.agent_ids.length > 0 && html`<${Canvas} map=${map} colouring=${choice.colouring} />`}
  </main>`;
}

function Counts({ map }) {
  const states = map.columns.gpu_states;
  const up = [...states].filter((letter) => letter === "u" || letter === "g").length;
  const number = (value) => value.toLocaleString("en");
  const hosts = map.columns.agent_ids.length;
  return html`<span class="counts">
    <strong>${number(up)} of ${number(states.length)}</strong> GPUs up, ${number(hosts)} ${hosts === 1 ? "host" : "hosts"}
  </span>`;
}

function Legend({ colouring }) {
  const { legend } = COLOURINGS.find(({ name }) => name === colouring);
  return html`<ul class="map-legend">
    ${legend.map(([tone, text]) => html`<li><i class=${`tone-${tone}`} aria-hidden="true"></i>${text}</li>`)}
  </ul>`;
}

function Canvas({ map, colouring }) {
  const box = useRef();
  const canvas = useRef();
  const [host, setHost] = useState(null);
  const drawn = useRef(null);
  const draw = () => {
    const width = box.current.clientWidth;
    const height = Math.max(260, innerHeight - box.current.getBoundingClientRect().top - scrollY - 60);
    const placed = place(groupsOf(map.columns), width, height);
    const element = canvas.current;
    element.width = Math.round(width * devicePixelRatio);
    element.height = Math.round(placed.height * devicePixelRatio);
    element.style.width = `${width}px`;
    element.style.height = `${placed.height}px`;
    const context = element.getContext("2d");
    context.scale(devicePixelRatio, devicePixelRatio);
    const view = { ...map, colouring };
    const colours = palette(document.body);
    const began = performance.now();
    drawAll(context, placed, view, colours);
    element.dataset.drawnMs = (performance.now() - began).toFixed(1);
    drawn.current = { placed, context, view, colours, cells: cellsByHost(placed) };
  };
  useEffect(() => {
    draw();
    addEventListener("resize", draw);
    addEventListener("themechange", draw);
    return () => {
      removeEventListener("resize", draw);
      removeEventListener("themechange", draw);
    };
  }, [map, colouring]);
  useEffect(() => follow(map, (changed) => redraw(drawn.current, changed)), [map]);
  const pointed = (event) => {
    const at = canvas.current.getBoundingClientRect();
    return hostAt(drawn.current.placed, event.clientX - at.left, event.clientY - at.top);
  };
  const open = (event) => {
    const found = pointed(event);
    if (found !== null) location.href = `./#/agent/${encodeURIComponent(map.columns.agent_ids[found])}`;
  };
  const label = `${map.columns.agent_ids.length} hosts with ${map.columns.gpu_states.length} GPUs; the list of agents says the same in words`;
  return html`<div class="map-canvas" ref=${box}>
    <canvas ref=${canvas} role="img" aria-label=${label}
      onMouseMove=${(event) => setHost(pointed(event))} onMouseLeave=${() => setHost(null)} onClick=${open}></canvas>
    <p class="map-note">${host === null ? "Point at a host to see it, click to open it." : html`<${Host} map=${map} host=${host} />`}</p>
  </div>`;
}

function Host({ map, host }) {
  const { columns, offsets } = map;
  const count = columns.gpu_counts[host];
  const letters = columns.gpu_states.slice(offsets[host], offsets[host] + count);
  const up = [...letters].filter((letter) => letter === "u" || letter === "g").length;
  const uptime = columns.uptimes[host];
  const said = [
    STATUS_NAME[columns.statuses[host]],
    count > 0 ? `${up} of ${count} GPUs up` : "no GPU reported",
    uptime >= 0 ? `last uptime ${(uptime / 10).toFixed(1)} %` : "not judged yet",
  ];
  if (columns.escalations[host] > 0) said.push(`${columns.escalations[host]} poor pings in a row`);
  return html`<strong>${columns.agent_ids[host]}</strong> ${said.join(", ")}`;
}

async function requestMap(label) {
  const query = label ? `?${new URLSearchParams({ label })}` : "";
  const response = await fetch(`ping-system/fleet-map${query}`, { credentials: "same-origin" }).catch(() => null);
  if (!response) throw new Error("The gateway does not answer.");
  if (response.status === 401) {
    location.href = "./";
    throw new Error("Sign in first.");
  }
  const answer = await response.json();
  if (!response.ok) throw new Error(asSentence(answer.detail ?? answer.title));
  return answer;
}

/** The answer with what is looked up often: where each host is, and where its GPUs' letters begin. */
function indexed(answer) {
  const { columns } = answer;
  return {
    columns,
    offsets: gpuOffsets(columns),
    hosts: new Map(columns.agent_ids.map((id, host) => [id, host])),
  };
}

function cellsByHost(placed) {
  const cells = new Map();
  for (const group of placed.groups) group.hosts.forEach((host, n) => cells.set(host, { group, n }));
  return cells;
}

function redraw(drawn, hosts) {
  if (!drawn) return;
  const { placed, context, view, colours, cells } = drawn;
  for (const host of hosts) {
    const cell = cells.get(host);
    if (cell) drawCell(context, placed, cell.group, cell.n, host, view, colours);
  }
}

/** Applies live events to the map's columns, and calls `onChange` with the hosts that changed. */
function follow(map, onChange) {
  const source = new EventSource("ping-system/events");
  source.addEventListener("ping", (message) => {
    const { agent } = JSON.parse(message.data);
    const host = agent ? map.hosts.get(agent.agent_id) : undefined;
    if (host === undefined) return;
    update(map, host, agent);
    onChange([host]);
  });
  return () => source.close();
}

function update(map, host, agent) {
  const { columns, offsets } = map;
  columns.statuses = replaced(columns.statuses, host, STATUS_LETTER[agent.status] ?? "n");
  columns.escalations[host] = agent.consecutive_poor_uptime;
  columns.uptimes[host] = agent.uptime_percent === null ? -1 : Math.floor(agent.uptime_percent * 10);
  if (agent.gpus.length !== columns.gpu_counts[host]) return; // the next refresh has its new GPUs
  const letters = agent.gpus.map((gpu) => STATE_LETTER[gpu.state] ?? "n").join("");
  const begin = offsets[host];
  columns.gpu_states = columns.gpu_states.slice(0, begin) + letters + columns.gpu_states.slice(begin + letters.length);
}

const replaced = (text, index, letter) => text.slice(0, index) + letter + text.slice(index + 1);

apply();
const root = document.querySelector("#map");
root.replaceChildren();
render(html`<${MapPage} />`, root);
