/**
 * Keeps the store true: the dashboard's answer first, then each event as it happens, and the answer again from
 * time to time, because live events may be lost without harm.
 */

import * as api from "./api.js";
import { fromDashboard, fromEvent, fromHistory } from "./fleet.js";
import { change, current } from "./store.js";

const REFRESH_MS = 30_000;
const REFRESH_AFTER_EVENTS_MS = 5_000;
const RETRY_MS = [1_000, 2_000, 4_000, 8_000];
const SLOWEST_RETRY_MS = RETRY_MS.at(-1);
const KINDS = ["ping", "registered", "removed"]; // `status` repeats what `ping` says

let source = null;
let retries = 0;
let refreshAt = 0;
let timer = null;

/** Asks for everything now, and follows the events from then on. */
export async function start() {
  await refresh();
  if (current().phase === "ready" && !source && !document.hidden) follow();
}

/**
 * A page that nobody sees lets its stream go: browsers keep six connections to one address, and a stream in each
 * of six tabs, or of pages kept for "back", would leave none for the seventh.
 */
export function followWhileSeen() {
  document.addEventListener("visibilitychange", () => (document.hidden ? rest() : start()));
  addEventListener("pagehide", rest);
  addEventListener("pageshow", (event) => event.persisted && start());
}

function rest() {
  clearTimeout(timer);
  stopFollowing();
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
      phase: "ready",
      problem: null,
      heardAt: Date.now(),
      clockOffset: Number.isFinite(clockOffset) ? clockOffset : 0,
      fleet: fromDashboard(state.fleet, answer),
    }));
    schedule(REFRESH_MS);
  } catch (error) {
    failed(error);
  }
}

function failed(error) {
  if (error.status === 401) {
    stopFollowing();
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

function follow() {
  source = new EventSource(api.EVENTS);
  source.addEventListener("open", () => {
    change({ live: "live" });
    refresh(); // what happened before the stream was open
  });
  source.addEventListener("error", () => {
    change({ live: "reconnecting" });
    if (source?.readyState === EventSource.CLOSED) source = null; // refused: the browser gives up, we do not
    if (refreshAt > Date.now() + SLOWEST_RETRY_MS) schedule(RETRY_MS[0]); // is only the stream lost, or all?
  });
  source.addEventListener("reset", refresh); // some were missed for good
  for (const kind of KINDS) source.addEventListener(kind, heard);
}

function stopFollowing() {
  source?.close();
  source = null;
}

function heard(message) {
  const event = JSON.parse(message.data);
  change((state) => ({ fleet: fromEvent(state.fleet, event), heardAt: Date.now() }));
  if (refreshAt > Date.now() + REFRESH_AFTER_EVENTS_MS) schedule(REFRESH_AFTER_EVENTS_MS);
}

// ---- beats of the rows that are seen ------------------------------------------------------------------------

const AT_ONCE = 4; // of the six connections that a browser keeps to one address; the events have one for themselves
const wanted = new Map(); // id -> waits its turn
const asking = new Set();

/** Asks for an agent's recent outcomes, a few agents at a time. */
export function wantBeats(id) {
  if (asking.has(id)) return;
  wanted.set(id, true);
  pump();
}

function pump() {
  while (asking.size < AT_ONCE && wanted.size > 0) {
    const [id] = wanted.keys();
    wanted.delete(id);
    asking.add(id);
    askBeats(id).finally(() => {
      asking.delete(id);
      pump();
    });
  }
}

async function askBeats(id) {
  try {
    const answer = await api.history(id, { hours: 24 * 60, limit: 40 });
    change((state) => ({ fleet: fromHistory(state.fleet, id, answer.pings) }));
  } catch (error) {
    if (!(error instanceof api.Problem)) throw error;
    // no history just now: the row shows what events bring, and asks again after the next refresh
    change((state) => ({ fleet: fromHistory(state.fleet, id, []) }));
  }
}
