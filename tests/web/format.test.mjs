/** Numbers and times as the page shows them. */

import assert from "node:assert/strict";
import { test } from "node:test";
import {
  ago,
  axisMilliseconds,
  countdown,
  duration,
  formatTime,
  milliseconds,
  NOTHING,
  percent,
  showUtc,
  SPACE,
} from "../../gateway/static/js/format.js";

const plain = (text) => text.replaceAll(SPACE, " ");

test("a percentage is cut, never rounded up to one that was not reached", () => {
  assert.equal(percent(99.99999), "99.999%");
  assert.equal(percent(98.999), "98.9%");
  assert.equal(percent(99), "99.000%");
  // not 99.409%: the binary fraction lies just below 99.41
  assert.equal(percent(99.41), "99.410%");
  assert.equal(percent(100), "100%");
});

test("nothing observed is a dash, and nought is nought", () => {
  assert.equal(percent(null), NOTHING);
  assert.equal(percent(0), "0.00%");
  assert.equal(milliseconds(null), NOTHING);
  assert.equal(milliseconds(0), "0.0 ms".replace(" ", SPACE));
});

test("an axis has no more decimals than its marks need", () => {
  assert.deepEqual([0, 0.25, 50, 999, 1500, 20_000].map((value) => plain(axisMilliseconds(value))), ["0 ms", "0.25 ms", "50 ms", "999 ms", "1.5 s", "20 s"]);
});

test("a short time is not said to be none", () => {
  assert.deepEqual([0, 0.005, 0.049, 0.05].map((value) => plain(duration(value))), ["0 s", "< 0.1 s", "< 0.1 s", "0.1 s"]);
});

test("durations have two units at most", () => {
  const seconds = [0.5, 59, 60, 61, 3_600, 3_661, 90_061, 86_400, 99 * 86_400 + 3_600, 4_000_003_600];
  const wanted = ["0.5 s", "59 s", "1 min", "1 min 1 s", "1 h", "1 h 1 min", "1 d 1 h", "1 d", "99 d 1 h", "46,296 d"];
  assert.deepEqual(
    seconds.map((value) => plain(duration(value))),
    wanted,
  );
});

test("a countdown reaches nought when the time has come, not a second before", () => {
  assert.equal(countdown(0.4), "0:01");
  assert.equal(countdown(0), "0:00");
  assert.equal(countdown(899.2), "15:00");
  assert.equal(countdown(3_600), "1:00:00");
});

test("a time says as much of its day as is not plain: nothing today, no year this year", () => {
  const now = Date.parse("2026-01-02T12:00:00Z");
  const times = ["2026-01-02T00:30:00Z", "2026-01-01T14:05:06Z", "2025-12-31T14:05:06Z", "2027-01-01T14:05:06Z"];
  showUtc(true);
  try {
    assert.deepEqual(times.map((time) => formatTime(time, now)), ["00:30:00", "1 Jan, 14:05:06", "31 Dec 2025, 14:05:06", "1 Jan 2027, 14:05:06"]);
  } finally {
    showUtc(false);
  }
});

test("how long ago", () => {
  const now = Date.parse("2026-11-23T12:00:00Z");
  assert.equal(ago(null, now), "never");
  assert.equal(ago("2026-11-23T11:59:59Z", now), "just now");
  assert.equal(plain(ago("2026-11-23T11:57:40Z", now)), "2 min 20 s ago");
});
