/**
 * Where the rows near the screen stand in a long list. Pure.
 *
 * A list may be higher than a browser lets an element be. The page is then as high as it can be, and the way from its
 * top to its end stands for the way from the first row to the last.
 */

export const STEP = 4; // rows; the window moves by so many at once, few enough for one frame
const MOST_PIXELS = 15_000_000; // browsers cut elements that are higher than 17 to 33 million

export const floored = (row) => Math.floor(row / STEP) * STEP;

/**
 * `{ first, last, above, below }`: the rows from `first` to before `last` are elements, with so many pixels above and
 * below them. `place` is the number of rows that fit above them, `seen` how many there are to be, of `length`.
 */
export function rowsAt(place, seen, pitch, length) {
  const places = Math.min(length, Math.floor(MOST_PIXELS / pitch));
  const lastPlace = Math.max(0, floored(places - 1) - seen + STEP);
  const at = Math.min(place, lastPlace);
  const beyond = length - places; // rows that have no place of their own
  const first = at + (beyond > 0 ? Math.round((beyond * at) / lastPlace) : 0);
  const last = Math.min(length, first + seen);
  return { first, last, above: at * pitch, below: (places - at - (last - first)) * pitch };
}
