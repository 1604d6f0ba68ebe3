/** The page's routes, the badge, and the lines of the charts. */

import assert from "node:assert/strict";
import { test } from "node:test";
import { levelLine, pointLine } from "../../gateway/static/js/parts/plots.js";
import { badge } from "../../gateway/static/js/badge.js";
import { forget, idsOf, textOf as hostsText } from "../../gateway/static/js/chosen.js";
import { rowsAt } from "../../gateway/static/js/parts/rowplaces.js";
import { hoursSince, monthsBetween, periodOf, textOf } from "../../gateway/static/js/parts/periods.js";
import { isNamed, without, withWord, wordOf } from "../../gateway/static/js/parts/chips.js";
import { gpuNotes, reasonOf } from "../../gateway/static/js/labels.js";
import { format, isAgentId, parse, queryOf } from "../../gateway/static/js/route.js";

test("an address says all that it takes to come back", () => {
  const places = [
    { agent: null, month: null, period: null, status: null, hosts: null, search: "", sort: "status", reverse: false },
    { agent: null, month: null, period: null, status: null, hosts: "gpu-001,gpu-002", search: "a,b", sort: "status", reverse: false },
    { agent: "gpu-001", month: null, period: "2026-11-03T00:00Z~2026-11-04T00:00Z", status: "poor", hosts: ".k3x9", search: "a b&c=d", sort: "next", reverse: true },
  ];
  for (const place of places) assert.deepEqual(parse(format(place)), place);
  assert.equal(format(places[0]), "#/");
  assert.equal(format(places[1]), "#/?hosts=gpu-001,gpu-002&q=a,b");
});

const manyHosts = (count) => Array.from({ length: count }, (_, n) => `host-${String(n).padStart(4, "0")}`);

test("few hosts of the map stand in the address, many are kept by the browser under a name", () => {
  const stored = new Map();
  globalThis.localStorage = {
    getItem: (key) => stored.get(key) ?? null,
    setItem: (key, value) => stored.set(key, value),
    removeItem: (key) => stored.delete(key),
  };
  try {
    assert.equal(hostsText(["a", "b"]), "a,b");
    assert.deepEqual(idsOf("a,b,,a"), ["a", "b"]);
    const names = [1, 2, 3, 4, 5, 6].map((n) => hostsText(manyHosts(200 + n), n));
    assert.match(names[5], /^\./);
    assert.equal(idsOf(names[5]).length, 206);
    assert.equal(idsOf(names[0]), null, "the oldest is forgotten");
    forget();
    assert.equal(idsOf(names[5]), null);
    for (const text of ["{", "{}", "7"]) {
      stored.set("hosts-of-the-map", text);
      assert.equal(idsOf(names[5]), null, `${text} is not a list`);
      assert.match(hostsText(manyHosts(200)), /^\./);
    }
  } finally {
    delete globalThis.localStorage;
  }
  assert.equal(hostsText(manyHosts(200)), manyHosts(200).join(","), "nothing can be kept: all are in the address");
});

test("any number of rows is reached: from the first at the top to the last at the end of the page", () => {
  for (const length of [0, 1, 30, 288_461, 288_463, 300_000, 5_000_000]) {
    let before = rowsAt(0, 44, 52, length);
    assert.equal(before.first, 0);
    const height = ({ above, below, first, last }) => above + (last - first) * 52 + below;
    for (const place of [4, 40, 1_000, 100_000, 288_000, 288_412, 10_000_000]) {
      const found = rowsAt(place, 44, 52, length);
      assert.equal(height(found), height(before), "the page keeps its height");
      assert.ok(found.first >= before.first && found.below >= 0 && found.last - found.first <= 44);
      assert.ok(found.above <= 15_000_000);
      before = found;
    }
    assert.equal(before.last, length);
    assert.equal(before.below, 0);
  }
});

test("an address that makes no sense shows the fleet", () => {
  const fleet = parse("#/");
  const odd = ["", "#", "#/agent/", "#/agent/%E0%A4%A", "#/x/y", "#?status=", "#/?status=bogus", "#/?sort=constructor", "#/?hosts=a.b", "#/?hosts=,,"];
  for (const hash of [...odd, "#/agent/a/0000-01", "#/agent/a/1969-12"]) assert.deepEqual(parse(hash), fleet, hash);
  assert.equal(parse(`#/?q=${"x".repeat(300)}`).search.length, 200);
  const ids = ["a", "A-_9", "constructor", "x".repeat(63), "x".repeat(64), "a.b", "_a", "a\n", "register"];
  assert.deepEqual(ids.map(isAgentId), [true, true, true, true, false, false, false, false, false]);
});

test("a link to an agent keeps the filter, the search and the order", () => {
  const route = parse("#/agent/a?status=poor&q=x&sort=next");
  assert.equal(queryOf(route), "status=poor&q=x&sort=next");
  assert.equal(queryOf(parse("#/")), "");
});

const bucket = (since, until, uptime, lowest = uptime) => ({
  since: new Date(since * 1000).toISOString(),
  until: new Date(until * 1000).toISOString(),
  uptime_percent: uptime,
  min_uptime_percent: lowest,
});

