/**
 * Agents of a big fleet that are not among those listed: asked for by status, or by what is typed as an id.
 */

import * as api from "./api.js";
import { useEffect, useState } from "./preact.js";

const TYPING_MS = 250;
const ID = /^[A-Za-z0-9][A-Za-z0-9_-]{0,62}$/;
const LETTERS = "-0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ_abcdefghijklmnopqrstuvwxyz"; // of ids, in their order
const NONE = [];

export function useFound(fleet, { status, search }) {
  const [found, setFound] = useState(NONE);
  const isPartial = fleet.total > fleet.agents.size;
  const isWanted = isPartial && Boolean(status || search.trim());
  useEffect(() => {
    setFound(NONE);
    if (!isWanted) return undefined;
    let isOver = false;
    const ask = async () => {
      const answer = await find(status, search.trim()).catch(() => NONE); // the listed ones are still searched
      if (!isOver) setFound(answer);
    };
    const timer = setTimeout(ask, TYPING_MS);
    return () => {
      isOver = true;
      clearTimeout(timer);
    };
  }, [isWanted, status, search]);
  return found;
}

async function find(status, search) {
  if (search && !ID.test(search)) return NONE;
  const cursor = search ? before(search) : null;
  const page = await api.agents({ limit: 100, ...(status && { status }), ...(cursor && { cursor }) });
  return page.agents.filter((agent) => agent.agent_id.startsWith(search));
}

/**
 * The last possible id before all that begin with `text`. Ids are listed in order after a cursor, so that what
 * begins with `text` comes first. Null: there is none before.
 */
export function before(text) {
  const head = text.slice(0, -1);
  const letters = head ? LETTERS : LETTERS.replace(/[_-]/g, ""); // an id begins with a letter or digit
  const smaller = letters[letters.indexOf(text.at(-1)) - 1];
  return smaller ? (head + smaller).padEnd(63, "z") : head || null;
}
