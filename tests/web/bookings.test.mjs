/** Booked maintenance: what is shown first, and in which words. */

import assert from "node:assert/strict";
import { test } from "node:test";
import { bookedWords, inOrder, whenWords } from "../../gateway/static/js/bookings.js";

const NOW = Date.parse("2026-11-26T12:00:00Z");
const at = (since, until, reason = "fans") => ({ since, until, reason });
const OVER = at("2026-11-20T02:00:00Z", "2026-11-20T04:00:00Z", "over");
const EARLIER = at("2026-11-10T02:00:00Z", "2026-11-10T04:00:00Z", "earlier");
const LAST_MONTH = at("2026-10-20T02:00:00Z", "2026-10-20T04:00:00Z", "last month");
const ON = at("2026-11-26T11:00:00Z", "2026-11-26T13:30:00Z", "on");
const SOON = at("2026-11-26T14:00:00Z", "2026-11-26T15:00:00Z", "soon");
const LATER = at("2026-12-24T14:00:00Z", "2026-12-24T15:00:00Z", "later");

test("what goes on comes first, then what comes, then what is over in this month", () => {
  const shown = inOrder([LATER, OVER, LAST_MONTH, EARLIER, SOON, ON], NOW);
  assert.deepEqual(shown.map(({ reason }) => reason), ["on", "soon", "later", "over", "earlier"]);
});

test("a booking ends at its end, and begins at its begin", () => {
  assert.match(whenWords(ON, NOW), /^going on, for 1.h.30.min more$/);
  assert.match(whenWords(SOON, NOW), /^begins in 2.h$/);
  assert.equal(whenWords(ON, Date.parse(ON.until)), "over");
  assert.match(whenWords(ON, Date.parse(ON.since)), /^going on/);
});

test("a day has the bookings of which some lies in it", () => {
  const day = Date.parse("2026-11-26T00:00:00Z");
  assert.equal(bookedWords([ON, SOON, OVER], day, day + 86_400_000), "on, soon");
  assert.equal(bookedWords([OVER], day, day + 86_400_000), "");
});