test("buckets that meet make one line, and time without a report a gap", () => {
  const buckets = [bucket(0, 900, 100), bucket(900, 1800, 90, 50), bucket(1800, 1800, null), bucket(9000, 9900, 80)];
  const [times, uptimes, lowest] = levelLine(buckets, [(one) => one.uptime_percent, (one) => one.min_uptime_percent]);
  assert.deepEqual(times, [0, 900, 900, 1800, 5400, 9000, 9900]);
  assert.deepEqual(uptimes, [100, 100, 90, 90, null, 80, 80]);
  assert.deepEqual(lowest, [100, 100, 50, 50, null, 80, 80]);
});

test("a search is made of words, each of which can be added and taken away", () => {
  assert.equal(withWord("h100", "site:FRA"), "h100 site:FRA");
  assert.equal(withWord("site:FRA  h100", "site:FRA"), "site:FRA h100");
  assert.equal(without("site:FRA h100 owner:acme", "site:FRA"), "h100 owner:acme");
  assert.deepEqual(["site:FRA", "reason:xid:79", "rack.row:7", "h100", ":x", "site:"].map(isNamed), [true, true, true, false, false, false]);
  assert.deepEqual([wordOf("site", "FRA"), wordOf("simulated", true), wordOf("note", "all is well")], ["site:FRA", "simulated:true", null]);
});

test("the badge goes stale by itself, and names what is away", () => {
  const all = { bus: true, scheduler: true, storage: true };
  const state = { live: "live", health: all, heardAt: 0 };
  const labels = (part, now) => badge({ ...state, ...part }, now).label;
  assert.equal(labels({}, 5_000), "Live");
  assert.equal(labels({}, 32_000), "Stale 0:32");
  assert.equal(labels({ live: "reconnecting" }, 5_000), "Reconnecting");
  assert.equal(labels({ health: { ...all, storage: false } }, 5_000), "Storage away");
  assert.equal(labels({ health: { ...all, scheduler: false, storage: false } }, 5_000), "Scheduler away");
  assert.equal(labels({ health: { bus: false, scheduler: false, storage: false } }, 5_000), "Bus away");
  assert.equal(labels({ live: "connecting", health: null, heardAt: null }, 5_000), "Connecting");
});

test("the periods of the charts", () => {
  const now = Date.parse("2026-11-20T12:00:00Z");
  const bounds = (text) => [periodOf(text, now).since, periodOf(text, now).until].map((at) => new Date(at).toISOString().slice(0, 16));
  assert.deepEqual(bounds("7d"), ["2026-11-13T12:00", "2026-11-20T12:00"]);
  assert.deepEqual(bounds("2026-11"), ["2026-11-01T00:00", "2026-11-20T12:00"]);
  assert.deepEqual(bounds("2026-10"), ["2026-10-01T00:00", "2026-11-01T00:00"]);
  assert.deepEqual(bounds("2026-11-03T00:00Z~2026-11-04T06:30Z"), ["2026-11-03T00:00", "2026-11-04T06:30"]);
  assert.equal(periodOf("2026-10", now).isOpen, false);
  assert.equal(hoursSince(periodOf("2026-11", now).since, now), 19.5 * 24);
  for (const odd of [null, "", "2026-13", "2026-12", "x~y", "2026-11-04T00:00Z~2026-11-03T00:00Z", "1969-12", "1969-12-31T00:00Z~1970-02-01T00:00Z"]) assert.equal(periodOf(odd, now).name, "24h");
  for (const name of ["24h", "7d", "30d", "month", "custom"]) assert.equal(periodOf(textOf(name, periodOf("7d", now), now), now).name, name);
  assert.deepEqual(monthsBetween(Date.parse("2026-09-30T23:00Z"), now), ["2026-11", "2026-10", "2026-09"]);
  assert.equal(monthsBetween(Date.parse("2019-12-31T23:00Z"), now).length, 84, "every month of a host is listed");
});

test("the line of response times has a gap where the pings were interrupted", () => {
  const buckets = [bucket(0, 900, 100), bucket(900, 1800, 100), bucket(9000, 9900, 100)];
  assert.deepEqual(pointLine(buckets, [[1, 2, 3]]), [[450, 1350, 5400, 9450], [1, 2, null, 3]]);
});

test("why an outcome is as it is, in plain words", () => {
  const lost = { state: "down", reasons: ["lost"] };
  const gpus = [{ index: 0, ...lost }, { index: 1, state: "up", reasons: [] }, { index: 5, ...lost }];
  assert.deepEqual(gpuNotes({ gpus }), ["GPUs 0, 5 down: lost: no longer on the bus"]);
  const ping = { reason: "timeout", gpus: [], remarks: ["unheard", "clock_disagrees"] };
  assert.equal(reasonOf({ reason: "constructor", remarks: ["toString"] }), "constructor; toString");
  assert.match(reasonOf(ping), /^no answer in time; between two missed pings nothing counts as up; the host counted/);
});
