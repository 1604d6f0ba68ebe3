/** The map as pages hold it: asked for at once, periodically, and when hosts came or went. */

import { useEffect, useRef, useState } from "../preact.js";
import { isOutdated, requestMap } from "./data.js";

const REFRESH_MS = 30_000;
const OUTDATED_MS = 2_000; // hosts often come and go many at once

/**
 * `{ map, trouble, hear }`. `trouble` says why the last question failed. `hear` takes each `map` event. `returns` counts
 * how often the gateway, or a part behind it, came back: the map is then asked for anew.
 */
export function useFleetMap(label, returns) {
  const [map, setMap] = useState(null);
  const [trouble, setTrouble] = useState(null);
  const [changes, setChanges] = useState(0); // how often hosts came or went
  const held = useRef(null);
  const timer = useRef(null);
  held.current = map;
  useEffect(() => {
    let isWanted = true;
    const load = async () => {
      try {
        const found = await requestMap(label);
        if (!isWanted) return;
        setMap(found);
        setTrouble(null);
      } catch (error) {
        if (isWanted) setTrouble(error.message);
      }
    };
    load();
    const periodic = setInterval(load, REFRESH_MS);
    return () => {
      isWanted = false;
      clearInterval(periodic);
    };
  }, [label, returns, changes]);
  useEffect(() => () => clearTimeout(timer.current), []);
  const hear = (updates) => {
    if (!held.current || !isOutdated(held.current, updates)) return;
    timer.current ??= setTimeout(() => {
      timer.current = null;
      setChanges((times) => times + 1);
    }, OUTDATED_MS);
  };
  return { map, trouble, hear };
}
