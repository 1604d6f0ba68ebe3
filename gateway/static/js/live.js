/**
 * Keeps the store up to date: reads the dashboard's response first, then applies each live event. Events can be lost,
 * so the response is read again from time to time.
 */

import * as api from "./api.js";
import { fromDashboard, fromEvent, fromHistory, fromView, viewKey } from "./fleet.js";
import { change, current } from "./store.js";

const REFRESH_MS = 30_000;
const REFRESH_AFTER_EVENTS_MS = 5_000;
const RETRY_MS = [1_000, 2_000, 4_000, 8_000];
const SLOWEST_RETRY_MS = RETRY_MS.at(-1);
const PARTS = ["bus", "scheduler", "storage"];
const EVENT_KINDS = ["ping", "registered", "removed", "conflict", "connected"]; // a `status` event repeats what a `ping` event says

let source = null;
let retries = 0;
let refreshAt = 0;
let timer = null;

/** Reads the dashboard now, and opens the event stream once that worked. */
export async function start() {
  await refresh();
  if (current().phase === "ready" && !source && !document.hidden) openStream();
}

/**
 * Closes the event stream while the page is hidden. A browser keeps at most six connections to one host: streams of six
 * hidden tabs, or of pages in the back-forward cache, would leave none for a seventh tab.
 */
export function pauseWhileHidden() {
  document.addEventListener("visibilitychange", () => (document.hidden ? pause() : start()));
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
  refreshAt = Date.now() + wait;
  timer = setTimeout(start, wait);
}

function openStream() {
  source = new EventSource(api.EVENTS);
  source.addEventListener("open", () => {
    change({ live: "live" });
    refresh(); // for what happened before the stream was open
  });
  source.addEventListener("error", () => {
    change({ live: "reconnecting" });
    // a refused stream is closed: the browser does not retry it, so `start` has to open another
    if (source?.readyState === EventSource.CLOSED) source = null;
    // find out soon whether the gateway answers at all
    if (refreshAt > Date.now() + SLOWEST_RETRY_MS) schedule(RETRY_MS[0]);
  });
  source.addEventListener("reset", refresh); // the gateway no longer keeps some of the missed events
  source.addEventListener("health", onHealth);
  for (const kind of EVENT_KINDS) source.addEventListener(kind, onEvent);
}

function closeStream() {
  source?.close();
  source = null;
}

/** What is back is asked again at once: rows and the panel may have failed while it was away. */
function onHealth(message) {
  const health = JSON.parse(message.data);
  const before = current().health;
  const isBack = PARTS.some((part) => health[part] && before && !before[part]);
  const isGone = PARTS.some((part) => !health[part] && (!before || before[part]));
  change((state) => ({ health, heardAt: Date.now(), returns: state.returns + (isBack ? 1 : 0) }));
  if (isBack || isGone) refresh();
}

function onEvent(message) {
  const event = JSON.parse(message.data);
  change((state) => ({ fleet: fromEvent(state.fleet, event), heardAt: Date.now() }));
  if (refreshAt > Date.now() + REFRESH_AFTER_EVENTS_MS) schedule(REFRESH_AFTER_EVENTS_MS);
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

const MAX_REQUESTS = 4; // a browser keeps six connections to one host; the event stream takes one
const queued = new Set(); // ids that wait for their request
const inFlight = new Set();

/** Requests an agent's recent outcomes, at most MAX_REQUESTS agents at a time. */
export function requestBeats(id) {
  if (inFlight.has(id)) return;
  queued.add(id);
  sendRequests();
}

function sendRequests() {
  while (inFlight.size < MAX_REQUESTS && queued.size > 0) {
    const [id] = queued;
    queued.delete(id);
    inFlight.add(id);
    loadBeats(id).finally(() => {
      inFlight.delete(id);
      sendRequests();
    });
  }
}

async function loadBeats(id) {
  try {
    const answer = await api.history(id, { hours: 24 * 60, limit: 40 });
    change((state) => ({ fleet: fromHistory(state.fleet, id, answer.pings) }));
  } catch (error) {
    if (!(error instanceof api.Problem)) throw error;
    // without history the row shows what events bring; it is requested again after the next refresh
    change((state) => ({ fleet: fromHistory(state.fleet, id, []) }));
  }
}
