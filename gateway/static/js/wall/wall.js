/**
 * The wall: no controls, to be read at four metres. The whole fleet first, then site by site; red while what it shows is
 * old. `#/wall?by=site&every=20` names the label that groups the hosts and the seconds of each.
 */

import * as api from "../api.js";
import { badge } from "../badge.js";
import { count, duration, formatTime, percent, plural, SPACE, zone } from "../format.js";
import { status, STATUSES } from "../labels.js";
import { showRow } from "../live.js";
import { MapCanvas } from "../map/canvas.js";
import { updated } from "../map/data.js";
import { groupsOf, NO_LABEL } from "../map/layout.js";
import { useFleetMap } from "../map/usemap.js";
import { Glyph } from "../parts/glyph.js";
import { earlyNote } from "../parts/summary.js";
import { hostsOf } from "../parts/changes.js";
import { newsOf } from "../news.js";
import { classes, html, useEffect, useRef, useState } from "../preact.js";
import { openStream } from "../stream/stream.js";
import { useNow } from "../store.js";
import { troubled } from "../tab.js";

const WORST = 10;
const CHANGES = 6;
const LARGEST_CELL = 150; // pixels at the size of a desk's text: a small fleet fills the wall, too

export function Wall({ state, route }) {
  const now = useNow();
  const { fleet } = state;
  const label = route.by || "site";
  const { map, hear } = useFleetMap(label, state.returns); // the badge tells of failures
  const groups = map ? groupsOf(map.columns).map(({ name }) => name).filter((name) => name && name !== NO_LABEL) : [];
  const places = groups.length > 1 ? [null, ...groups] : [null];
  const place = places[Math.floor(now / 1000 / Math.max(5, route.every || 20)) % places.length];
  const worst = useWorst(fleet, label, place);
  const news = newsOf(fleet);
  const { kind, label: live } = badge(state, Date.now());
  const isStale = kind === "stale" || kind === "away" || kind === "reconnecting";
  return html`<main class=${classes({ wall: true, "is-stale": isStale })}>
    <h1 class="spoken">The wall</h1>
    <header class="wall-top">
      <div class="wall-gpus"><b data-name="wall-gpus">${fleet.gpus ? count(fleet.gpus.up) : "–"}</b><span>of ${plural(fleet.gpus?.total ?? 0, "GPU")} up</span></div>
      <div class="wall-uptime"><b>${percent(fleet.uptime?.uptime_percent)}</b><span>${uptimeWords(fleet)}</span></div>
      <ul class="wall-counts">${STATUSES.filter(({ name }) => name !== "healthy" && (fleet.byStatus[name] ?? 0) > 0).map(
        ({ name, label: text }) => html`<li key=${name} class="tone-${name}"><${Glyph} name=${name} /><b>${count(fleet.byStatus[name])}</b><span>${text.toLowerCase()}</span></li>`,
      )}${troubled(fleet.byStatus) === 0 && (fleet.byStatus.pending ?? 0) === 0 && html`<li class="tone-healthy"><${Glyph} name="healthy" /><span>no host in trouble</span></li>`}</ul>
      <div class="wall-clock"><b>${formatTime(new Date(now).toISOString(), now).slice(0, 5)}</b><span class="wall-live is-${kind}">${live}, ${zone()}</span></div>
    </header>
    <section class="wall-map" aria-label="Map">
      <h2><span class="wall-place">${place ?? "All sites"}</span> ${places.length > 1 && html`<span class="wall-steps" aria-hidden="true">${places.map((one) => html`<i key=${one ?? ""} class=${classes({ "is-now": one === place })}></i>`)}</span>`}</h2>
      ${map && html`<${WallMap} map=${map} only=${place} hear=${hear} />`}
    </section>
    <section class="wall-worst" aria-label="The worst hosts">
      <h2>Worst</h2>
      ${worst?.length === 0 && html`<p class="quiet">No host is missing or poor.</p>`}
      <ol>${(worst ?? []).map((agent) => html`<${Worst} key=${agent.agent_id} agent=${agent} now=${now} />`)}</ol>
    </section>
    <section class="wall-changes" aria-label="What changed">
      <h2>What changed</h2>
      ${news.length === 0 && html`<p class="quiet">${fleet.degraded.includes("storage") ? "Not known now: storage does not answer." : "Nothing in the last 24 h."}</p>`}
      <ol>${news
        .slice(0, CHANGES)
        .map((entry) => html`<${Changed} key=${entry.key} entry=${entry} />`)}</ol>
    </section>
  </main>`;
}

