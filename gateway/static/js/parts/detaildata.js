/** The data of the detail panel: the agent and its outcomes over a period, kept up to date with live events. */

import * as api from "../api.js";
import { requestBeats, wantSoon } from "../live.js";
import { fromAgent } from "../fleet.js";
import { useEffect, useRef, useState } from "../preact.js";
import { change, current, serverNow } from "../store.js";
import { beginOf } from "./periods.js";

const PAGE = 200;
const POINTS = 400; // as many as a chart has room for
const STORAGE_DELAY_MS = 1500; // storage needs a moment to write an outcome

/** The agent. One that no list has is requested, put into the store, and kept up to date there. */
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
      (error) => setProblem(error.message),
    );
  }, [id, isKnown, newest, returns]);
  return { agent: known ?? null, problem: isKnown ? null : problem };
}

/** `{ answer, problem }`: the period in buckets, asked again after each outcome and after each return. */
export function useSeries(id, period, agent, newest, returns) {
  const [series, setSeries] = useState({ answer: null, problem: null });
  const asked = useRef(null);
  const registered = agent ? Date.parse(agent.registered_at) - 1000 : null;
  useEffect(() => {
    if (registered == null) return undefined; // nothing is older than that, so that a young agent is drawn finely
    const isSame = asked.current === `${id} ${period}`;
    asked.current = `${id} ${period}`;
    let stop = () => {};
    const ask = () => {
      const now = serverNow();
      const query = { since: iso(Math.min(now - 1000, Math.max(beginOf(period, now), registered))), until: iso(now), points: POINTS };
      stop = cancellable(
        api.series(id, query),
        (answer) => setSeries({ answer: { ...answer, period }, problem: null }),
        (error) => setSeries((before) => ({ answer: before.answer?.period === period ? before.answer : null, problem: error.message })),
      );
    };
    const timer = setTimeout(ask, isSame ? STORAGE_DELAY_MS : 0);
    return () => {
      clearTimeout(timer);
      stop();
    };
  }, [id, period, registered, newest, returns]);
  return series;
}

const iso = (milliseconds) => new Date(milliseconds).toISOString();

/** `{ pings, summary, problem, next, isLoading, more }`. Pings are newest first; `more()` loads the next older page. */
export function useOutcomes(id, hours, beats, returns) {
  const [answer, setAnswer] = useState({ pings: [], summary: null, problem: null, next: null, isLoading: true });
  const ask = (cursor = null) => {
    setAnswer((now) => ({ ...now, isLoading: true }));
    const query = { hours, limit: PAGE, ...(cursor && { cursor }) };
    return cancellable(
      api.history(id, query),
      (page) =>
        setAnswer((now) => ({
          pings: cursor ? [...now.pings, ...page.pings] : page.pings,
          summary: page.summary,
          next: page.next_cursor,
          problem: null,
          isLoading: false,
        })),
      (problem) => setAnswer((now) => ({ ...now, problem: problem.message, isLoading: false })),
    );
  };
  useEffect(() => ask(), [id, hours, returns]);
  useSummary(id, hours, beats?.[0]?.ping_seq, (summary) => setAnswer((now) => ({ ...now, summary })));
  return { ...answer, pings: withLive(answer.pings, beats), more: answer.next ? () => ask(answer.next) : null };
}

/** Requests the summary of the period again, STORAGE_DELAY_MS after each new outcome. */
function useSummary(id, hours, newest, onSummary) {
  useEffect(() => {
    if (!newest) return undefined;
    let stop = () => {};
    const timer = setTimeout(() => {
      stop = cancellable(
        api.history(id, { hours, limit: 1 }),
        (page) => onSummary(page.summary),
        () => {},
      );
    }, STORAGE_DELAY_MS);
    return () => {
      clearTimeout(timer);
      stop();
    };
  }, [id, hours, newest]);
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
