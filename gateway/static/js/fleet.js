/**
 * The page's model of the fleet, and the functions that apply the dashboard's response and live events to it.
 *
 * No function here does I/O or changes a fleet in place. An agent that did not change stays the same object, and its
 * row is then not drawn again.
 */

import { outcomeKind } from "./labels.js";

export const BEATS_SHOWN = 40;
const CHANGES_SHOWN = 50;
const LISTED = 100; // the dashboard response lists at most so many agents
export const VIEW_PAGE = 100; // rows that the gateway is asked for at once
const PAGES_KEPT = 3; // before and after the page that came last

export const EMPTY = {
  agents: new Map(), // every agent that is known, by id, whatever found it: the list, a search, or the panel
  listed: new Set(), // ids of the worst agents, which the dashboard's response lists
  view: { key: null, pages: new Map(), total: 0, problem: null }, // what the gateway found: ids, by the page's number
  opened: null, // id of the agent in the panel
  beats: new Map(), // the known outcomes of an agent, newest first, by id
  stale: new Set(), // ids of agents whose beats are incomplete and have to be requested
  total: 0,
  byStatus: {},
  totals: {},
  gpus: null,
  uptime: null,
  longer: [],
  baseSeconds: null, // the base interval
  responseMs: {},
  lateMs: {},
  due: 0,
  nextPingAt: null,
  changes: [], // { previous, ping }, newest first; `isCut` where more changed in the same second
  troubles: [], // of GPUs and hosts, as storage told them last
  sites: new Map(), // the label "site" of the agents of both, by id
  degraded: [], // services that cannot work, whose part of the response may be missing
  reasons: {},
};

/** The fleet with the dashboard's response applied. Known beats are kept. */
export function fromDashboard(fleet, response) {
  const next = {
    ...fleet,
    agents: new Map(fleet.agents),
    beats: new Map(fleet.beats),
    stale: new Set(fleet.stale),
    listed: new Set(response.agents.map((agent) => agent.agent_id)),
    total: response.totals?.agents ?? response.agents.length,
    byStatus: response.by_status ?? {},
    totals: response.totals ?? {},
    gpus: response.gpus ?? null,
    alerts: response.alerts ?? null,
    uptime: response.uptime ?? null,
    longer: response.longer ?? [],
    baseSeconds: response.base_interval_minutes ? response.base_interval_minutes * 60 : null,
    responseMs: response.response_ms ?? {},
    lateMs: response.late_ms ?? {},
    due: response.due ?? 0,
    nextPingAt: response.next_ping_at ?? null,
    changes: mergeChanges(fleet.changes, response.changes ?? []),
    troubles: response.degraded?.includes("storage") ? fleet.troubles : (response.troubles ?? []),
    sites: new Map([...fleet.sites, ...Object.entries(response.sites ?? {})]),
    degraded: response.degraded ?? [],
    reasons: response.reasons ?? {},
  };
  mergeAgents(next, response.agents);
  for (const ping of response.recent ?? []) {
    if (next.agents.has(ping.agent_id)) next.beats.set(ping.agent_id, mergeBeats(next.beats.get(ping.agent_id), [ping]));
  }
  for (const [id, pings] of Object.entries(response.beats ?? {})) {
    next.beats.set(id, mergeBeats(next.beats.get(id), pings));
    next.stale.delete(id);
  }
  markStale(next, response.agents);
  return pruned(next);
}

/** The kind of the outcome before, as far as a status tells it. */
const KIND_OF_STATUS = { healthy: "good", recovering: "good", poor: "poor", missing: "missed", pending: "first" };

/** The fleet with the totals of a second, and the status changes in it. */
export function fromTotals(fleet, totals) {
  const known = new Set(fleet.changes.map(({ ping }) => `${ping.agent_id} ${ping.ping_seq}`));
  const isCut = totals.changes_total > totals.changes.length; // more changed in that second than are told
  const fresh = totals.changes
    .map(({ previous_status, ping }) => ({ previous: KIND_OF_STATUS[previous_status] ?? null, ping, ...(isCut && { isCut }) }))
    .filter(({ previous, ping }) => previous && previous !== outcomeKind(ping) && !known.has(`${ping.agent_id} ${ping.ping_seq}`));
  return {
    ...fleet,
    total: totals.agents,
    byStatus: totals.by_status,
    totals: { ...fleet.totals, agents: totals.agents, pings: totals.pings, missed: totals.missed },
    gpus: totals.gpus,
    due: totals.due,
    nextPingAt: totals.next_ping_at,
    changes: fresh.length > 0 ? mergeChanges(fleet.changes, fresh) : fleet.changes,
    sites: fresh.length > 0 ? new Map([...fleet.sites, ...sitesOf(totals.changes)]) : fleet.sites,
  };
}

