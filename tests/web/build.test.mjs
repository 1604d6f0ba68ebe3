/** When a page of an older build loads itself anew. */

import assert from "node:assert/strict";
import { test } from "node:test";
import { isOutdated } from "../../gateway/static/js/build.js";

const NOW = 1_000_000;

test("a page of another build is outdated, one of the same or of no build is not", () => {
  assert.equal(isOutdated("a", "b", false, Number.NaN, NOW), true);
  assert.equal(isOutdated("a", "a", false, Number.NaN, NOW), false);
  assert.equal(isOutdated("", "b", false, Number.NaN, NOW), false);
  assert.equal(isOutdated("a", null, false, Number.NaN, NOW), false);
  assert.equal(isOutdated("a", undefined, false, Number.NaN, NOW), false);
});

test("it waits while somebody types, and a minute after it was loaded anew", () => {
  assert.equal(isOutdated("a", "b", true, Number.NaN, NOW), false);
  assert.equal(isOutdated("a", "b", false, NOW - 59_000, NOW), false);
  assert.equal(isOutdated("a", "b", false, NOW - 60_000, NOW), true);
});
