/**
 * The map page: loads the packed map, draws it, and keeps it up to date with live events.
 *
 * What is chosen is kept in the URL, so that it can be shared: `map?by=site&colour=uptime`.
 */

import { MOST_CHOSEN, textOf } from "../chosen.js";
import { count, plural } from "../format.js";
import { Brand, LiveBadge } from "../parts/topbar.js";
import { ThemeButton } from "../parts/themebutton.js";
import { html, render, useEffect, useRef, useState } from "../preact.js";
import { Tab } from "../tab.js";
import { apply } from "../theme.js";
import { MapCanvas } from "./canvas.js";
import { updated, uptimeOfDay } from "./data.js";
import { follow } from "./live.js";
import { useFleetMap } from "./usemap.js";

const LARGEST_CELL = 96; // pixels: a small fleet is not lost on a large page
const LONGEST_LABEL = 64; // letters
const STATUS_LETTER = { healthy: "h", recovering: "r", pending: "n", maintenance: "m", poor: "p", missing: "x" };
const STATUS_NAME = Object.fromEntries(Object.entries(STATUS_LETTER).map(([name, letter]) => [letter, name]));
const COLOURINGS = [
  { name: "state", label: "GPU state", legend: [["up", "up"], ["degraded", "degraded"], ["down", "down or missing"], ["unknown", "unknown"], ["maintenance", "maintenance"]] },
  { name: "uptime", label: "uptime of 24 h", legend: [["up", "99 % and more"], ["degraded", "90 to 99 %"], ["down", "below 90 %"], ["unknown", "too early to tell"]] },
  { name: "escalation", label: "poor pings in a row", legend: [["up", "none"], ["degraded", "1 or 2"], ["down", "3 and more"]] },
];

const chosen = () => {
  const parameters = new URLSearchParams(location.search);
  const colouring = parameters.get("colour");
  return {
    label: (parameters.get("by") ?? "").slice(0, LONGEST_LABEL),
    colouring: COLOURINGS.some(({ name }) => name === colouring) ? colouring : "state",
  };
};

function MapPage() {
  const [choice, setChoice] = useState(chosen());
  const [returns, setReturns] = useState(0); // how often the gateway or a part behind it came back
  const pinged = useRef(() => {}); // what takes the updates of the stream: the canvas that is shown
  const { map, trouble, hear } = useFleetMap(choice.label, returns);
  const [, setUpdates] = useState(0);
  const onUpdates = (updates) => {
    pinged.current(updates.agents);
    hear(updates);
    setUpdates((times) => times + 1); // what is written about the map follows it
  };
  const hasHosts = map?.columns.agent_ids.length > 0;
  const choose = (part) => {
    const next = { ...choice, ...part };
    const parameters = new URLSearchParams();
    if (next.label) parameters.set("by", next.label);
    if (next.colouring !== "state") parameters.set("colour", next.colouring);
    history.replaceState(null, "", `?${parameters}`);
    setChoice(next);
  };
  return html`<header class="top">
      <${Brand} href="./#/" />
      <${Live} onUpdates=${onUpdates} onReturn=${() => setReturns((times) => times + 1)} />
      <nav aria-label="More">
        <a href="./#/">Agents</a>
        <a href="./#/wall" class="wall-link">Wall</a>
        <${ThemeButton} />
      </nav>
    </header>
    <main class="map-page">
    <div class="map-top">
      <h1>Map</h1>
      ${hasHosts && html`<${Counts} map=${map} />`}
      <span class="spring"></span>
      <label>Group by <input type="text" value=${choice.label} placeholder="site, owner …" maxlength=${LONGEST_LABEL}
        onChange=${(event) => choose({ label: event.target.value.trim() })} /></label>
      <label>Colour <select value=${choice.colouring} onChange=${(event) => choose({ colouring: event.target.value })}>
        ${COLOURINGS.map(({ name, label }) => html`<option value=${name}>${label}</option>`)}
      </select></label>
    </div>
    ${trouble && html`<p class="map-trouble" role="alert">${trouble} What is drawn may be out of date.</p>`}
    ${map && choice.colouring === "uptime" && !knowsDay(map) && html`<p class="map-trouble" role="alert">Storage does not answer: the uptimes of 24 h are not known now.</p>`}
    ${hasHosts && html`<${Legend} colouring=${choice.colouring} />`}
    ${map && !hasHosts && html`<p>No agent is registered yet.</p>`}
    ${hasHosts && html`<${Canvas} map=${map} colouring=${choice.colouring} pinged=${pinged} />`}
  </main>`;
}