const sitesOf = (changes) => changes.filter(({ site }) => site).map(({ agent_id: id, site }) => [id, site]);

/**
 * The fleet with the page `number` that the gateway found for a view. Pages far from it are forgotten: a list may have
 * far more rows than the memory of a browser holds.
 */
export function fromView(fleet, key, number, { agents, total }) {
  const next = { ...fleet, agents: new Map(fleet.agents), stale: new Set(fleet.stale) };
  mergeAgents(next, agents);
  const pages = new Map();
  for (const [other, ids] of fleet.view.key === key ? fleet.view.pages : []) {
    if (Math.abs(other - number) <= PAGES_KEPT && other * VIEW_PAGE < total) pages.set(other, ids);
  }
  pages.set(number, agents.map((agent) => agent.agent_id));
  next.view = { key, pages, total, problem: null };
  markStale(next, agents);
  return pruned(next);
}

/** The fleet with the one agent that the panel asked for. */
export function fromAgent(fleet, agent) {
  const next = { ...fleet, agents: new Map(fleet.agents), opened: agent.agent_id };
  mergeAgents(next, [agent]);
  return next;
}

function mergeAgents(next, agents) {
  for (const fresh of agents) next.agents.set(fresh.agent_id, reuseIfEqual(next.agents.get(fresh.agent_id), fresh));
}

function markStale(next, agents) {
  for (const agent of agents) if (!isComplete(next.beats.get(agent.agent_id), agent)) next.stale.add(agent.agent_id);
}

/** Without the agents that nothing shows any more: a big fleet must not fill the memory. */
function pruned(next) {
  const told = new Set([...next.changes.map(({ ping }) => ping.agent_id), ...next.troubles.map(({ agent_id: id }) => id)]);
  next.sites = new Map([...next.sites].filter(([id]) => told.has(id)));
  const shown = new Set([...next.listed, ...[...next.view.pages.values()].flat(), next.opened]);
  for (const id of next.agents.keys()) if (!shown.has(id)) next.agents.delete(id);
  for (const id of next.beats.keys()) if (!shown.has(id)) next.beats.delete(id);
  return next;
}

/** The old object when the fresh one is equal, so that its row is not drawn again. */
function reuseIfEqual(old, fresh) {
  return old && JSON.stringify(old) === JSON.stringify(fresh) ? old : fresh;
}

/** Both lists without duplicates, newest first. Storage may lag behind events, so known changes are kept. */
function mergeChanges(known, listed) {
  const byKey = new Map();
  for (const change of [...known, ...listed]) {
    const key = `${change.ping.agent_id} ${change.ping.ping_seq}`;
    byKey.set(key, byKey.get(key)?.isCut ? { ...change, isCut: true } : change);
  }
  const sorted = [...byKey.values()].sort((a, b) => Date.parse(b.ping.pinged_at) - Date.parse(a.ping.pinged_at));
  return sorted.slice(0, CHANGES_SHOWN);
}

/** The fleet with one event of the stream applied. */
export function fromEvent(fleet, event) {
  if (event.kind === "removed") return withoutAgent(fleet, event.agent_id);
  const next = { ...fleet };
  if (event.agent) applyAgent(next, fleet, event);
  if (event.ping) applyPing(next, fleet, event.ping, event);
  return next;
}

function applyAgent(next, fleet, event) {
  const id = event.agent_id;
  const old = fleet.agents.get(id);
  const before = old?.status ?? event.previous_status ?? null;
  next.byStatus = recount(fleet.byStatus, before, event.agent.status);
  const isNewInView = entersView(fleet, event.agent, before);
  // only the worst of a big fleet are listed; the next response lists this agent if it is one of them
  const isListed = old || isNewInView || fleet.listed.size < LISTED;
  if (!isListed) return;
  // events carry no time-weighted uptime: keep the last one until the next dashboard response
  const agent = {
    ...event.agent,
    uptime_24h_percent: event.agent.uptime_24h_percent ?? old?.uptime_24h_percent ?? null,
    uptime_24h_seconds: event.agent.uptime_24h_seconds ?? old?.uptime_24h_seconds ?? null,
  };
  next.agents = new Map(fleet.agents).set(id, agent);
  if (!fleet.listed.has(id) && fleet.listed.size < LISTED && fleet.listed.size >= fleet.total - 1) {
    next.listed = new Set(fleet.listed).add(id);
  }
  if (isNewInView) next.view = { ...fleet.view, pages: new Map([[0, [...fleet.view.pages.get(0), id]]]) };
  if (!old && before == null) next.total = Math.max(fleet.total, next.agents.size);
}

