/**
 * Keeps the store up to date: reads the dashboard's response first, then applies each live event. Events can be lost,
 * so the response is read again from time to time.
 */

import * as api from "./api.js";
import { fromDashboard, fromEvent, fromHistory, fromTotals, fromView, isWhole, viewKey } from "./fleet.js";
import { isShared, openStream } from "./stream/stream.js";
import { change, current } from "./store.js";

const REFRESH_MS = 30_000;
const REFRESH_AFTER_EVENTS_MS = 5_000; // of a fleet that the page knows whole, whose uptimes then follow its pings
const REFRESH_SOON_MS = 1_000;
const HIDDEN_REFRESH_MS = 60_000;
const RETRY_MS = [1_000, 2_000, 4_000, 8_000];
const SLOWEST_RETRY_MS = RETRY_MS.at(-1);
const PARTS = ["bus", "scheduler", "storage"];
const WANT_MS = 300; // wishes while the page is scrolled are sent together

let stream = null;
let lastEventId = null; // what the dashboard's response already has
let retries = 0;
let refreshAt = 0;
let timer = null;

/** Reads the dashboard now, and opens the event stream once that worked. */
export async function start() {
  await refresh();
  if (current().phase === "ready" && !stream) follow();
}

/**
 * Lets go of the stream while the page is in the back-forward cache. A hidden tab goes on where it shares the one stream:
 * its title counts the hosts in trouble. It asks for less, and for everything once it is shown again.
 */
export function pauseWhileAway() {
  document.addEventListener("visibilitychange", () => {
    if (!document.hidden) start();
    else if (!isShared) pause();
  });
  addEventListener("pagehide", pause);
  addEventListener("pageshow", (event) => event.persisted && start());
}

function pause() {
  clearTimeout(timer);
  closeStream();
  change({ live: "connecting" });
}

async function refresh() {
  clearTimeout(timer);
  const askedAt = Date.now();
  try {
    const answer = await api.dashboard();
    lastEventId = answer.last_event_id ?? null;
    const clockOffset = Date.parse(answer.generated_at) - (askedAt + Date.now()) / 2;
    retries = 0;
    change((state) => ({
      returns: state.problem ? state.returns + 1 : state.returns,
      phase: "ready",
      problem: null,
      heardAt: Date.now(),
      answeredAt: Date.now(),
      clockOffset: Number.isFinite(clockOffset) ? clockOffset : 0,
      fleet: fromDashboard(state.fleet, answer),
    }));
    want();
    schedule(answer.degraded?.length > 0 ? REFRESH_AFTER_EVENTS_MS : REFRESH_MS);
    if (view) await readView(view, current().fleet.view.ids.length);
  } catch (error) {
    onFailure(error);
  }
}

function onFailure(error) {
  if (error.status === 401) {
    closeStream();
    change({ phase: "login", problem: null });
    return;
  }
  if (!(error instanceof api.Problem)) console.error(error);
  const wait = RETRY_MS[Math.min(retries, RETRY_MS.length - 1)];
  retries += 1;
  change({ problem: error.message });
  schedule(wait);
}

function schedule(wait) {
  clearTimeout(timer);
  const patience = document.hidden ? Math.max(wait, HIDDEN_REFRESH_MS) : wait;
  refreshAt = Date.now() + patience;
  timer = setTimeout(start, patience);
}

function follow() {
  stream = openStream({ onEvent: (name, data) => HANDLERS[name]?.(data), onState });
  asked = null;
  want();
}

function closeStream() {
  stream?.close();
  stream = null;
}

const STATES = { open: "live", lost: "reconnecting", closed: "reconnecting" };

function onState(state) {
  const wasLost = current().live === "reconnecting";
  change({ live: STATES[state] });
  if (state === "open") {
    if (wasLost) refresh(); // for what happened meanwhile and is no longer kept
    return;
  }
  if (state === "closed") closeStream(); // it was refused: `start` has to open another
  // find out soon whether the gateway answers at all
  if (refreshAt > Date.now() + SLOWEST_RETRY_MS) schedule(RETRY_MS[0]);
}

// ---- the agents whose events the page wants ----

const visible = new Set(); // ids of the rows on the screen
let asked = null; // the wish that was sent last, as a text
let wantTimer = null;

/** Tells that a row came onto the screen, or left it. */
export function showRow(id, isVisible) {
  if (isVisible) visible.add(id);
  else visible.delete(id);
  wantSoon();
}

/** Asks the stream soon for what the page shows now. */
export function wantSoon() {
  wantTimer ??= setTimeout(want, WANT_MS);
}

