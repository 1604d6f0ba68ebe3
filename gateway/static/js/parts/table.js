/** The table of agents, sorted, filtered and searched by the route. */

import { selectRows } from "../fleet.js";
import { count } from "../format.js";
import { classes, html } from "../preact.js";
import { go } from "../route.js";
import { status } from "../labels.js";
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

export function Table({ fleet, route, searchResults }) {
  const known =
    searchResults.length > 0
      ? new Map([...fleet.agents, ...searchResults.map((agent) => [agent.agent_id, fleet.agents.get(agent.agent_id) ?? agent])])
      : fleet.agents;
  const rows = selectRows(known.values(), route);
  return html`<section class="agents" aria-label="Agents">
    <div class="agents-head">
      <h2>Agents <span class="quiet" role="status">${countText(rows.length, known.size, fleet.total, route)}</span></h2>
      <${Search} value=${route.search} />
    </div>
    <div class="table" role="table" aria-label="Agents" aria-rowcount=${rows.length + 1}>
      <div class="row head" role="row">
        ${COLUMNS.map((column) => html`<${Heading} key=${column.label} ...${column} route=${route} />`)}
      </div>
      ${rows.map(
        (agent) => html`<${ErrorBoundary} key=${agent.agent_id} name=${`Agent ${agent.agent_id}`} resetOn=${agent} isRow>
        <${Row}
          agent=${agent} beats=${fleet.beats.get(agent.agent_id) ?? NO_BEATS}
          isStale=${fleet.stale.has(agent.agent_id)} isOpen=${route.agent === agent.agent_id}
        />
      <//>`,
      )}
      ${rows.length === 0 && html`<${NoRows} route=${route} />`}
    </div>
  </section>`;
}

function countText(shown, known, total, route) {
  const isFiltered = route.search || route.status;
  if (total > known && !isFiltered) return `the ${count(shown)} worst of ${count(total)}`;
  if (isFiltered) return `${count(shown)} of ${count(total)}`;
  return count(total);
}

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
