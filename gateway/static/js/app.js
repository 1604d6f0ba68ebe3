/** The root component: it chooses which parts of the page are shown. */

import { Detail } from "./parts/detail.js";
import { Empty } from "./parts/empty.js";
import { ErrorBoundary } from "./parts/errorboundary.js";
import { Feed } from "./parts/feed.js";
import { Header } from "./parts/header.js";
import { Horizon } from "./parts/horizon.js";
import { Login } from "./parts/login.js";
import { Summary } from "./parts/summary.js";
import { Table } from "./parts/table.js";
import { Tiles } from "./parts/tiles.js";
import { Tooltip } from "./parts/tooltip.js";
import { formatTime } from "./format.js";
import { classes, html } from "./preact.js";
import { useRoute } from "./route.js";
import { useSearchResults } from "./agentsearch.js";
import { useStore } from "./store.js";

export function App() {
  const state = useStore();
  const route = useRoute();
  return html`
    <${Header} live=${state.live} phase=${state.phase} />
    <${ProblemBanner} state=${state} />
    ${state.phase === "login" && html`<${Login} />`}
    ${state.phase === "loading" && html`<${Loading} />`}
    ${state.phase === "ready" && html`<${Fleet} fleet=${state.fleet} route=${route} />`}
    <${Tooltip} />
  `;
}

function Fleet({ fleet, route }) {
  const searchResults = useSearchResults(fleet, route);
  if (fleet.total === 0 && fleet.agents.size === 0 && !route.agent) return html`<main><${Empty} /></main>`;
  return html`<div class=${classes({ page: true, "has-detail": route.agent })}>
    <main class="fleet">
      <${ErrorBoundary} name="The summary" resetOn=${fleet}><${Summary} fleet=${fleet} /><//>
      <${ErrorBoundary} name="The number of agents by status" resetOn=${fleet}>
        <${Tiles} fleet=${fleet} only=${route.status} />
      <//>
      <${ErrorBoundary} name="The timeline of next pings" resetOn=${fleet}>
        <${Horizon} agents=${[...fleet.agents.values()]} />
      <//>
      <div class="columns">
        <${ErrorBoundary} name="The table of agents" resetOn=${fleet}>
          <${Table} fleet=${fleet} route=${route} searchResults=${searchResults} />
        <//>
        <${ErrorBoundary} name="The list of recent outcomes" resetOn=${fleet}><${Feed} recent=${fleet.recent} /><//>
      </div>
    </main>
    ${
      route.agent &&
      html`<${ErrorBoundary} key=${route.agent} name=${`Agent ${route.agent}`} resetOn=${fleet}>
        <${Detail}
          id=${route.agent} known=${fleet.agents.get(route.agent)} beats=${fleet.beats.get(route.agent)}
        />
      <//>`
    }
  </div>`;
}

/** The present failure as a sentence: the gateway does not answer, or storage does not. */
function ProblemBanner({ state }) {
  const since = state.heardAt ? ` Shown is what was known at ${formatTime(new Date(state.heardAt).toISOString())}.` : "";
  if (state.problem)
    return html`<p class="trouble is-bad" role="alert"><strong>${state.problem}</strong>${since} Trying again by itself.</p>`;
  const { scheduler, storage } = state.fleet.reasons;
  if (scheduler) {
    return html`<p class="trouble is-bad" role="alert">
      <strong>The scheduler cannot work.</strong> ${scheduler}
    </p>`;
  }
  if (storage) {
    return html`<p class="trouble" role="status">
      <strong>Storage cannot work.</strong> Pings go on; uptimes of 24 h and history are back when it can. ${storage}
    </p>`;
  }
  return null;
}

const Loading = () => html`<main class="loading" aria-busy="true" aria-label="Loading"><i></i><i></i><i></i></main>`;
