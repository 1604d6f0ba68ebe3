/** The tab's title and icon: how many hosts are in trouble, also while another tab is shown. */

import { badge } from "./badge.js";
import { count } from "./format.js";
import { useEffect } from "./preact.js";
import { useNow } from "./store.js";

const NAME = "gpuping";
const BARS = "M7 12v8M12 8v16M17 12v8M22 6v20";

/** The hosts that are missing or poor. */
export const troubled = (byStatus) => (byStatus.missing ?? 0) + (byStatus.poor ?? 0);

export function titleOf(number, isStale, place) {
  const where = place ? `${place} · ${NAME}` : NAME;
  if (isStale) return `(stale) ${where}`;
  return number > 0 ? `(${count(number)}) ${where}` : where;
}

/** The icon as an image: the number in red, at most 99+; grey while what is shown is old. */
export function iconOf(number, isStale) {
  const shown = number > 99 ? "99+" : String(number);
  const wide = 10 + 7 * shown.length;
  const mark =
    number > 0 && !isStale
      ? `<rect x="${32 - wide}" y="14" width="${wide}" height="18" rx="7" fill="#c4202b"/><text x="${32 - wide / 2}" y="28" font-family="system-ui,sans-serif" font-size="14" font-weight="700" fill="#fff" text-anchor="middle">${shown}</text>`
      : "";
  const line = isStale ? "#95a49b" : "#3ddc84";
  return `data:image/svg+xml,${encodeURIComponent(
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 32 32"><rect width="32" height="32" rx="8" fill="#0c1411"/><path d="${BARS}" fill="none" stroke="${line}" stroke-width="3" stroke-linecap="round"/>${mark}</svg>`,
  )}`;
}

/** Keeps title and icon up to date; shows nothing. */
export function Tab({ state, place }) {
  useNow(); // each second: silence alone makes the page stale
  const isStale = state.phase === "ready" && ["stale", "away"].includes(badge(state, Date.now()).kind);
  const number = state.phase === "ready" ? troubled(state.fleet.byStatus) : 0;
  useEffect(() => {
    document.title = titleOf(number, isStale, place);
    const icon = document.querySelector("link[rel=icon]");
    if (icon) icon.href = iconOf(number, isStale);
  }, [number, isStale, place]);
  return null;
}