/** The badge, and the title that counts the hosts in trouble: a part of its own, as it changes with each event. */
function Live({ onUpdates, onReturn }) {
  const [state, setState] = useState({ live: "connecting", health: null, heardAt: null, byStatus: {} });
  useEffect(() => follow({ onState: setState, onUpdates, onReturn }), []);
  const ofTab = { ...state, phase: "ready", fleet: { byStatus: state.byStatus } };
  return html`<${Tab} state=${ofTab} place="Map" /><${LiveBadge} state=${state} />`;
}

/** Whether the answer has the uptimes of 24 hours, which storage knows. */
const knowsDay = ({ columns }) => columns.uptimes_24h.length === columns.agent_ids.length;

function Counts({ map }) {
  const { gpu_states: states, agent_ids: hosts } = map.columns;
  const { up, degraded } = countsOf(states);
  return html`<span class="counts">
    <strong>${count(up)} of ${count(states.length)}</strong> ${states.length === 1 ? "GPU" : "GPUs"} up${degraded > 0 && `, ${count(degraded)} degraded`}, ${plural(hosts.length, "host")}
  </span>`;
}

/** How many GPUs are up, and how many of the others are degraded, as the dashboard counts them. */
function countsOf(letters) {
  let up = 0;
  let degraded = 0;
  for (const letter of letters) {
    if (letter === "u") up += 1;
    else if (letter === "g") degraded += 1;
  }
  return { up, degraded };
}

function Legend({ colouring }) {
  const { legend } = COLOURINGS.find(({ name }) => name === colouring);
  return html`<ul class="map-legend">
    ${legend.map(([tone, text]) => html`<li><i class=${`tone-${tone}`} aria-hidden="true"></i>${text}</li>`)}
  </ul>`;
}

function Canvas({ map, colouring, pinged }) {
  const box = useRef();
  const element = useRef();
  const canvas = useRef(null);
  // hosts are remembered by their ids: another map has them at other places
  const [pointed, setPointed] = useState(null);
  const [lasso, setLasso] = useState(null); // the rectangle that is being drawn
  const [chosen, setChosen] = useState(NOBODY);
  useEffect(() => {
    canvas.current = new MapCanvas(element.current);
    return () => canvas.current.stop();
  }, []);
  useEffect(() => {
    const draw = () => {
      const height = Math.max(260, innerHeight - box.current.getBoundingClientRect().top - scrollY - 60);
      canvas.current.draw(map, colouring, box.current.clientWidth, height, { largest: LARGEST_CELL });
    };
    const observer = new ResizeObserver(draw); // called at once, too, and where a scroll bar takes room
    observer.observe(box.current.parentElement);
    addEventListener("resize", draw);
    addEventListener("themechange", draw);
    return () => {
      observer.disconnect();
      removeEventListener("resize", draw);
      removeEventListener("themechange", draw);
    };
  }, [map, colouring]);
  useEffect(() => {
    pinged.current = (updates) => canvas.current.pinged(updated(map, updates));
    return () => {
      pinged.current = () => {};
    };
  }, [map]);
  const idOf = (host) => (host === null ? null : map.columns.agent_ids[host]);
  const pointOf = (event) => {
    const at = element.current.getBoundingClientRect();
    return { x: event.clientX - at.left, y: event.clientY - at.top };
  };
  const press = (event) => {
    if (event.button !== 0 || event.pointerType === "touch") return;
    const { x, y } = pointOf(event);
    setLasso({ x, y, toX: x, toY: y });
    element.current.setPointerCapture(event.pointerId);
  };
  const move = (event) => {
    const { x, y } = pointOf(event);
    setPointed(idOf(canvas.current.hostAt(x, y)));
    if (lasso) setLasso({ ...lasso, toX: x, toY: y });
  };
  const release = (event) => {
    const { x, y } = pointOf(event);
    const isLasso = lasso && Math.hypot(lasso.toX - lasso.x, lasso.toY - lasso.y) > LEAST_LASSO;
    setLasso(null);
    if (isLasso) return setChosen(chosenOf(canvas.current.hostsWithin(sidesOf(lasso)).map(idOf)));
    const found = idOf(canvas.current.hostAt(x, y));
    if (found !== null) location.href = `./#/agent/${encodeURIComponent(found)}`;
    return undefined;
  };
  const label = `${plural(map.columns.agent_ids.length, "host")} with ${plural(map.columns.gpu_states.length, "GPU")}; the list of agents says the same in words`;
  const sides = lasso && sidesOf(lasso);
  const host = map.hosts.get(pointed);
  return html`<div class="map-canvas" ref=${box}>
    <canvas ref=${element} role="img" aria-label=${label}
      onPointerDown=${press} onPointerMove=${move} onPointerUp=${release} onPointerCancel=${() => setLasso(null)} onPointerLeave=${() => setPointed(null)}></canvas>
    ${sides && html`<i class="lasso" style=${{ left: `${sides.left}px`, top: `${sides.top}px`, width: `${sides.right - sides.left}px`, height: `${sides.bottom - sides.top}px` }}></i>`}
    <p class="map-note">${host === undefined ? "Point at a host to see it, click to open it, draw around hosts to filter by them." : html`<${Host} map=${map} host=${host} />`}</p>
    ${chosen.ids.length > 0 && html`<${Chosen} map=${map} chosen=${chosen} clear=${() => setChosen(NOBODY)} />`}
  </div>`;
}