/** Asks the stream for the events of the rows on the screen and of the panel; of a small fleet for those of all. */
function want() {
  clearTimeout(wantTimer);
  wantTimer = null;
  if (!stream) return;
  const { fleet } = current();
  const agents = new Set(isWhole(fleet) ? fleet.listed : visible);
  if (fleet.opened) agents.add(fleet.opened);
  const wanted = JSON.stringify([...agents].sort());
  if (wanted === asked) return;
  const before = new Set(asked == null ? [] : JSON.parse(asked));
  const isOld = asked != null && [...agents].some((id) => !before.has(id)) && !isWhole(fleet);
  asked = wanted;
  stream.want({ agents: [...agents], after: lastEventId });
  // rows that were out of sight may have changed meanwhile
  if (isOld && refreshAt > Date.now() + REFRESH_AFTER_EVENTS_MS) schedule(REFRESH_SOON_MS);
}

const HANDLERS = {
  health: onHealth,
  reset: refresh, // the gateway no longer keeps some of the missed events
  totals: onTotals,
  ping: onEvent,
  registered: onEvent,
  removed: onEvent,
  connected: onEvent,
  conflict: onEvent,
};

function onTotals(totals) {
  const { fleet } = current();
  if (totals.agents !== fleet.total && refreshAt > Date.now() + REFRESH_SOON_MS) schedule(REFRESH_SOON_MS);
  change((state) => ({ fleet: fromTotals(state.fleet, totals), heardAt: Date.now() }));
}

/** What is back is asked again at once: rows and the panel may have failed while it was away. */
function onHealth(health) {
  const before = current().health;
  const isBack = PARTS.some((part) => health[part] && before && !before[part]);
  const isGone = PARTS.some((part) => !health[part] && (!before || before[part]));
  change((state) => ({ health, heardAt: Date.now(), returns: state.returns + (isBack ? 1 : 0) }));
  if (isBack || isGone) refresh();
}

function onEvent(event) {
  change((state) => ({ fleet: fromEvent(state.fleet, event), heardAt: Date.now() }));
  const isSmall = isWhole(current().fleet);
  if (isSmall && refreshAt > Date.now() + REFRESH_AFTER_EVENTS_MS) schedule(REFRESH_AFTER_EVENTS_MS);
}

// ---- rows that the gateway finds ----

const VIEW_PAGE = 100;
const MOST_ROWS = 1000;
const TYPING_MS = 200;
let view = null; // the question whose answer is shown; null while the page knows its rows itself
let viewTimer = null;

/** Asks for the rows of a route where the page does not know them. Called whenever the route or the fleet changes. */
export function showRoute(fleet, route) {
  const wanted = viewKey(fleet, route);
  if (wanted === view) return;
  const isTyped = view != null && wanted != null && JSON.parse(view).search !== JSON.parse(wanted).search;
  view = wanted;
  clearTimeout(viewTimer);
  if (wanted != null) viewTimer = setTimeout(() => readView(wanted), isTyped ? TYPING_MS : 0);
}

export const moreRows = () => readView(view, 0, current().fleet.view.next);

/** Reads the first page, of at least `known` rows, or the page after a cursor. */
async function readView(wanted, known = 0, cursor = null) {
  const { status, search, order, reverse } = JSON.parse(wanted);
  const limit = Math.min(MOST_ROWS, Math.max(VIEW_PAGE, Math.ceil(known / VIEW_PAGE) * VIEW_PAGE));
  const query = { limit, order, ...(reverse && { reverse: true }), ...(status && { status }), ...(search && { search }), ...(cursor && { cursor }) };
  try {
    const page = await api.agents(query);
    if (wanted === view) change((state) => ({ fleet: fromView(state.fleet, wanted, page, cursor != null) }));
  } catch (error) {
    if (!(error instanceof api.Problem)) throw error;
    if (wanted !== view) return;
    change(({ fleet }) => {
      const isShown = fleet.view.key === wanted;
      const rest = isShown ? fleet.view : { ids: [], total: 0, next: null };
      return { fleet: { ...fleet, view: { ...rest, key: wanted, problem: error.message } } };
    });
  }
}

// ---- beats of the rows on the screen ----

const TOGETHER_MS = 60; // rows that come onto the screen together are asked for together
const MOST_TOGETHER = 40;
const queued = new Set(); // ids that wait for their request
let inFlight = new Set();
let beatsTimer = null;

/** Requests an agent's recent outcomes, together with those of other rows; one request at a time. */
export function requestBeats(id) {
  if (inFlight.has(id)) return;
  queued.add(id);
  beatsTimer ??= setTimeout(sendRequest, TOGETHER_MS);
}

async function sendRequest() {
  beatsTimer = null;
  if (inFlight.size > 0 || queued.size === 0) return;
  inFlight = new Set([...queued].slice(0, MOST_TOGETHER));
  for (const id of inFlight) queued.delete(id);
  await loadBeats([...inFlight]);
  inFlight = new Set();
  sendRequest();
}

async function loadBeats(ids) {
  let beats = {};
  try {
    ({ beats } = await api.beats(ids));
  } catch (error) {
    if (!(error instanceof api.Problem)) throw error;
    // without history the rows show what events bring; it is requested again after the next refresh
  }
  change((state) => ({ fleet: ids.reduce((fleet, id) => fromHistory(fleet, id, beats[id] ?? []), state.fleet) }));
}
