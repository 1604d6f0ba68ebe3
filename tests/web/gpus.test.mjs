/** Labels of GPUs. */

import assert from "node:assert/strict";
import { test } from "node:test";

import { isUnopened } from "../../gateway/static/js/labels.js";

test("a GPU that could not be opened is told from one with a UUID", () => {
  assert.equal(isUnopened({ uuid: "unopened:0000:5e:00.0" }), true);
  assert.equal(isUnopened({ uuid: "GPU-1" }), false);
});