/** What the fleet's uptime is of: nothing is said to be early that storage only does not tell. */
function uptimeWords(fleet) {
  if (fleet.uptime?.uptime_percent == null && fleet.degraded.includes("storage")) return `fleet uptime, 24${SPACE}h: not known now`;
  return earlyNote(fleet) ? "fleet uptime so far: too early to tell" : `fleet uptime, 24${SPACE}h`;
}

const WHOLE = /^[\w.-]{1,64}=.{1,63}$/; // the map cuts the names of its groups to 64 letters

/** The question for the hosts of a place: those of `FRA` are not those of `FRA2`, which a search would find, too. */
function hostsAt(label, place) {
  const whole = `${label}=${place}`;
  return WHOLE.test(whole) ? { label: whole } : { search: `${label}:${place}` };
}

/** The worst hosts of the fleet, which the page knows, or those of a place; null until the gateway has told of them. */
function useWorst(fleet, label, place) {
  const [found, setFound] = useState({ place: null, agents: [] });
  useEffect(() => {
    if (place == null) return undefined;
    let isWanted = true;
    api.agents({ ...hostsAt(label, place), order: "worst", limit: WORST }).then(
      (page) => isWanted && setFound({ place, agents: page.agents }),
      () => {},
    );
    return () => {
      isWanted = false;
    };
  }, [label, place]);
  const isKnown = place == null || found.place === place;
  const listed = place == null ? [...fleet.listed].map((id) => fleet.agents.get(id)) : found.agents;
  const bad = listed.filter((agent) => agent && agent.status !== "healthy" && agent.status !== "pending");
  const worst = isKnown ? bad.slice(0, WORST) : [];
  const ids = worst.map(({ agent_id }) => agent_id).join(" ");
  useEffect(() => {
    const shown = ids ? ids.split(" ") : [];
    for (const id of shown) showRow(id, true);
    return () => {
      for (const id of shown) showRow(id, false);
    };
  }, [ids]);
  return isKnown ? worst : null;
}

/** How much larger than on a desk names are: by the size of the wall's text. */
const scaleOf = (element) => parseFloat(getComputedStyle(element).fontSize) / 14;

function WallMap({ map, only, hear }) {
  const box = useRef();
  const element = useRef();
  const canvas = useRef(null);
  useEffect(() => {
    canvas.current = new MapCanvas(element.current);
    return () => canvas.current.stop();
  }, []);
  useEffect(() => {
    const draw = () => canvas.current.draw(map, "state", box.current.clientWidth, box.current.clientHeight, { only, scale: scaleOf(box.current), largest: LARGEST_CELL });
    draw();
    const observer = new ResizeObserver(draw);
    observer.observe(box.current);
    addEventListener("themechange", draw);
    return () => {
      observer.disconnect();
      removeEventListener("themechange", draw);
    };
  }, [map, only]);
  useEffect(() => {
    const onEvent = (name, updates) => {
      if (name !== "map") return;
      canvas.current.pinged(updated(map, updates.agents));
      hear(updates);
    };
    const stream = openStream({ onEvent, onState: () => {} });
    stream.want({ agents: [], map: true });
    return () => stream.close();
  }, [map]);
  return html`<div class="wall-canvas" ref=${box}><canvas ref=${element} role="img" aria-label=${plural(map.columns.agent_ids.length, "host")}></canvas></div>`;
}

function Worst({ agent, now }) {
  const gpus = (agent.gpus ?? []).filter((gpu) => gpu.expected !== false);
  const down = gpus.filter((gpu) => gpu.state !== "up" && gpu.state !== "degraded").length;
  let said = `${status(agent.status).label.toLowerCase()}, ${percent(agent.uptime_percent)} at the last ping`;
  if (agent.status === "missing") said = silence(agent, now);
  else if (down > 0) said = `${down} of ${plural(gpus.length, "GPU")} down`;
  return html`<li class="tone-${agent.status}" data-agent=${agent.agent_id}><${Glyph} name=${agent.status} /><b>${agent.agent_id}</b>
    <span>${said}</span></li>`;
}

/** How long a host has been silent, in words. */
function silence(agent, now) {
  if (!agent.last_answered_at) return "never answered";
  const seconds = (now - Date.parse(agent.last_answered_at)) / 1000;
  return `silent for ${duration(Math.floor(seconds))}`;
}

function Changed({ entry }) {
  const { tone, subject, what, rest, at, isSince } = entry;
  const short = rest.split(/[:;,] /)[0];
  const minute = formatTime(new Date(at).toISOString()).replace(/:\d\d$/, ""); // nobody reads seconds across a room
  return html`<li class="tone-${tone}"><${Glyph} name=${tone} /><b>${hostsOf(entry)}</b>
    <span>${subject}${what}${short && !rest.startsWith(",") ? `, ${short}` : ""}</span><time>${isSince ? "since " : ""}${minute}</time></li>`;
}
