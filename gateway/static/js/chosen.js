/**
 * The hosts that were drawn around on the map, as the URL of the table has them. Few are listed there, so that the
 * address can be shared: `hosts=a,b`. Many would make it too long: this browser keeps them, and the address has a name
 * for them, which begins with a full stop, as no id does: `hosts=.k3x9`.
 */

import { read, write } from "./storage.js";

const STORE = "hosts-of-the-map"; // in local storage: `[[name, "a,b"], ...]`, the newest last
const SETS_KEPT = 5;
const LONGEST_TEXT = 1500; // letters of ids in an address
export const MOST_CHOSEN = 5_000; // hosts that the gateway lists by their ids

function kept() {
  try {
    const sets = JSON.parse(read(STORE));
    return Array.isArray(sets) ? sets : [];
  } catch {
    return []; // it is no JSON
  }
}

/** What the URL says for these hosts. Where nothing can be kept, all of them. */
export function textOf(ids, now = Date.now()) {
  const list = ids.join(",");
  if (list.length <= LONGEST_TEXT) return list;
  const name = `.${now.toString(36)}`;
  const isKept = write(STORE, JSON.stringify([...kept(), [name, list]].slice(-SETS_KEPT)));
  return isKept ? name : list;
}

/** The hosts that the URL's text names; null where this browser does not know them. */
export function idsOf(text) {
  const list = text.startsWith(".") ? kept().find(([name]) => name === text)?.[1] : text;
  return list ? [...new Set(list.split(",").filter(Boolean))] : null;
}

/** Forgets what is kept, for whoever signs in next. */
export const forget = () => write(STORE, null);
