/**
 * Keeps the store up to date: reads the dashboard's response first, then applies each live event. Events can be lost,
 * so the response is read again from time to time.
 */

import * as api from "./api.js";
import { LIVE_BY_STREAM, PARTS } from "./badge.js";
import { followBuild } from "./build.js";
import { idsOf } from "./chosen.js";
import { fromDashboard, fromEvent, fromHistory, fromTotals, fromView, isWhole, VIEW_PAGE } from "./fleet.js";
import { PLAIN, viewKey } from "./rows.js";
import { isShared, openStream } from "./stream/stream.js";
import { change, current } from "./store.js";

const REFRESH_MS = 30_000;
const REFRESH_AFTER_EVENTS_MS = 5_000; // of a fleet that the page knows whole, whose uptimes then follow its pings
const REFRESH_SOON_MS = 1_000;
const HIDDEN_REFRESH_MS = 60_000;
const RETRY_MS = [1_000, 2_000, 4_000, 8_000];
const SLOWEST_RETRY_MS = RETRY_MS.at(-1);
const WANT_MS = 300; // wishes are sent once the page rests for so long
const WANT_AT_MOST_MS = 2_000; // or at the latest so long after the first of them

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
    await readShownPages();
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

function onState(state) {
  const wasLost = current().live === "reconnecting";
  change({ live: LIVE_BY_STREAM[state] });
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
let firstWishAt = null; // of those that were not sent yet
let areRowsOld = false; // rows have come into sight that may have changed before

/** Tells that a row came onto the screen, or left it. */
export function showRow(id, isVisible) {
  if (isVisible) visible.add(id);
  else visible.delete(id);
  wantSoon();
}

/** Asks the stream for what the page shows, once it rests. */
export function wantSoon() {
  const now = Date.now();
  firstWishAt ??= now;
  clearTimeout(wantTimer);
  const isOverdue = now + WANT_MS > firstWishAt + WANT_AT_MOST_MS;
  wantTimer = setTimeout(() => want({ isAtRest: !isOverdue }), isOverdue ? 0 : WANT_MS);
}

/** Asks the stream for the events of the rows on the screen and of the panel; of a small fleet for those of all. */
function want({ isAtRest = true } = {}) {
  clearTimeout(wantTimer);
  firstWishAt = null;
  if (!stream) return;
  const { fleet } = current();
  const agents = new Set(isWhole(fleet) ? fleet.listed : visible);
  if (fleet.opened) agents.add(fleet.opened);
  const wanted = JSON.stringify([...agents].sort());
  if (wanted !== asked) {
    const before = new Set(asked == null ? [] : JSON.parse(asked));
    areRowsOld ||= asked != null && [...agents].some((id) => !before.has(id)) && !isWhole(fleet);
    asked = wanted;
    stream.want({ agents: [...agents], after: lastEventId });
  }
  if (!areRowsOld || !isAtRest) return;
  areRowsOld = false;
  if (refreshAt > Date.now() + REFRESH_AFTER_EVENTS_MS) schedule(REFRESH_SOON_MS);
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
  followBuild(health.page_build);
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

const TYPING_MS = 200;
const SCROLLED_MS = 80; // pages that are only scrolled past are not asked for
let view = null; // the question whose answer is shown; null while the page knows its rows itself
let viewTimer = null;
let shownPages = []; // numbers of the pages of which rows are near the screen
let pagesTimer = null;
let isReading = false;

/** Asks for the rows of a route where the page does not know them. Called whenever the route or the fleet changes. */
export function showRoute(fleet, route) {
  const wanted = viewKey(fleet, route);
  if (wanted === view) return;
  const isTyped = view != null && wanted != null && JSON.parse(view).search !== JSON.parse(wanted).search;
  view = wanted;
  clearTimeout(viewTimer);
  if (wanted != null && wanted !== PLAIN) viewTimer = setTimeout(() => readPage(wanted, 0), isTyped ? TYPING_MS : 0);
  showPages(shownPages);
}

/** Tells which pages of the list are near the screen. Those that are not known are asked for. */
export function showPages(numbers) {
  shownPages = numbers;
  if (!numbers.some(isUnknown)) return;
  clearTimeout(pagesTimer);
  pagesTimer = setTimeout(readUnknownPages, SCROLLED_MS);
}

function isUnknown(number) {
  if (view == null || isListed(number)) return false;
  const known = current().fleet.view;
  return known.key !== view || !known.pages.has(number);
}

/** Whether the dashboard's response has the rows of a page. */
const isListed = (number) => view === PLAIN && number === 0;

async function readUnknownPages() {
  if (isReading) return;
  isReading = true;
  try {
    for (let number = shownPages.find(isUnknown); number != null; number = shownPages.find(isUnknown)) {
      if (!(await readPage(view, number))) return; // it is asked for again with the next refresh
    }
  } finally {
    isReading = false;
  }
}

/** Reads the shown pages again: their rows may have changed while no event told so. */
async function readShownPages() {
  const wanted = view;
  if (wanted == null) return;
  const numbers = (shownPages.length > 0 ? shownPages : [0]).filter((number) => !isListed(number));
  if (numbers.length === 0) change(({ fleet }) => ({ fleet: { ...fleet, view: { ...fleet.view, problem: null } } }));
  for (const number of numbers) if (wanted === view) await readPage(wanted, number);
}

/** Reads one page of a view; returns whether that worked. */
async function readPage(wanted, number) {
  try {
    const page = await askForPage(wanted, number);
    if (wanted === view) change((state) => ({ fleet: fromView(state.fleet, wanted, number, page) }));
    return true;
  } catch (error) {
    if (!(error instanceof api.Problem)) throw error;
    if (wanted === view) change(({ fleet }) => ({ fleet: { ...fleet, view: { ...viewOf(fleet, wanted), problem: error.message } } }));
    return false;
  }
}

const UNKNOWN_HOSTS = "These hosts were drawn around on the map in another browser, and only that one knows them.";

const viewOf = (fleet, key) => (fleet.view.key === key ? fleet.view : { key, pages: new Map(), total: 0 });

/** An answer has fewer rows than were asked for where a message on the bus could not carry more. */
async function askForPage(wanted, number) {
  const { status, hosts, search, order, reverse } = JSON.parse(wanted);
  const ids = hosts && idsOf(hosts);
  if (hosts && !ids) throw new api.Problem(0, UNKNOWN_HOSTS);
  const filters = { order, ...(reverse && { reverse: true }), ...(status && { status }), ...(search && { search }) };
  const agents = [];
  for (;;) {
    const query = { ...filters, limit: VIEW_PAGE - agents.length, offset: number * VIEW_PAGE + agents.length };
    const answer = await (ids ? api.chosenAgents(ids, query) : api.agents(query));
    agents.push(...answer.agents);
    if (agents.length >= VIEW_PAGE || answer.agents.length === 0 || !answer.next_cursor) return { agents, total: answer.total };
  }
}

// ---- beats of the rows on the screen ----

const TOGETHER_MS = 60; // rows that come onto the screen together are asked for together, once the page rests
const TOGETHER_AT_MOST_MS = 600;
const MOST_TOGETHER = 40;
const queued = new Set(); // ids that wait for their request
let inFlight = new Set();
let beatsTimer = null;
let firstQueuedAt = null;

/** Requests an agent's recent outcomes, together with those of other rows; one request at a time. */
export function requestBeats(id) {
  if (inFlight.has(id)) return;
  queued.add(id);
  firstQueuedAt ??= Date.now();
  clearTimeout(beatsTimer);
  beatsTimer = setTimeout(sendRequest, Math.min(TOGETHER_MS, Math.max(0, firstQueuedAt + TOGETHER_AT_MOST_MS - Date.now())));
}

async function sendRequest() {
  if (inFlight.size > 0) return;
  firstQueuedAt = null;
  const { opened } = current().fleet;
  const wanted = [...queued].filter((id) => visible.has(id) || id === opened); // others were only scrolled past
  queued.clear();
  if (wanted.length === 0) return;
  for (const id of wanted.slice(MOST_TOGETHER)) queued.add(id);
  inFlight = new Set(wanted.slice(0, MOST_TOGETHER));
  try {
    await loadBeats([...inFlight]);
  } finally {
    inFlight = new Set();
  }
  sendRequest();
}

async function loadBeats(ids) {
  let beats = new Map(); // by id: a host may be called as every object's own functions are
  try {
    beats = new Map(Object.entries((await api.beats(ids)).beats));
  } catch (error) {
    if (!(error instanceof api.Problem)) throw error;
    // without history the rows show what events bring; it is requested again after the next refresh
  }
  change((state) => ({ fleet: ids.reduce((fleet, id) => fromHistory(fleet, id, beats.get(id) ?? []), state.fleet) }));
}
