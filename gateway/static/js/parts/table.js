/**
 * The table of agents, sorted, filtered and searched by the route. Only rows near the screen are elements; two boxes
 * stand for all others.
 */

import { isWhole } from "../fleet.js";
import { count } from "../format.js";
import { showPages } from "../live.js";
import { classes, html, useEffect, useRef } from "../preact.js";
import { rowsOf } from "../rows.js";
import { go, queryOf } from "../route.js";
import { status } from "../labels.js";
import { Chips } from "./chips.js";
import { ErrorBoundary } from "./errorboundary.js";
import { Icon } from "./glyph.js";
import { Row } from "./row.js";
import { useRowWindow } from "./rowwindow.js";
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
  const { rows, isAsked, problem } = rowsOf(fleet, route);
  const query = queryOf(route);
  const top = useRef();
  const { first, last, above, below, pitch } = useRowWindow(top, rows.length);
  const numbers = rows.pagesWithin(first, last).join(" ");
  useEffect(() => showPages(numbers ? numbers.split(" ").map(Number) : []), [numbers, fleet.view.key]);
  return html`<section class="agents" aria-label="Agents">
    <div class="agents-head">
      <h2>Agents <span class="quiet" role="status">${isAsked ? countText(rows.length, fleet, route) : ""}</span></h2>
      <${Search} value=${route.search} />
    </div>
    <${Chips} route=${route} />
    ${problem && html`<p class="problem" role="alert">The list could not be read: ${problem}</p>`}
    <div class="table" role="table" aria-label="Agents" aria-rowcount=${isAsked ? rows.length + 1 : -1} aria-busy=${!isAsked}>
      <div class="row head" role="row" aria-rowindex="1">
        ${COLUMNS.map((column) => html`<${Heading} key=${column.label} ...${column} route=${route} />`)}
      </div>
      <div key="top" ref=${top} class="unseen" style=${{ height: `${above}px` }}></div>
      ${rows.within(first, last).map(({ index, agent }) => {
        if (!agent) return html`<${UnknownRow} key=${index} index=${index} pitch=${pitch} />`;
        return html`<${ErrorBoundary} key=${agent.agent_id} name=${`Agent ${agent.agent_id}`} resetOn=${agent} isRow>
        <${Row}
          agent=${agent} beats=${fleet.beats.get(agent.agent_id) ?? NO_BEATS} query=${query} baseSeconds=${fleet.baseSeconds}
          index=${index} isStale=${fleet.stale.has(agent.agent_id)} isOpen=${route.agent === agent.agent_id}
        />
      <//>`;
      })}
      <div key="bottom" class="unseen" style=${{ height: `${below}px` }}></div>
      ${rows.length === 0 && isAsked && !problem && html`<${NoRows} route=${route} />`}
      ${!isAsked && html`<div class="no-rows" role="row"><div role="cell">Asking for the agents …</div></div>`}
    </div>
  </section>`;
}

/** A row whose agent the gateway is asked for. */
const UnknownRow = ({ index, pitch }) =>
  html`<div class="row is-unknown" role="row" aria-rowindex=${index + 2} style=${{ height: `${pitch}px` }}><div class="cell" role="cell">…</div></div>`;

/** How many agents are listed, and of how many, where that is another number. */
function countText(number, fleet, route) {
  if (!route.search.trim() && !route.status && !route.hosts) return `${count(number)}${orderNote(fleet, route)}`;
  return `${count(number)} found, of ${count(fleet.total)}`;
}

/** The gateway sorts by what the scheduler knows, which is not the uptime of 24 hours that the column shows. */
const orderNote = (fleet, route) => (route.sort === "uptime" && !isWhole(fleet) ? ", by the uptime of their last ping" : "");

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
  const whose = route.hosts ? "None of the hosts of the map" : "No agent";
  const does = [route.status && `is ${status(route.status).label.toLowerCase()}`, route.search && `fits “${route.search}”`].filter(Boolean);
  return html`<div class="no-rows" role="row"><div role="cell">
    <p>${whose} ${does.join(" and ") || (route.hosts ? "is registered any more" : "is listed")}.</p>
    <button type="button" onClick=${() => go({ status: null, hosts: null, search: "" })}>Show all agents</button>
  </div></div>`;
}
