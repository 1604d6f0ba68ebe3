/**
 * The page's model of the fleet, and the functions that apply the dashboard's response and live events to it.
 *
 * No function here does I/O or changes a fleet in place. An agent that did not change stays the same object, and its
 * row is then not drawn again.
 */

import { status } from "./labels.js";

export const BEATS_SHOWN = 40;
const RECENT_SHOWN = 50;
const LISTED = 100; // the dashboard response lists at most so many agents

export const EMPTY = {
  agents: new Map(), // the listed agents, by id
  beats: new Map(), // the known outcomes of an agent, newest first, by id
  stale: new Set(), // ids of agents whose beats are incomplete and have to be requested
  total: 0,
  byStatus: {},
  totals: {},
  uptime: null,
  responseMs: {},
  lateMs: {},
  due: 0,
  recent: [],
  reasons: {}, // why services cannot work, by service
};

/** The fleet with the dashboard's response applied. Known beats are kept. */
export function fromDashboard(fleet, response) {
  const listed = response.agents.map((agent) => reuseIfEqual(fleet.agents.get(agent.agent_id), agent));
  const agents = new Map(listed.map((agent) => [agent.agent_id, agent]));
  const next = {
    ...fleet,
    agents,
    beats: pruneBeats(fleet.beats, agents),
    stale: new Set(fleet.stale),
    total: response.totals?.agents ?? agents.size,
    byStatus: response.by_status ?? {},
    totals: response.totals ?? {},
    uptime: response.uptime ?? null,
    responseMs: response.response_ms ?? {},
    lateMs: response.late_ms ?? {},
    due: response.due ?? 0,
    recent: mergeRecent(fleet.recent, response.recent ?? []),
    reasons: response.reasons ?? {},
  };
  for (const ping of next.recent.filter((other) => agents.has(other.agent_id))) {
    next.beats.set(ping.agent_id, mergeBeats(next.beats.get(ping.agent_id), [ping]));
  }
  for (const agent of listed) if (!isComplete(next.beats.get(agent.agent_id), agent)) next.stale.add(agent.agent_id);
  return next;
}

/** The beats to keep: once they are many, only those of listed agents. */
function pruneBeats(beats, agents) {
  return new Map(beats.size > 4 * LISTED ? [...beats].filter(([id]) => agents.has(id)) : beats);
}

/** The old object when the fresh one is equal, so that its row is not drawn again. */
function reuseIfEqual(old, fresh) {
  return old && JSON.stringify(old) === JSON.stringify(fresh) ? old : fresh;
}

/** Both lists without duplicates, newest first. Storage may lag behind events, so known outcomes are kept. */
function mergeRecent(known, listed) {
  const byKey = new Map([...known, ...listed].map((ping) => [`${ping.agent_id} ${ping.ping_seq}`, ping]));
  return [...byKey.values()].sort((a, b) => Date.parse(b.pinged_at) - Date.parse(a.pinged_at)).slice(0, RECENT_SHOWN);
}

/** The fleet with one event of the stream applied. */
export function fromEvent(fleet, event) {
  if (event.kind === "removed") return withoutAgent(fleet, event.agent_id);
  const next = { ...fleet };
  if (event.agent) applyAgent(next, fleet, event);
  if (event.ping) applyPing(next, fleet, event.ping);
  return next;
}

function applyAgent(next, fleet, event) {
  const old = fleet.agents.get(event.agent_id);
  next.byStatus = recount(fleet.byStatus, old?.status ?? event.previous_status ?? null, event.agent.status);
  const isListed = old || fleet.agents.size < LISTED;
  // only the worst of a big fleet are listed; the next response lists this agent if it is one of them
  if (!isListed) return;
  // events carry no time-weighted uptime: keep the last one until the next dashboard response
  const agent = {
    ...event.agent,
    uptime_24h_percent: event.agent.uptime_24h_percent ?? old?.uptime_24h_percent ?? null,
  };
  next.agents = new Map(fleet.agents).set(event.agent_id, agent);
  if (!old) next.total = Math.max(fleet.total, next.agents.size);
}

function applyPing(next, fleet, ping) {
  const id = ping.agent_id;
  next.recent = mergeRecent(fleet.recent, [ping]);
  const known = fleet.beats.get(id);
  if (!known && !next.agents.has(id)) return;
  next.beats = new Map(fleet.beats).set(id, mergeBeats(known, [ping]));
  const hasGap = known?.length ? ping.ping_seq > known[0].ping_seq + 1 : ping.ping_seq > 1;
  if (hasGap) next.stale = new Set(fleet.stale).add(id);
}

function withoutAgent(fleet, id) {
  const gone = fleet.agents.get(id);
  const [agents, beats] = [new Map(fleet.agents), new Map(fleet.beats)];
  agents.delete(id);
  beats.delete(id);
  const total = Math.max(0, fleet.total - 1);
  return { ...fleet, agents, beats, total, byStatus: recount(fleet.byStatus, gone?.status ?? null, null) };
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

// ---- rows of the table ----

const SORTS = {
  status: (agent) => [status(agent.status).severity, -(agent.consecutive_poor_uptime ?? 0)],
  id: () => [],
  uptime: (agent) => [agent.uptime_24h_percent ?? Number.POSITIVE_INFINITY],
  interval: (agent) => [-agent.current_interval_minutes],
  next: (agent) => [agent.next_ping_at ? Date.parse(agent.next_ping_at) : Number.POSITIVE_INFINITY],
  response: (agent) => [-(agent.last_response_ms ?? -1)],
};

/** The agents that match the filter and the search, sorted; equal ones by id. */
export function selectRows(agents, { status: only, search, sort, reverse }) {
  const needle = search.trim().toLowerCase();
  const matches = (agent) => (!only || agent.status === only) && (!needle || searchText(agent).includes(needle));
  const key = SORTS[sort] ?? SORTS.status;
  const sorted = [...agents].filter(matches).map((agent) => [key(agent), agent]);
  sorted.sort(([a, one], [b, other]) => compare(a, b) || (one.agent_id < other.agent_id ? -1 : 1));
  const result = sorted.map(([, agent]) => agent);
  return reverse ? result.reverse() : result;
}

const searchText = (agent) =>
  [agent.agent_id, agent.agent_url ?? "", ...(agent.capabilities ?? []), ...(agent.gpus ?? []).map((gpu) => gpu.name)]
    .join(" ")
    .toLowerCase();

function compare(a, b) {
  const index = a.findIndex((value, at) => value !== b[at]);
  return index < 0 ? 0 : a[index] < b[index] ? -1 : 1;
}
