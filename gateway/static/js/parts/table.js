/** The table of agents, sorted, filtered and searched by the route. */

import { rowsOf } from "../fleet.js";
import { count } from "../format.js";
import { moreRows } from "../live.js";
import { classes, html } from "../preact.js";
import { go, queryOf } from "../route.js";
import { status } from "../labels.js";
import { Chips } from "./chips.js";
import { ErrorBoundary } from "./errorboundary.js";
import { Icon } from "./glyph.js";
import { Row } from "./row.js";
import { Search } from "./search.js";

const COLUMNS = [
  { sort: "id", label: "Agent" },
  { sort: "status", label: "Status" },
  { label: "Last outcomes", note: "newest on the right" },
  { sort: "uptime", label: "Uptime 24 h", isNumber: true },
  { sort: "interval", label: "Interval" },
  { sort: "next", label: "Next ping", isNumber: true },
  { sort: "response", label: "Response", isNumber: true },
];
const NO_BEATS = [];

export function Table({ fleet, route }) {
  const { rows, total, next, isAsked, problem } = rowsOf(fleet, route);
  const query = queryOf(route);
  return html`<section class="agents" aria-label="Agents">
    <div class="agents-head">
      <h2>Agents <span class="quiet" role="status">${countText(rows.length, total, fleet, route)}</span></h2>
      <${Search} value=${route.search} />
    </div>
    <${Chips} route=${route} />
    ${problem && html`<p class="problem" role="alert">The list could not be read: ${problem}</p>`}
    <div class="table" role="table" aria-label="Agents" aria-rowcount=${total == null ? -1 : total + 1} aria-busy=${!isAsked}>
      <div class="row head" role="row">
        ${COLUMNS.map((column) => html`<${Heading} key=${column.label} ...${column} route=${route} />`)}
      </div>
      ${rows.map(
        (agent) => html`<${ErrorBoundary} key=${agent.agent_id} name=${`Agent ${agent.agent_id}`} resetOn=${agent} isRow>
        <${Row}
          agent=${agent} beats=${fleet.beats.get(agent.agent_id) ?? NO_BEATS} query=${query} baseSeconds=${fleet.baseSeconds}
          isStale=${fleet.stale.has(agent.agent_id)} isOpen=${route.agent === agent.agent_id}
        />
      <//>`,
      )}
      ${rows.length === 0 && isAsked && !problem && html`<${NoRows} route=${route} />`}
      ${!isAsked && html`<div class="no-rows" role="row"><div role="cell">Asking for the agents …</div></div>`}
    </div>
    ${next && html`<p class="more"><button type="button" onClick=${moreRows}>Show more</button></p>`}
  </section>`;
}

/** How many rows are shown of how many that fit, and of the whole fleet where that is another number. */
function countText(shown, total, fleet, route) {
  if (total == null) return "";
  if (!route.search.trim() && !route.status) return total > shown ? `the ${count(shown)} ${worstWord(route)} of ${count(total)}${orderNote(route)}` : count(total);
  const found = shown < total ? `${count(shown)} of ${count(total)} found` : `${count(total)} found`;
  return `${found}, of ${count(fleet.total)}`;
}

/** The gateway sorts by what the scheduler knows, which is not the uptime of 24 hours that the column shows. */
const orderNote = (route) => (route.sort === "uptime" ? ", by the uptime of their last ping" : "");

const worstWord = (route) => (route.sort === "status" && !route.reverse ? "worst" : "first");

function Heading({ sort, label, note, isNumber, route }) {
  const isSorted = sort && route.sort === sort;
  const name = classes({ cell: true, number: isNumber });
  const press = () => go({ sort, reverse: isSorted ? !route.reverse : false });
  const arrow = isSorted && html`<${Icon} name=${route.reverse ? "down" : "up"} />`;
  const direction = isSorted ? (route.reverse ? "descending" : "ascending") : undefined;
  return html`<div class=${name} role="columnheader" aria-sort=${direction}>
    ${
      sort
        ? html`<button type="button" class="sort" onClick=${press}>${label}${arrow}</button>`
        : html`<span title=${note}>${label}</span>`
    }
  </div>`;
}

function NoRows({ route }) {
  const of = route.status ? `is ${status(route.status).label.toLowerCase()}` : "is listed";
  const and = route.search ? `${route.status ? " and" : ", or"} fits “${route.search}”` : "";
  return html`<div class="no-rows" role="row"><div role="cell">
    <p>No agent ${of}${and}.</p>
    <button type="button" onClick=${() => go({ status: null, search: "" })}>Show all agents</button>
  </div></div>`;
}
