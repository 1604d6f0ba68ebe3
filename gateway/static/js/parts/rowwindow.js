/**
 * Which rows of a long list are near the screen. The page is as high as the whole list, but only these rows are elements.
 */

import { useEffect, useState } from "../preact.js";

const STEP = 4; // rows; the window moves by so many at once, few enough for one frame
const BEYOND = 10; // rows above and below the screen that are elements, too
const FIRST_PITCH = 52; // pixels from one row to the next, until they are measured
const MOST_PIXELS = 15_000_000; // browsers cut elements that are higher than 17 to 33 million

/**
 * `{ first, last, pitch, most }`: the rows from `first` to before `last` are elements, `pitch` is the height of each of the
 * others, and `most` the number of rows that a page can have. `top` is the element that ends where row `first` begins.
 */
export function useRowWindow(top, length) {
  const [{ first, seen, pitch }, setWindow] = useState({ first: 0, seen: 4 * BEYOND, pitch: FIRST_PITCH });
  const most = Math.floor(MOST_PIXELS / pitch);
  useEffect(() => {
    const look = () =>
      setWindow((before) => {
        const next = windowAt(top.current, before.pitch);
        return next.first === before.first && next.seen === before.seen ? before : { ...before, ...next };
      });
    look();
    addEventListener("scroll", look, { passive: true });
    return () => removeEventListener("scroll", look);
  }, [pitch]);
  usePitch(top, length > 0, (measured) => setWindow((before) => (before.pitch === measured ? before : { ...before, pitch: measured })));
  const end = Math.min(most, length);
  const last = Math.min(end, first + seen);
  return { first: Math.min(first, Math.max(0, floored(end - 1) - seen + STEP)), last, pitch, most };
}

const floored = (row) => Math.floor(row / STEP) * STEP;

/** The first row of the window, and how many it has. */
function windowAt(top, pitch) {
  const above = -top.getBoundingClientRect().top; // pixels of the list that are above the screen
  const onScreen = Math.ceil(innerHeight / pitch);
  const seen = floored(onScreen + 2 * BEYOND) + STEP;
  return { first: Math.max(0, floored(above / pitch - BEYOND)), seen };
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
