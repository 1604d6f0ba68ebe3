/**
 * The page's state, and who is told when it changes.
 *
 * Changes within a moment are drawn together: a fleet that answers a hundred pings a second is drawn ten times.
 */

import { EMPTY } from "./fleet.js";
import { useEffect, useState } from "./preact.js";

const DRAW_EVERY_MS = 100;

let state = {
  phase: "loading", // loading | ready | login
  live: "connecting", // connecting | live | reconnecting
  problem: null, // the sentence of the last failure, until something works again
  fleet: EMPTY,
  clockOffset: 0, // the server's clock minus ours, milliseconds
  heardAt: null, // when the gateway last answered, our clock
};
const listeners = new Set();
let drawing = null;

export const current = () => state;

export function change(part) {
  state = { ...state, ...(typeof part === "function" ? part(state) : part) };
  drawing ??= setTimeout(tellAll, DRAW_EVERY_MS);
}

function tellAll() {
  drawing = null;
  for (const listener of listeners) listener(state);
}

export function useStore() {
  const [seen, see] = useState(state);
  useEffect(() => {
    listeners.add(see);
    see(state);
    return () => listeners.delete(see);
  }, []);
  return seen;
}

/** Now by the server's clock, milliseconds: countdowns must not lean on the viewer's. */
export const serverNow = () => Date.now() + state.clockOffset;

const tickers = new Set();
setInterval(() => {
  for (const tick of tickers) tick(serverNow());
}, 1000);

/** The server's time, again each second. */
export function useNow() {
  const [now, setNow] = useState(serverNow());
  useEffect(() => {
    tickers.add(setNow);
    return () => tickers.delete(setNow);
  }, []);
  return now;
}
