/**
 * The rows of the table: which agents a route shows, in which order, and where each page of them stands.
 *
 * No function here does I/O.
 */

import { isWhole, VIEW_PAGE } from "./fleet.js";
import { status } from "./labels.js";

/** The orders of the table: an agent's place in each. */
export const SORTS = {
  status: (agent) => [
    status(agent.status).severity,
    -(agent.consecutive_poor_uptime ?? 0),
    agent.uptime_percent ?? Number.POSITIVE_INFINITY,
  ],
  id: () => [],
  uptime: (agent) => [agent.uptime_24h_percent ?? Number.POSITIVE_INFINITY],
  interval: (agent) => [-agent.current_interval_minutes],
  next: (agent) => [agent.next_ping_at ? Date.parse(agent.next_ping_at) : Number.POSITIVE_INFINITY],
  response: (agent) => [-(agent.last_response_ms ?? -1)],
};

/** The orders of the gateway's lists, by the page's. */
const ORDERS = { status: "worst", id: "id", uptime: "uptime", interval: "interval", next: "next", response: "response" };

const keyOf = (only, hosts, search, order, reverse) => JSON.stringify({ status: only, hosts, search, order, reverse });

/** The question for the whole fleet, the worst first: its first page is what the dashboard's response lists. */
export const PLAIN = keyOf(null, null, "", "worst", false);

/**
 * The question to the gateway that finds the rows of a route, as a text; null where the page knows them already. A
 * search always asks: the scheduler knows more of an agent than the page does. So do hosts that were chosen.
 */
export function viewKey(fleet, route) {
  const search = route.search.trim();
  if (!search && !route.hosts && isWhole(fleet)) return null;
  return keyOf(route.status, route.hosts, search, ORDERS[route.sort] ?? "worst", Boolean(route.reverse));
}

/**
 * The rows to show. `isAsked` is false until the gateway has answered: until then it is not known whether there is any
 * row.
 */
export function rowsOf(fleet, route) {
  const key = viewKey(fleet, route);
  const isShown = key != null && fleet.view.key === key;
  if (key == null || key === PLAIN) {
    const listed = selectRows(agentsOf(fleet, fleet.listed), route);
    const pages = isShown ? pagesOf(fleet, route) : new Map();
    const total = key == null ? listed.length : fleet.total;
    return { rows: new Rows(pages.set(0, listed), total), isAsked: true, problem: isShown ? fleet.view.problem : null };
  }
  if (!isShown) return { rows: new Rows(new Map(), 0), isAsked: false, problem: null };
  return { rows: new Rows(pagesOf(fleet, route), fleet.view.total), isAsked: true, problem: fleet.view.problem };
}

const agentsOf = (fleet, ids) => [...ids].map((id) => fleet.agents.get(id)).filter(Boolean);

/** The agents of each known page. A row whose status has changed meanwhile leaves the filter at once. */
function pagesOf(fleet, route) {
  const pages = new Map();
  // with every row known they are sorted as they change; otherwise they keep the gateway's order
  const isAll = fleet.view.total <= VIEW_PAGE;
  for (const [number, ids] of fleet.view.pages) {
    const found = agentsOf(fleet, ids);
    pages.set(number, isAll ? selectRows(found, route) : found.filter((agent) => fits(agent, route)));
  }
  return pages;
}

const fits = (agent, { status: only }) => !only || agent.status === only;

/** The agents of the route's status, sorted; equal ones by id. */
export function selectRows(agents, route) {
  const key = SORTS[route.sort] ?? SORTS.status;
  const sorted = agents.filter((agent) => fits(agent, route)).map((agent) => [key(agent), agent]);
  sorted.sort(([a, one], [b, other]) => compare(a, b) || (one.agent_id < other.agent_id ? -1 : 1));
  const result = sorted.map(([, agent]) => agent);
  return route.reverse ? result.reverse() : result;
}

function compare(a, b) {
  const index = a.findIndex((value, at) => value !== b[at]);
  return index < 0 ? 0 : a[index] < b[index] ? -1 : 1;
}

/**
 * All rows of a list, of which only some pages are known. A known page may have fewer rows than the gateway found, where
 * some have left the filter; the rows after it then move up.
 */
class Rows {
  /** `pages` are the agents of each known page, by its number; the gateway found `total` agents. */
  constructor(pages, total) {
    this._pages = pages;
    this._starts = []; // the index of each page's first row
    let next = 0;
    for (let number = 0; number * VIEW_PAGE < total || pages.has(number); number += 1) {
      this._starts.push(next);
      next += pages.get(number)?.length ?? Math.min(VIEW_PAGE, total - number * VIEW_PAGE);
    }
    this.length = next;
  }

  /** The rows from one index to another: `{ index, agent }`, with null for an agent that is not known yet. */
  within(first, last) {
    const found = [];
    const seen = new Set(); // an agent that moved between two answers may be on two pages
    for (let number = this._pageOf(first), index = first; index < Math.min(last, this.length); index += 1) {
      while (index >= this._endOf(number)) number += 1;
      const agent = this._pages.get(number)?.[index - this._starts[number]] ?? null;
      if (agent && seen.has(agent.agent_id)) continue;
      if (agent) seen.add(agent.agent_id);
      found.push({ index, agent });
    }
    return found;
  }

  /** The numbers of the pages that hold these rows. */
  pagesWithin(first, last) {
    const numbers = [];
    for (let number = this._pageOf(first); number < this._starts.length && this._starts[number] < last; number += 1) numbers.push(number);
    return numbers;
  }

  _endOf(number) {
    return this._starts[number + 1] ?? this.length;
  }

  _pageOf(index) {
    let low = 0;
    let high = this._starts.length - 1;
    while (low < high) {
      const middle = Math.ceil((low + high) / 2);
      if (this._starts[middle] <= index) low = middle;
      else high = middle - 1;
    }
    return Math.max(0, low);
  }
}
