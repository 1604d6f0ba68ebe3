/**
 * What the page shows, kept in the URL after the hash so that it can be shared: `#/agent/ID?status=poor&q=gpu`. `hosts`
 * are those that were drawn around on the map (chosen.js).
 */

import { STATUSES } from "./labels.js";
import { useEffect, useState } from "./preact.js";
import { SORTS } from "./rows.js";

const DEFAULTS = { agent: null, month: null, status: null, hosts: null, search: "", sort: "status", reverse: false };

const PATH = /^\/agent\/([^/]+)(?:\/((?:19[7-9]\d|[2-9]\d{3})-(?:0[1-9]|1[0-2])))?$/; // months since 1970
/** The ids of agents, as a field of a form takes it, too. */
export const ID_PATTERN = "[A-Za-z0-9][A-Za-z0-9_\\-]{0,62}";
const ONE_ID = new RegExp(`^${ID_PATTERN}$`);
const HOSTS = new RegExp(`^(\\.[a-z0-9]+|${ID_PATTERN}(,${ID_PATTERN})*)$`);
const NO_IDS = ["register", "due-for-ping"]; // the gateway's addresses have them
const LONGEST_SEARCH = 200; // letters, which is the most that the gateway takes

/** Whether an agent can have this id. */
export const isAgentId = (text) => ONE_ID.test(text) && !NO_IDS.includes(text);

/** The route that an address says. What makes no sense in it is as if it were not there. */
export function parse(hash) {
  const [path, query = ""] = hash.replace(/^#/, "").split("?");
  const parameters = new URLSearchParams(query);
  const [, agent, month] = path.match(PATH) ?? [];
  const [status, hosts, sort] = ["status", "hosts", "sort"].map((name) => parameters.get(name));
  return {
    agent: agent ? decoded(agent) : null,
    month: month ?? null,
    ...(path === "/wall" && { wall: true, by: parameters.get("by"), every: Number(parameters.get("every")) || 0 }),
    period: parameters.get("period"),
    status: STATUSES.some(({ name }) => name === status) ? status : null,
    hosts: hosts && HOSTS.test(hosts) ? hosts : null,
    search: (parameters.get("q") ?? "").slice(0, LONGEST_SEARCH),
    sort: Object.hasOwn(SORTS, sort ?? "") ? sort : DEFAULTS.sort,
    reverse: parameters.has("reverse"),
  };
}

function decoded(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return null; // typed by hand and malformed
  }
}

export function format({ agent, month, period, status, hosts, search, sort, reverse }) {
  const parameters = new URLSearchParams();
  if (status) parameters.set("status", status);
  if (hosts) parameters.set("hosts", hosts);
  if (search) parameters.set("q", search);
  if (sort !== DEFAULTS.sort) parameters.set("sort", sort);
  if (reverse) parameters.set("reverse", "");
  if (agent && period) parameters.set("period", period);
  const query = parameters.toString().replace(/=(?=&|$)/g, "").replaceAll("%2C", ",");
  const path = agent ? `agent/${encodeURIComponent(agent)}${month ? `/${month}` : ""}` : "";
  return `#/${path}${query ? `?${query}` : ""}`;
}

/** The part of the hash that filters and sorts: what links to agents keep. */
export const queryOf = (route) => format({ ...route, agent: null, month: null }).replace(/^#\/\??/, "");

/** The hash of the present route with some of its values changed. */
export const link = (part) => format({ ...parse(location.hash), ...part });

/** Changes the route. With `step` the browser's back button undoes it: for opening an agent, not for filters. */
export function go(part, { step = false } = {}) {
  const hash = link(part);
  if (step) location.hash = hash;
  else {
    history.replaceState(null, "", hash);
    dispatchEvent(new HashChangeEvent("hashchange"));
  }
}

export function useRoute() {
  const [route, setRoute] = useState(parse(location.hash));
  useEffect(() => {
    const follow = () => setRoute(parse(location.hash));
    addEventListener("hashchange", follow);
    return () => removeEventListener("hashchange", follow);
  }, []);
  return route;
}
