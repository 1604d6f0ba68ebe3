/** The badge of the page's top: whether what is shown is of this moment. No I/O and no clock. */

import { countdown } from "./format.js";
import { PART_NAMES } from "./labels.js";

/** The services behind the gateway, without which it cannot tell all. */
export const PARTS = ["bus", "scheduler", "storage"];

/** What a state of the event stream means for the page. */
export const LIVE_BY_STREAM = { open: "live", lost: "reconnecting", closed: "reconnecting" };

const STALE_SECONDS = 12; // the stream tells something every five

/**
 * What the badge says: whether what is on the page is of this moment, and if not, since when or for want of what. It
 * follows from silence alone, so that a stream that froze cannot look alive.
 */
export function badge({ live, health, heardAt }, now) {
  const age = heardAt == null ? 0 : (now - heardAt) / 1000;
  if (heardAt != null && age > STALE_SECONDS) {
    return { kind: "stale", label: `Stale ${countdown(age)}`, note: "nothing was heard from the gateway for this long" };
  }
  if (live === "reconnecting") return { kind: "reconnecting", label: "Reconnecting", note: "the event stream was lost" };
  if (live === "connecting" || !health) return { kind: "connecting", label: "Connecting", note: "asking for live events" };
  const away = PARTS.find((name) => !health[name]);
  if (away) return { kind: "away", label: `${PART_NAMES[away]} away`, note: health.reasons?.[away] ?? "" };
  return { kind: "live", label: "Live", note: "every outcome shows up as it happens; all parts can work" };
}
