/**
 * Which rows of a long list are near the screen. The page is as high as the whole list, but only these rows are elements.
 */

import { useEffect, useState } from "../preact.js";
import { floored, rowsAt, STEP } from "./rowplaces.js";

const BEYOND = 10; // rows above and below the screen that are elements, too
const FIRST_PITCH = 52; // pixels from one row to the next, until they are measured

/**
 * The rows that are elements, as `rowsAt` tells, and `pitch`, the height of each of the others. `top` is the element that
 * ends where the first of them begins.
 */
export function useRowWindow(top, length) {
  const [{ place, seen, pitch }, setWindow] = useState({ place: 0, seen: 4 * BEYOND, pitch: FIRST_PITCH });
  useEffect(() => {
    const look = () =>
      setWindow((before) => {
        const next = windowAt(top.current, before.pitch);
        return next.place === before.place && next.seen === before.seen ? before : { ...before, ...next };
      });
    look();
    addEventListener("scroll", look, { passive: true });
    return () => removeEventListener("scroll", look);
  }, [pitch]);
  usePitch(top, length > 0, (measured) => setWindow((before) => (before.pitch === measured ? before : { ...before, pitch: measured })));
  return { ...rowsAt(place, seen, pitch, length), pitch };
}

/** The place of the window, and how many rows it has. */
function windowAt(top, pitch) {
  const above = -top.getBoundingClientRect().top; // pixels of the list that are above the screen
  const onScreen = Math.ceil(innerHeight / pitch);
  const seen = floored(onScreen + 2 * BEYOND) + STEP;
  return { place: Math.max(0, floored(above / pitch - BEYOND)), seen };
}

/** Calls back with the pitch of the rows whenever the table has another width: a card is higher than a table's row. */
function usePitch(top, hasRows, onPitch) {
  useEffect(() => {
    if (!hasRows) return undefined;
    const table = top.current.parentElement;
    let measuredWidth = null;
    const observer = new ResizeObserver(([{ contentRect }]) => {
      if (contentRect.width === measuredWidth) return;
      const pitch = pitchOf(table);
      if (pitch == null) return;
      measuredWidth = contentRect.width;
      onPitch(pitch);
    });
    observer.observe(table);
    return () => observer.disconnect();
  }, [hasRows]);
}

/** The least distance from one row to the next: rows with a note are higher than most. Null with fewer than two rows. */
function pitchOf(table) {
  const tops = [...table.querySelectorAll("[data-agent]")].map((row) => row.getBoundingClientRect().top);
  const pitches = tops.slice(1).map((at, index) => at - tops[index]);
  return pitches.length > 0 ? Math.min(...pitches) : null;
}