const LEAST_LASSO = 8; // pixels: less is a click
const LISTED = 100;
const sidesOf = ({ x, y, toX, toY }) => ({ left: Math.min(x, toX), top: Math.min(y, toY), right: Math.max(x, toX), bottom: Math.max(y, toY) });

const WORST_FIRST = [..."xpmnrh"]; // letters of statuses
const NOBODY = { ids: [], text: null };

/** The hosts that were drawn around, and what the table's address says for them; null where they are too many. */
const chosenOf = (ids) => ({ ids, text: ids.length > 0 && ids.length <= MOST_CHOSEN ? textOf(ids) : null });

/** The hosts that were drawn around, the worst first, and the way to the table of them. */
function Chosen({ map, chosen, clear }) {
  const { columns } = map;
  const hosts = chosen.ids.map((id) => map.hosts.get(id)).filter((host) => host !== undefined); // others were removed since
  const byStatus = new Map(WORST_FIRST.map((letter) => [letter, []]));
  for (const host of hosts) byStatus.get(columns.statuses[host]).push(host);
  const sorted = [...byStatus.values()].flat();
  const counts = [...byStatus].filter(([, of]) => of.length > 0).map(([letter, of]) => `${count(of.length)} ${STATUS_NAME[letter]}`);
  return html`<section class="chosen" aria-label="Hosts that were drawn around">
    <h2>${plural(hosts.length, "host")} <span class="quiet">${counts.join(", ")}</span>
      ${chosen.text && html`<a href=${`./#/?${new URLSearchParams({ hosts: chosen.text })}`}>Filter the table by them</a>`}
      <button type="button" onClick=${clear}>Clear</button></h2>
    ${!chosen.text && html`<p class="quiet">The table can be filtered by ${count(MOST_CHOSEN)} hosts at most: draw around fewer.</p>`}
    <ul>${sorted.slice(0, LISTED).map(
      (host) => html`<li key=${columns.agent_ids[host]} class=${`tone-${STATUS_NAME[columns.statuses[host]]}`}>
        <i aria-hidden="true"></i><a href=${`./#/agent/${encodeURIComponent(columns.agent_ids[host])}`}>${columns.agent_ids[host]}</a>
        <span class="quiet">${saidOf(map, host).join(", ")}</span></li>`,
    )}</ul>
    ${hosts.length > LISTED && html`<p class="quiet">and ${count(hosts.length - LISTED)} more</p>`}
  </section>`;
}

function Host({ map, host }) {
  return html`<strong>${map.columns.agent_ids[host]}</strong> ${saidOf(map, host).join(", ")}`;
}

/** Tenths of a percent, as the page writes percentages: never rounded up. */
const percentOf = (tenths) => (tenths === 1000 ? "100%" : `${(tenths / 10).toFixed(1)}%`);

/** What the map knows of a host, in words. */
function saidOf({ columns, offsets }, host) {
  const gpus = columns.gpu_counts[host];
  const { up, degraded } = countsOf(columns.gpu_states.slice(offsets[host], offsets[host] + gpus));
  const uptime = columns.uptimes[host];
  const ofDay = uptimeOfDay(columns, host);
  const said = [
    STATUS_NAME[columns.statuses[host]],
    gpus > 0 ? `${up} of ${plural(gpus, "GPU")} up${degraded > 0 ? `, ${degraded} degraded` : ""}` : "no GPU reported",
  ];
  if (ofDay >= 0) said.push(`${percentOf(ofDay)} in 24 h`);
  else if (uptime >= 0 && knowsDay({ columns })) said.push("24 h: too early to tell");
  if (uptime >= 0) said.push(`${percentOf(uptime)} at the last ping`);
  if (ofDay < 0 && uptime < 0) said.push("not judged yet");
  if (columns.escalations[host] > 0) said.push(`${plural(columns.escalations[host], "poor ping")} in a row`);
  return said;
}

apply();
const root = document.querySelector("#map");
root.replaceChildren();
render(html`<${MapPage} />`, root);
