/**
 * Agents of a big fleet that are not among those listed: asked for by status, or by what is typed as an id.
 */

import * as api from "./api.js";
import { useEffect, useState } from "./preact.js";

const TYPING_MS = 250;
const ID = /^[A-Za-z0-9][A-Za-z0-9_-]{0,62}$/;
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

/** Ids are listed in order: those that begin with what was typed follow it. */
async function find(status, search) {
  if (!search) return (await api.agents({ status, limit: 100 })).agents;
  if (!ID.test(search)) return NONE;
  const [exact, after] = await Promise.all([
    api.agent(search).then((agent) => [agent], () => NONE),
    api.agents({ limit: 50, cursor: search, ...(status && { status }) }).then((page) => page.agents),
  ]);
  return [...exact, ...after.filter((agent) => agent.agent_id.startsWith(search))];
}