/** Whether a changed status brings the agent into a view by status that is known whole, on its one page. */
function entersView({ view }, agent, before) {
  const known = view.pages.get(0);
  if (!view.key || !known || view.total >= VIEW_PAGE || known.includes(agent.agent_id)) return false;
  const { status: only, hosts, search } = JSON.parse(view.key);
  return !search && !hosts && only === agent.status && only !== before;
}

function applyPing(next, fleet, ping, event) {
  const id = ping.agent_id;
  const known = fleet.beats.get(id);
  const previous = known?.[0] ? outcomeKind(known[0]) : null;
  if (isChange(ping, previous, event)) next.changes = mergeChanges(fleet.changes, [{ previous, ping }]);
  if (!next.agents.has(id)) return;
  next.beats = new Map(fleet.beats).set(id, mergeBeats(known, [ping]));
  const hasGap = known?.length ? ping.ping_seq > known[0].ping_seq + 1 : ping.ping_seq > 1;
  if (hasGap) next.stale = new Set(fleet.stale).add(id);
}

/** Whether an outcome is news: of another kind than the one before, or the first of all. */
function isChange(ping, previous, event) {
  const kind = outcomeKind(ping);
  if (kind === "excused" || previous === "excused") return false;
  if (previous) return kind !== previous && !(kind === "good" && previous === "first");
  if (ping.ping_seq === 1) return true;
  return Boolean(event.previous_status && event.agent && event.previous_status !== event.agent.status);
}

function withoutAgent(fleet, id) {
  const gone = fleet.agents.get(id);
  const [agents, beats] = [new Map(fleet.agents), new Map(fleet.beats)];
  agents.delete(id);
  beats.delete(id);
  const listed = new Set(fleet.listed);
  listed.delete(id);
  const view = viewWithout(fleet.view, id);
  const total = Math.max(0, fleet.total - 1);
  return { ...fleet, agents, beats, listed, view, total, byStatus: recount(fleet.byStatus, gone?.status ?? null, null) };
}

function viewWithout(view, id) {
  for (const [number, ids] of view.pages) {
    if (!ids.includes(id)) continue;
    const left = ids.filter((other) => other !== id);
    return { ...view, pages: new Map(view.pages).set(number, left) };
  }
  return view;
}

function recount(byStatus, from, to) {
  if (from === to) return byStatus;
  const next = { ...byStatus };
  if (from) next[from] = Math.max(0, (next[from] ?? 0) - 1);
  if (to) next[to] = (next[to] ?? 0) + 1;
  return next;
}

/** Both lists without duplicates, newest first, at most BEATS_SHOWN. */
export function mergeBeats(known = [], pings) {
  const bySeq = new Map([...known, ...pings].map((ping) => [ping.ping_seq, ping]));
  return [...bySeq.values()].sort((a, b) => b.ping_seq - a.ping_seq).slice(0, BEATS_SHOWN);
}

/** The fleet with an agent's requested history in its beats. */
export function fromHistory(fleet, id, pings) {
  const stale = new Set(fleet.stale);
  stale.delete(id);
  return { ...fleet, stale, beats: new Map(fleet.beats).set(id, mergeBeats(fleet.beats.get(id), pings)) };
}

/** Whether the beats are the newest BEATS_SHOWN outcomes of the agent, or all it has, without a gap. */
function isComplete(beats = [], agent) {
  if (!agent.total_pings) return true;
  if (beats.length === 0) return false;
  const span = beats[0].ping_seq - beats.at(-1).ping_seq + 1;
  const isRecent = !agent.last_ping_at || Date.parse(beats[0].pinged_at) >= Date.parse(agent.last_ping_at);
  return isRecent && (beats.at(-1).ping_seq === 1 || beats.length >= BEATS_SHOWN) && span === beats.length;
}

/** The interval of a host that is pinged less often than one that is well, in seconds; null for all others. */
export function trailOf(agent, baseSeconds) {
  const seconds = agent.current_interval_minutes * 60;
  return baseSeconds != null && seconds > baseSeconds * 1.05 ? seconds : null;
}

/** Whether the page knows every agent of the fleet. */
export const isWhole = (fleet) => fleet.listed.size >= fleet.total;
