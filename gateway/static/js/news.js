/**
 * What changed in the fleet, as entries to read: status changes, and troubles of GPUs that began or ended. What many
 * hosts share is one entry. No I/O and no clock.
 */

import { duration, plural, SPACE } from "./format.js";
import { BEATS, outcomeKind, reason, reasonOf, remark } from "./labels.js";

const TOGETHER_MS = 60_000; // what is alike and so close to the next is one entry
const LEAST_UNKNOWN_MS = 1_000;
const FEWEST_TOGETHER = 3; // hosts
const TOLD_AT_ONCE = 30; // changes of the dashboard's response; there may be more before the oldest of so many
const TONES = { down: "down", degraded: "degraded", unknown: "unknown", event: "excused" };

/**
 * The entries, newest first: `{ key, tone, ids, place, at, isSince, subject, before, what, rest }`. `ids` are its hosts,
 * `place` the site that they share, `isAtLeast` whether there may be more of them; `what` is the word that matters, between `subject` and `before`, and `rest`.
 */
export function newsOf({ changes, troubles, sites, agents }) {
  const siteOf = (id) => sites.get(id) ?? labelOf(agents.get(id)) ?? null;
  const entries = [
    ...together(changes, (one) => outcomeKind(one.ping) + whyKey(one.ping), timeOfChange).map((group) => ofChanges(group, changes, troubles, siteOf)),
    ...together(troubles.filter(isWorthTelling), (one) => `${one.state} ${one.reason} ${one.until != null}`, timeOfTrouble).map((group) => ofTroubles(group, siteOf)),
  ];
  return entries.sort((one, other) => other.at - one.at || (one.key < other.key ? -1 : 1));
}

/** A moment in which agentd had not looked yet is none. */
const isWorthTelling = ({ state, since, until }) =>
  state !== "unknown" || until == null || Date.parse(until) - Date.parse(since) >= LEAST_UNKNOWN_MS;

const labelOf = (agent) => (typeof agent?.metadata?.site === "string" ? agent.metadata.site : undefined);
const timeOfChange = ({ ping }) => Date.parse(ping.pinged_at);
const timeOfTrouble = ({ since, until }) => Date.parse(until ?? since);
const idOfChange = ({ ping }) => ping.agent_id;
const idOfTrouble = ({ agent_id: id }) => id;

/** A site's hosts miss for different reasons, nobody listening or no answer in time: that is one event. */
const whyKey = (ping) => (outcomeKind(ping) === "missed" ? "" : ` ${ping.reason} ${(ping.gpus ?? []).flatMap((gpu) => gpu.reasons ?? []).join(" ")}`);

/** What has one key and follows upon another within TOGETHER_MS as groups: those of many hosts, and those of each host. */
function together(all, keyOf, timeOf) {
  const idOf = timeOf === timeOfChange ? idOfChange : idOfTrouble;
  const groups = [];
  const open = new Map(); // the group of each key that goes on, from new to old
  for (const one of [...all].sort((a, b) => timeOf(b) - timeOf(a))) {
    const key = keyOf(one);
    const group = open.get(key);
    if (group && timeOf(group.at(-1)) - timeOf(one) <= TOGETHER_MS) group.push(one);
    else {
      const begun = [one];
      open.set(key, begun);
      groups.push(begun);
    }
  }
  return groups.flatMap((group) => (new Set(group.map(idOf)).size >= FEWEST_TOGETHER ? [group] : ofEachHost(group, idOf)));
}

function ofEachHost(group, idOf) {
  const byHost = new Map();
  for (const one of group) byHost.set(idOf(one), [...(byHost.get(idOf(one)) ?? []), one]);
  // a host's outcomes are one after the other, its GPUs fail together
  return idOf === idOfChange ? group.map((one) => [one]) : [...byHost.values()];
}

function ofChanges(group, changes, troubles, siteOf) {
  const [{ ping, previous }] = group;
  const kind = outcomeKind(ping);
  const ids = [...new Set(group.map(idOfChange))];
  const isMany = ids.length >= FEWEST_TOGETHER;
  const isOldest = changes.length >= TOLD_AT_ONCE && group.includes(changes.at(-1));
  return {
    key: `${ping.agent_id} ${ping.ping_seq}`,
    isAtLeast: isOldest || group.some(({ isCut }) => isCut),
    kind,
    tone: kind,
    ids: isMany ? ids : [ping.agent_id],
    place: isMany ? placeOf(ids, siteOf) : null,
    at: timeOfChange(group.at(-1)),
    isSince: isMany && kind !== "first",
    subject: "",
    before: previous ? `${BEATS[previous]} → ` : "",
    what: BEATS[kind],
    rest: isMany ? reasonOf({ ...ping, gpus: [] }) : restOf(ping, troubles),
    percent: isMany ? null : ping.uptime_percent,
  };
}

/** Why an outcome is as it is, without what entries of their own say of its GPUs. */
function restOf(ping, troubles) {
  const at = Date.parse(ping.pinged_at);
  const begin = at - 1000 * (ping.window_seconds ?? 0);
  const isTold = ({ agent_id: id, since, until }) =>
    id === ping.agent_id && Date.parse(since) <= at && (until == null || Date.parse(until) >= begin);
  return reasonOf(troubles.some(isTold) ? { ...ping, gpus: [] } : ping);
}

function ofTroubles(group, siteOf) {
  const [{ state, reason: code, until, since, times }] = group;
  const ids = [...new Set(group.map(idOfTrouble))];
  const isMany = ids.length >= FEWEST_TOGETHER;
  const isOver = until != null && state !== "event";
  const why = remark(code) || reason(code);
  const lasted = isOver ? ` for ${duration((Date.parse(until) - Date.parse(since)) / 1000)}` : "";
  const often = !isMany && group.length === 1 && times > 1 ? `, ${plural(times, "time")} in 24${SPACE}h` : "";
  return {
    key: `${ids[0]} ${state} ${code} ${group.map(({ gpu }) => gpu).join()}`,
    kind: isOver ? "over" : state,
    tone: isOver ? "good" : (TONES[state] ?? "unknown"),
    ids,
    place: isMany ? placeOf(ids, siteOf) : null,
    at: timeOfTrouble(group.at(-1)),
    isSince: !isOver && state !== "event",
    subject: isMany ? "" : `${subjectOf(group)} `,
    before: "",
    what: state === "event" ? why : isOver ? `was ${state}${isMany ? "" : lasted}` : state,
    rest: `${state === "event" ? "" : why}${often}`,
    percent: null,
  };
}

/** `GPU 5`, `GPUs 0, 1`, or the host itself. */
function subjectOf(group) {
  if (group[0].gpu == null) return "Host";
  const indexes = [...new Set(group.map(({ index }) => String(index ?? "?")))];
  indexes.sort((one, other) => one.localeCompare(other, "en", { numeric: true }));
  return `${indexes.length > 1 ? "GPUs" : "GPU"} ${indexes.join(", ")}`;
}

/** The site that all share, or each with its number; null where none is known. */
function placeOf(ids, siteOf) {
  const counts = new Map();
  for (const id of ids) counts.set(siteOf(id), (counts.get(siteOf(id)) ?? 0) + 1);
  if (counts.has(null)) return null;
  if (counts.size === 1) return [...counts.keys()][0];
  const sorted = [...counts].sort(([, one], [, other]) => other - one);
  return sorted.map(([site, count]) => `${site} (${count})`).join(", ");
}
