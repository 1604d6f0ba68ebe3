/**
 * The page's state and its subscribers.
 *
 * Changes within DRAW_EVERY_MS are drawn together: a fleet with a hundred outcomes a second is drawn ten times.
 */

import { EMPTY } from "./fleet.js";
import { useEffect, useState } from "./preact.js";

const DRAW_EVERY_MS = 100;

let state = {
  phase: "loading", // loading | ready | login
  live: "connecting", // connecting | live | reconnecting
  health: null, // { bus, scheduler, storage, as_of, reasons, remarks, stream_begins ... }, as the stream told last
  returns: 0, // how often the gateway or a part behind it came back: whoever failed meanwhile asks again
  problem: null, // a sentence about the last failure; null once a request worked
  fleet: EMPTY,
  clockOffset: 0, // the server's clock minus the browser's, milliseconds
  heardAt: null, // when the gateway last sent anything, by the browser's clock
  answeredAt: null, // when it last told the whole dashboard
};
const listeners = new Set();
let drawing = null;

export const current = () => state;

export function change(part) {
  state = { ...state, ...(typeof part === "function" ? part(state) : part) };
  drawing ??= setTimeout(notifyListeners, DRAW_EVERY_MS);
}

function notifyListeners() {
  drawing = null;
  for (const listener of listeners) listener(state);
}

export function useStore() {
  const [snapshot, setSnapshot] = useState(state);
  useEffect(() => {
    listeners.add(setSnapshot);
    setSnapshot(state);
    return () => listeners.delete(setSnapshot);
  }, []);
  return snapshot;
}

/** The server's time in milliseconds. Countdowns use it because the browser's clock may be wrong. */
export const serverNow = () => Date.now() + state.clockOffset;

const tickers = new Set();
setInterval(() => {
  for (const tick of tickers) tick(serverNow());
}, 1000);

/** The server's time, updated each second; with `isSeen` false it stands, because nobody sees it. */
export function useNow(isSeen = true) {
  const [now, setNow] = useState(serverNow());
  useEffect(() => {
    if (!isSeen) return undefined;
    setNow(serverNow());
    tickers.add(setNow);
    return () => tickers.delete(setNow);
  }, [isSeen]);
  return now;
}
