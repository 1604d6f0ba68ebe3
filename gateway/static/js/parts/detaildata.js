/** The data of the detail panel: the agent and its outcomes over a period, kept up to date with live events. */

import * as api from "../api.js";
import { requestBeats } from "../live.js";
import { useEffect, useState } from "../preact.js";

const PAGE = 1000;
const STORAGE_DELAY_MS = 1500; // storage needs a moment to write an outcome

/** The agent as listed. An agent that is not listed is requested, and again after each of its outcomes. */
export function useAgent(id, known, newest) {
  const [requested, setRequested] = useState({ agent: null, problem: null });
  const isListed = Boolean(known);
  useEffect(() => {
    requestBeats(id);
    if (isListed) return undefined;
    return cancellable(
      api.agent(id),
      (agent) => setRequested({ agent, problem: null }),
      (problem) => setRequested({ agent: null, problem: problem.message }),
    );
  }, [id, isListed, newest]);
  return isListed ? { agent: known, problem: null } : requested;
}

/** `{ pings, summary, problem, next, isLoading, more }`. Pings are newest first; `more()` loads the next older page. */
export function useOutcomes(id, hours, beats) {
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
  useEffect(() => ask(), [id, hours]);
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
