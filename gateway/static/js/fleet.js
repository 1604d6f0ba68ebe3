/**
 * The fleet as the page knows it: what the dashboard's answer and each event make of it. Pure.
 *
 * A fleet is never changed in place: what is the same object was not touched, and its row is not drawn again.
 */

import { status } from "./words.js";

export const BEATS_SHOWN = 40;
const RECENT_SHOWN = 50;
const LISTED = 100; // the gateway lists so many

export const EMPTY = {
  agents: new Map(), // by id: those listed
  beats: new Map(), // by id: outcomes by falling ping_seq, as far as they are known
  stale: new Set(), // ids whose beats must be asked for
  total: 0,
  byStatus: {},
  totals: {},
  uptime: null,
  responseMs: {},
  lateMs: {},
  due: 0,
  recent: [],
  degraded: [], // services whose part of the answer is missing
};

/** The fleet after the dashboard's answer; beats that are known are kept. */
export function fromDashboard(fleet, answer) {
  const listed = answer.agents.map((agent) => unlessSame(fleet.agents.get(agent.agent_id), agent));
  const agents = new Map(listed.map((agent) => [agent.agent_id, agent]));
  const next = {
    ...fleet,
    agents,
    beats: kept(fleet.beats, agents),
    stale: new Set(fleet.stale),
    total: answer.totals?.agents ?? agents.size,
    byStatus: answer.by_status ?? {},
    totals: answer.totals ?? {},
    uptime: answer.uptime ?? null,
    responseMs: answer.response_ms ?? {},
    lateMs: answer.late_ms ?? {},
    due: answer.due ?? 0,
    recent: newest(fleet.recent, answer.recent ?? []),
    degraded: answer.degraded ?? [],
  };
  for (const ping of next.recent.filter((other) => agents.has(other.agent_id))) {
    next.beats.set(ping.agent_id, withPings(next.beats.get(ping.agent_id), [ping]));
  }
  for (const agent of listed) if (!isComplete(next.beats.get(agent.agent_id), agent)) next.stale.add(agent.agent_id);
  return next;
}

/** Of a big fleet only so many outcomes are kept as people looked at lately. */
function kept(beats, agents) {
  return new Map(beats.size > 4 * LISTED ? [...beats].filter(([id]) => agents.has(id)) : beats);
}

/** The same object when nothing in it changed, so that its row stays as it is drawn. */
function unlessSame(old, fresh) {
  return old && JSON.stringify(old) === JSON.stringify(fresh) ? old : fresh;
}

/** Storage may lag behind the events: what they brought stays. */
function newest(known, listed) {
  const byKey = new Map([...known, ...listed].map((ping) => [`${ping.agent_id} ${ping.ping_seq}`, ping]));
  return [...byKey.values()].sort((a, b) => Date.parse(b.pinged_at) - Date.parse(a.pinged_at)).slice(0, RECENT_SHOWN);
}

/** The fleet after one event of the stream. */
export function fromEvent(fleet, event) {
  if (event.kind === "removed") return without(fleet, event.agent_id);
  const next = { ...fleet };
  if (event.agent) placeAgent(next, fleet, event);
  if (event.ping) placePing(next, fleet, event.ping);
  return next;
}

function placeAgent(next, fleet, event) {
  const old = fleet.agents.get(event.agent_id);
  next.byStatus = recount(fleet.byStatus, old?.status ?? event.previous_status ?? null, event.agent.status);
  const isListed = old || fleet.agents.size < LISTED;
  if (!isListed) return; // one of a big fleet, of which the worst are listed; the next answer brings it if it is one
  // events carry no time-weighted uptime: the last one known stays until the next dashboard answer
  const agent = {
    ...event.agent,
    uptime_24h_percent: event.agent.uptime_24h_percent ?? old?.uptime_24h_percent ?? null,
  };
  next.agents = new Map(fleet.agents).set(event.agent_id, agent);
  if (!old) next.total = Math.max(fleet.total, next.agents.size);
}

function placePing(next, fleet, ping) {
  const id = ping.agent_id;
  next.recent = newest(fleet.recent, [ping]);
  const known = fleet.beats.get(id);
  if (!known && !next.agents.has(id)) return;
  next.beats = new Map(fleet.beats).set(id, withPings(known, [ping]));
  const hasGap = known?.length ? ping.ping_seq > known[0].ping_seq + 1 : ping.ping_seq > 1;
  if (hasGap) next.stale = new Set(fleet.stale).add(id);
}

function without(fleet, id) {
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

/** Known outcomes and further ones, newest first, each once, no more than are shown. */
export function withPings(known = [], pings) {
  const bySeq = new Map([...known, ...pings].map((ping) => [ping.ping_seq, ping]));
  return [...bySeq.values()].sort((a, b) => b.ping_seq - a.ping_seq).slice(0, BEATS_SHOWN);
}

/** The fleet with an agent's asked-for history in its beats. */
export function fromHistory(fleet, id, pings) {
  const stale = new Set(fleet.stale);
  stale.delete(id);
  return { ...fleet, stale, beats: new Map(fleet.beats).set(id, withPings(fleet.beats.get(id), pings)) };
}

function isComplete(beats = [], agent) {
  if (!agent.total_pings) return true;
  if (beats.length === 0) return false;
  const span = beats[0].ping_seq - beats.at(-1).ping_seq + 1;
  const isRecent = !agent.last_ping_at || Date.parse(beats[0].pinged_at) >= Date.parse(agent.last_ping_at);
  return isRecent && (beats.at(-1).ping_seq === 1 || beats.length >= BEATS_SHOWN) && span === beats.length;
}

// ---- what the table shows -----------------------------------------------------------------------------------

const SORTS = {
  status: (agent) => [status(agent.status).severity, -(agent.consecutive_poor_uptime ?? 0)],
  id: () => [],
  uptime: (agent) => [agent.uptime_24h_percent ?? Number.POSITIVE_INFINITY],
  interval: (agent) => [-agent.current_interval_minutes],
  next: (agent) => [agent.next_ping_at ? Date.parse(agent.next_ping_at) : Number.POSITIVE_INFINITY],
  response: (agent) => [-(agent.last_response_ms ?? -1)],
};

/** Agents that fit the filter and the search, in order; the id decides between equals. */
export function chosen(agents, { status: only, search, sort, reverse }) {
  const needle = search.trim().toLowerCase();
  const fits = (agent) => (!only || agent.status === only) && (!needle || haystack(agent).includes(needle));
  const key = SORTS[sort] ?? SORTS.status;
  const sorted = [...agents].filter(fits).map((agent) => [key(agent), agent]);
  sorted.sort(([a, one], [b, other]) => compare(a, b) || (one.agent_id < other.agent_id ? -1 : 1));
  const result = sorted.map(([, agent]) => agent);
  return reverse ? result.reverse() : result;
}

const haystack = (agent) =>
  [agent.agent_id, agent.agent_url ?? "", ...(agent.capabilities ?? []), ...(agent.gpus ?? []).map((gpu) => gpu.name)]
    .join(" ")
    .toLowerCase();

function compare(a, b) {
  const index = a.findIndex((value, at) => value !== b[at]);
  return index < 0 ? 0 : a[index] < b[index] ? -1 : 1;
}
