/** What the detail panel shows: the agent, and its outcomes over a period, kept up with what happens live. */

import * as api from "../api.js";
import { wantBeats } from "../live.js";
import { useEffect, useState } from "../preact.js";

const PAGE = 1000;
const STORAGE_MS = 1500;

/** The agent as listed; one that is not listed is asked for, and again after each of its outcomes. */
export function useAgent(id, known, newest) {
  const [asked, setAsked] = useState({ agent: null, problem: null });
  const isListed = Boolean(known);
  useEffect(() => {
    wantBeats(id);
    if (isListed) return undefined;
    return latest(
      api.agent(id),
      (agent) => setAsked({ agent, problem: null }),
      (problem) => setAsked({ agent: null, problem: problem.message }),
    );
  }, [id, isListed, newest]);
  return isListed ? { agent: known, problem: null } : asked;
}

/** `{ pings, summary, problem, next, more }`, newest first; `more()` adds the page before. */
export function useOutcomes(id, hours, beats) {
  const [answer, setAnswer] = useState({ pings: [], summary: null, problem: null, next: null, isLoading: true });
  const ask = (cursor = null) => {
    setAnswer((now) => ({ ...now, isLoading: true }));
    const query = { hours, limit: PAGE, ...(cursor && { cursor }) };
    return latest(
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

/** The sums over the period, asked for again a moment after each outcome: storage needs that moment. */
function useSummary(id, hours, newest, heard) {
  useEffect(() => {
    if (!newest) return undefined;
    let stop = () => {};
    const timer = setTimeout(() => {
      stop = latest(
        api.history(id, { hours, limit: 1 }),
        (page) => heard(page.summary),
        () => {},
      );
    }, STORAGE_MS);
    return () => {
      clearTimeout(timer);
      stop();
    };
  }, [id, hours, newest]);
}

/** What came by event since the answer; storage may be a moment behind. */
function withLive(pings, beats = []) {
  const newest = pings[0]?.ping_seq ?? Number.POSITIVE_INFINITY;
  const fresh = beats.filter((ping) => ping.ping_seq > newest);
  if (pings.length === 0) return beats;
  return fresh.length > 0 ? [...fresh, ...pings] : pings;
}

/** Hears of the answer unless it is no longer wanted by then; returns what ends the wish. */
function latest(promise, answered, refused) {
  let isWanted = true;
  promise.then(
    (answer) => isWanted && answered(answer),
    (problem) => isWanted && refused(problem),
  );
  return () => {
    isWanted = false;
  };
}
