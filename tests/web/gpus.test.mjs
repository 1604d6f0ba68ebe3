/** Labels of GPUs. */

import assert from "node:assert/strict";
import { test } from "node:test";

import { areTwo, isUnopened } from "../../gateway/static/js/labels.js";

test("a GPU that could not be opened is told from one with a UUID", () => {
  assert.equal(isUnopened({ uuid: "unopened:0000:5e:00.0" }), true);
  assert.equal(isUnopened({ uuid: "GPU-1" }), false);
});

test("an agent under whose id two answer is told from one that was restarted", () => {
  assert.equal(areTwo({ conflicting_boot_ids: [], conflicting_sessions: [], conflicting_gpus: [] }), false);
  assert.equal(areTwo({ conflicting_sessions: ["s2", "s1"] }), true);
  assert.equal(areTwo({ conflicting_connections: ["10.0.0.1", "10.0.0.2"] }), true);
  assert.equal(areTwo({}), false); // a scheduler of a version before
});
