/**
 * Search in a fleet with more agents than the page lists: asks the gateway by status and by the beginning of an id.
 */

import * as api from "./api.js";
import { useEffect, useState } from "./preact.js";

const TYPING_MS = 250;
const ID = /^[A-Za-z0-9][A-Za-z0-9_-]{0,62}$/;
// the characters of ids, in sort order
const LETTERS = "-0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ_abcdefghijklmnopqrstuvwxyz";
const NONE = [];

export function useSearchResults(fleet, { status, search }) {
  const [results, setResults] = useState(NONE);
  const isPartial = fleet.total > fleet.agents.size;
  const isWanted = isPartial && Boolean(status || search.trim());
  useEffect(() => {
    setResults(NONE);
    if (!isWanted) return undefined;
    let isCancelled = false;
    const load = async () => {
      // on a failure the listed agents are still searched
      const answer = await findAgents(status, search.trim()).catch(() => NONE);
      if (!isCancelled) setResults(answer);
    };
    const timer = setTimeout(load, TYPING_MS);
    return () => {
      isCancelled = true;
      clearTimeout(timer);
    };
  }, [isWanted, status, search]);
  return results;
}

async function findAgents(status, search) {
  if (search && !ID.test(search)) return NONE;
  const cursor = search ? cursorBefore(search) : null;
  const page = await api.agents({ limit: 100, ...(status && { status }), ...(cursor && { cursor }) });
  return page.agents.filter((agent) => agent.agent_id.startsWith(search));
}

/**
 * The greatest possible id that sorts before every id beginning with `text`; null when none does. As a cursor it
 * makes a page begin with the ids that begin with `text`.
 */
export function cursorBefore(text) {
  const head = text.slice(0, -1);
  const letters = head ? LETTERS : LETTERS.replace(/[_-]/g, ""); // an id begins with a letter or digit
  const smaller = letters[letters.indexOf(text.at(-1)) - 1];
  return smaller ? (head + smaller).padEnd(63, "z") : head || null;
}
