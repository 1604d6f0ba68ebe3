/** The packed map of the fleet, as pages keep it: asked for as a whole, then kept up to date with live events. */

import { asSentence } from "../api.js";
import { gpuOffsets } from "./layout.js";

const NOT_JUDGED = -1; // in the place of an uptime

/** A host's uptime of 24 hours in tenths of a percent; below 0 where it is too early to tell, or storage did not answer. */
export const uptimeOfDay = (columns, host) => columns.uptimes_24h[host] ?? NOT_JUDGED;

/** The map, grouped by a field of the metadata or not. Throws an Error whose message is a sentence. */
export async function requestMap(label) {
  const query = label ? `?${new URLSearchParams({ label })}` : "";
  const response = await fetch(`ping-system/fleet-map${query}`, { credentials: "same-origin" }).catch(() => null);
  if (!response) throw new Error("The gateway does not answer.");
  if (response.status === 401) {
    location.href = "./";
    throw new Error("Sign in first.");
  }
  const answer = await response.json();
  if (!response.ok) throw new Error(asSentence(answer.detail ?? answer.title));
  return indexed(answer);
}

/** The answer with what is looked up often: where each host is, and where its GPUs' letters begin. */
function indexed(answer) {
  // letters as arrays: a text would be copied whole for each of a hundred updates a second
  const columns = { ...answer.columns, statuses: [...answer.columns.statuses], gpu_states: [...answer.columns.gpu_states] };
  return {
    columns,
    offsets: gpuOffsets(columns),
    hosts: new Map(columns.agent_ids.map((id, host) => [id, host])),
  };
}

/** Whether a `map` event tells of hosts that the map lacks, or still has, so that it has to be asked for anew. */
export function isOutdated(map, { removed, registered, is_cut: isCut }) {
  return isCut || removed.some((id) => map.hosts.has(id)) || registered.some((id) => !map.hosts.has(id));
}

/** Writes a `map` event into the columns. Returns the hosts that have updates; the next request has new hosts and GPUs. */
export function updated(map, updates) {
  const { columns, offsets } = map;
  const hosts = [];
  for (const [id, status, tenths, poor, letters] of updates) {
    const host = map.hosts.get(id);
    if (host === undefined) continue;
    hosts.push(host);
    columns.statuses[host] = status;
    columns.uptimes[host] = tenths;
    columns.escalations[host] = poor;
    if (letters.length !== columns.gpu_counts[host]) continue;
    for (let gpu = 0; gpu < letters.length; gpu += 1) columns.gpu_states[offsets[host] + gpu] = letters[gpu];
  }
  return hosts;
}
