/** The root component: it chooses which parts of the page are shown. */

import { AddHostDialog, useCaller } from "./parts/addhost.js";
import { Detail } from "./parts/detail.js";
import { Empty } from "./parts/empty.js";
import { ErrorBoundary } from "./parts/errorboundary.js";
import { Changes } from "./parts/changes.js";
import { Help, useKeys } from "./parts/keys.js";
import { Header } from "./parts/header.js";
import { Horizon } from "./parts/horizon.js";
import { MonthPage } from "./month/page.js";
import { Operation, Remarks } from "./parts/operation.js";
import { Login } from "./parts/login.js";
import { Summary } from "./parts/summary.js";
import { Table } from "./parts/table.js";
import { Tiles } from "./parts/tiles.js";
import { Tooltip } from "./parts/tooltip.js";
import { formatTime } from "./format.js";
import { classes, html, useEffect } from "./preact.js";
import { newsOf } from "./news.js";
import { queryOf, useRoute } from "./route.js";
import { showRoute } from "./live.js";
import { useStore } from "./store.js";
import { PART_NAMES } from "./labels.js";
import { Tab } from "./tab.js";
import { Wall } from "./wall/wall.js";
import { useZone } from "./zone.js";

export function App() {
  const state = useStore();
  const route = useRoute();
  useZone();
  const caller = useCaller(state.phase, state.returns);
  const mayAdd = caller.mayChange;
  if (route.wall && state.phase === "ready") return html`
    <${Tab} state=${state} place="wall" />
    <${ErrorBoundary} name="The wall" resetOn=${state.fleet}><${Wall} state=${state} route=${route} /><//>
  `;
  return html`
    <${Tab} state=${state} place=${route.agent} />
    <${Header} state=${state} mayAdd=${mayAdd} />
    <${ProblemBanner} state=${state} />
    ${state.phase === "ready" && html`<${Remarks} health=${state.health} />`}
    ${state.phase === "login" && html`<${Login} />`}
    ${state.phase === "loading" && html`<${Loading} />`}
    ${state.phase === "ready" && route.month && html`<${ErrorBoundary} key=${route.agent} name=${`The month of ${route.agent}`} resetOn=${route}>
      <${MonthPage} route=${route} returns=${state.returns} />
    <//>`}
    ${state.phase === "ready" && !route.month && html`<${Fleet} fleet=${state.fleet} route=${route} returns=${state.returns} caller=${caller} />`}
    ${state.phase === "ready" && html`<${Operation} health=${state.health} />`}
    <${Tooltip} />
    <${Help} />
    ${mayAdd && html`<${AddHostDialog} />`}
  `;
}

function Fleet({ fleet, route, returns, caller }) {
  useEffect(() => showRoute(fleet, route));
  useKeys();
  if (fleet.total === 0 && fleet.agents.size === 0 && !route.agent) return html`<main><${Empty} caller=${caller} /></main>`;
  return html`<div class=${classes({ page: true, "has-detail": route.agent })}>
    <main class="fleet">
      <h1 class="spoken">The fleet</h1>
      <${ErrorBoundary} name="The summary" resetOn=${fleet}><${Summary} fleet=${fleet} /><//>
      <${ErrorBoundary} name="The number of agents by status" resetOn=${fleet}>
        <${Tiles} fleet=${fleet} only=${route.status} />
      <//>
      <${ErrorBoundary} name="The timeline of next pings" resetOn=${fleet}>
        <${Horizon} agents=${[...fleet.listed].map((id) => fleet.agents.get(id)).filter(Boolean)} baseSeconds=${fleet.baseSeconds} />
      <//>
      <div class="columns">
        <${ErrorBoundary} name="The table of agents" resetOn=${fleet}>
          <${Table} fleet=${fleet} route=${route} />
        <//>
        <${ErrorBoundary} name="The list of changes" resetOn=${fleet}>
          <${Changes} news=${newsOf(fleet)} query=${queryOf(route)} isUnknown=${fleet.degraded.includes("storage")} />
        <//>
      </div>
    </main>
    ${
      route.agent &&
      html`<${ErrorBoundary} key=${route.agent} name=${`Agent ${route.agent}`} resetOn=${fleet}>
        <${Detail}
          route=${route} mayPing=${caller.mayChange} known=${fleet.agents.get(route.agent)} beats=${fleet.beats.get(route.agent)} returns=${returns}
        />
      <//>`
    }
  </div>`;
}

const AWAY = {
  bus: "Nobody is pinged while it is away, and no time of it counts against a host.",
  scheduler: "Nobody is pinged meanwhile; agents go on counting their uptime themselves.",
  storage: "Pings go on. Uptimes of a period, charts and history are back when it is.",
};

/** The present failure as a sentence: the gateway does not answer, or a part behind it cannot work. */
function ProblemBanner({ state }) {
  if (state.phase !== "ready" && !state.problem) return null;
  const since = state.answeredAt
    ? ` Shown is what was known at ${formatTime(new Date(state.answeredAt).toISOString())}.`
    : "";
  const reasons = state.health?.reasons ?? state.fleet.reasons;
  const part = ["bus", "scheduler", "storage"].find((name) => reasons[name]);
  const isGatewayAway = state.problem && !(part && state.live === "live");
  if (isGatewayAway)
    return html`<p class="trouble is-bad" role="alert"><strong>${state.problem}</strong>${since} Trying again by itself.</p>`;
  if (!part) return null;
  return html`<p class=${classes({ trouble: true, "is-bad": part !== "storage" })} role="alert">
    <strong>${PART_NAMES[part]} cannot work: ${reasons[part].replace(/\.$/, "")}.</strong> ${AWAY[part]}${state.problem ? since : ""}
  </p>`;
}

const Loading = () => html`<main class="loading" aria-busy="true" aria-label="Loading"><h1 class="spoken">The fleet</h1><i></i><i></i><i></i></main>`;
