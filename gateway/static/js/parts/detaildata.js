/** The data of the detail panel: the agent and its outcomes over a period, kept up to date with live events. */

import * as api from "../api.js";
import { requestBeats, wantSoon } from "../live.js";
import { fromAgent } from "../fleet.js";
import { useEffect, useRef, useState } from "../preact.js";
import { change, current, serverNow } from "../store.js";
import { hoursSince, periodOf } from "./periods.js";

const PAGE = 200;
const POINTS = 400; // as many as a chart has room for
const STORAGE_DELAY_MS = 1500; // storage needs a moment to write an outcome

/** `{ agent, problem }`. An agent that no list has is requested, put into the store, and kept up to date there. */
export function useAgent(id, known, newest, returns) {
  const [problem, setProblem] = useState(null);
  const isKnown = Boolean(known);
  useEffect(() => {
    requestBeats(id);
    change((state) => ({ fleet: { ...state.fleet, opened: id } }));
    wantSoon();
    // events carry no uptime of 24 h, so an agent that only the panel shows is asked for after each outcome
    const isListed = current().fleet.listed.has(id);
    if (isKnown && isListed) return undefined;
    return cancellable(
      api.agent(id),
      (agent) => {
        setProblem(null);
        change((state) => ({ fleet: fromAgent(state.fleet, agent) }));
      },
      setProblem,
    );
  }, [id, isKnown, newest, returns]);
  return { agent: known ?? null, problem: isKnown ? null : problem };
}

/** Nothing is older than this, in milliseconds since 1970; null until that is known. */
function beganAt(agent, isGone) {
  if (agent) return Date.parse(agent.registered_at) - 1000;
  return isGone ? 0 : null;
}

/**
 * `{ answer, problem }`: the period in buckets, asked again after each outcome and after each return. It is asked for
 * once the agent is there, or `isGone`: a removed one has a past all the same.
 */
export function useSeries(id, period, agent, isGone, newest, returns) {
  const [series, setSeries] = useState({ answer: null, problem: null });
  const asked = useRef(null);
  const { text, isOpen } = period;
  const registered = beganAt(agent, isGone);
  useEffect(() => {
    if (registered == null) return undefined;
    const isSame = asked.current === `${id} ${text}`;
    if (isSame && !isOpen) return undefined; // what is over does not change
    asked.current = `${id} ${text}`;
    let stop = () => {};
    const ask = () => {
      const now = serverNow();
      const asOfNow = periodOf(text, now);
      const until = Math.min(now, asOfNow.until);
      // nothing is older than the registration, so that a young agent is drawn finely
      const since = registered < until - 1000 ? Math.max(asOfNow.since, registered) : asOfNow.since;
      const query = { since: iso(since), until: iso(until), points: POINTS };
      stop = cancellable(
        api.series(id, query),
        (answer) => setSeries({ answer: { ...answer, text }, problem: null }),
        (error) => setSeries((before) => ({ answer: before.answer?.text === text ? before.answer : null, problem: error.message })),
      );
    };
    const timer = setTimeout(ask, isSame ? STORAGE_DELAY_MS : 0);
    return () => {
      clearTimeout(timer);
      stop();
    };
  }, [id, text, registered, isOpen ? newest : 0, returns]);
  return series;
}

const iso = (milliseconds) => new Date(milliseconds).toISOString();

const NO_OUTCOMES = { pings: [], lost: 0, problem: null, next: null, isLoading: true };

/**
 * `{ pings, lost, problem, next, isLoading, more }`. Pings are newest first; `more()` loads the next older page; `lost`
 * is how many outcomes never reached history.
 */
export function useOutcomes(id, { text, isOpen }, beats, returns) {
  const key = `${id} ${text}`;
  const [state, setState] = useState({ ...NO_OUTCOMES, key });
  const answer = state.key === key ? state : { ...NO_OUTCOMES, key };
  const ask = (cursor = null) => {
    const now = serverNow();
    const { since, until } = periodOf(text, now);
    const query = { hours: hoursSince(since, now), limit: PAGE, ...(!isOpen && { before: iso(until) }), ...(cursor && { cursor }) };
    setState((known) => ({ ...(known.key === key ? known : NO_OUTCOMES), key, isLoading: true }));
    return cancellable(
      api.history(id, query),
      (page) => {
        const pings = page.pings.filter((ping) => Date.parse(ping.pinged_at) >= since);
        setState((known) => ({
          key,
          pings: cursor ? [...known.pings, ...pings] : pings,
          lost: page.summary.missing_seqs,
          next: pings.length < page.pings.length ? null : page.next_cursor,
          problem: null,
          isLoading: false,
        }));
      },
      (problem) => setState((known) => ({ ...known, problem, isLoading: false })),
    );
  };
  useEffect(() => ask(), [id, text, returns]);
  const pings = isOpen ? withLive(answer.pings, beats) : answer.pings;
  return { ...answer, pings, more: answer.next ? () => ask(answer.next) : null };
}

/** The pings with those that only came as events: storage may be a moment behind. */
function withLive(pings, beats = []) {
  const newest = pings[0]?.ping_seq ?? Number.POSITIVE_INFINITY;
  const fresh = beats.filter((ping) => ping.ping_seq > newest);
  if (pings.length === 0) return beats;
  return fresh.length > 0 ? [...fresh, ...pings] : pings;
}

/** Calls one of the callbacks when the promise settles. Returns a function that prevents the call. */
function cancellable(promise, onAnswer, onProblem) {
  let isWanted = true;
  promise.then(
    (answer) => isWanted && onAnswer(answer),
    (problem) => isWanted && onProblem(problem),
  );
  return () => {
    isWanted = false;
  };
}
