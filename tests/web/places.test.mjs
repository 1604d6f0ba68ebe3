/** The page's routes, the search in a big fleet, and the lines of the charts. */

import assert from "node:assert/strict";
import { test } from "node:test";
import { cursorBefore } from "../../gateway/static/js/agentsearch.js";
import { uptimeLine } from "../../gateway/static/js/parts/plots.js";
import { format, parse } from "../../gateway/static/js/route.js";

test("an address says all that it takes to come back", () => {
  const places = [
    { agent: null, status: null, search: "", sort: "status", reverse: false },
    { agent: "gpu-001", status: "poor", search: "a b&c=d", sort: "next", reverse: true },
  ];
  for (const place of places) assert.deepEqual(parse(format(place)), place);
  assert.equal(format(places[0]), "#/");
});

test("an address that makes no sense shows the fleet", () => {
  for (const hash of ["", "#", "#/agent/", "#/agent/%E0%A4%A", "#/x/y", "#?status="])
    assert.equal(parse(hash).agent, null);
});

test("the cursor before a text leads to the first id that begins with it", () => {
  const ids = ["0", "a", "a-", "a0", "ab", "abc", "abz", "ac", "b", "B", "a_b", "aZ"].sort();
  for (const text of ["0", "a", "ab", "abc", "a0", "a-", "b", "aZ", "a_"]) {
    const cursor = cursorBefore(text);
    const page = ids.filter((id) => cursor === null || id > cursor);
    const wanted = ids.filter((id) => id.startsWith(text));
    assert.deepEqual(page.slice(0, wanted.length), wanted, `${text} after ${cursor}`);
    assert.ok(cursor === null || /^[A-Za-z0-9][A-Za-z0-9_-]{0,62}$/.test(cursor), cursor);
  }
});

test("a judged window is a level line; a miss in it leaves no gap, an unknown past does", () => {
  const ping = (second, window, uptime) => ({
    pinged_at: new Date(second * 1000).toISOString(),
    window_seconds: window,
    uptime_percent: uptime,
  });
  const [times, values] = uptimeLine([
    ping(100, null, null),
    ping(110, 10, 100),
    ping(120, null, null),
    ping(130, 20, 50),
    ping(200, 10, 90),
  ]);
  assert.deepEqual(times, [100, 110, 110, 130, 160, 190, 200]);
  assert.deepEqual(values, [100, 100, 50, 50, null, 90, 90]);
});
