/** The fleet after the dashboard's response and after events. */

import assert from "node:assert/strict";
import { test } from "node:test";
import {
  BEATS_SHOWN,
  EMPTY,
  fromDashboard,
  fromEvent,
  fromHistory,
  fromTotals,
  fromView,
  VIEW_PAGE,
} from "../../gateway/static/js/fleet.js";
import { newsOf } from "../../gateway/static/js/news.js";
import { PLAIN, rowsOf, selectRows, viewKey } from "../../gateway/static/js/rows.js";

const at = (seconds) => new Date(Date.parse("2026-11-23T12:00:00Z") + seconds * 1000).toISOString();

const agent = (id, part = {}) => ({
  agent_id: id,
  status: "healthy",
  total_pings: 0,
  last_ping_at: null,
  uptime_24h_percent: null,
  gpus: [],
  consecutive_poor_uptime: 0,
  current_interval_minutes: 15,
  next_ping_at: at(900),
  last_response_ms: 2,
  ...part,
});
const ping = (id, seq, part = {}) => ({
  agent_id: id,
  ping_seq: seq,
  pinged_at: at(seq),
  outcome: "answered",
  verdict: "good",
  ...part,
});
const event = (id, seq, part = {}) => ({
  kind: "ping",
  agent_id: id,
  ping: ping(id, seq),
  agent: agent(id, { total_pings: seq, last_ping_at: at(seq) }),
  ...part,
});
const answer = (agents, part = {}) => ({
  agents,
  totals: { agents: agents.length },
  by_status: {},
  recent: [],
  ...part,
});

test("an event puts its outcome into the row, once", () => {
  const before = fromDashboard(EMPTY, answer([agent("a")]));
  const after = [event("a", 1), event("a", 2), event("a", 2)].reduce(fromEvent, before);
  assert.deepEqual(
    after.beats.get("a").map((beat) => beat.ping_seq),
    [2, 1],
  );
  assert.deepEqual(
    after.changes.map((change) => change.ping.ping_seq),
    [1],
  );
  assert.equal(after.stale.has("a"), false);
  assert.equal(before.beats.has("a"), false, "the fleet before is not touched");
});

test("a gap in the numbers asks for the history, which fills it", () => {
  const before = fromDashboard(EMPTY, answer([agent("a")]));
  const known = [event("a", 1), event("a", 4)].reduce(fromEvent, before);
  assert.equal(known.stale.has("a"), true);
  const filled = fromHistory(
    known,
    "a",
    [3, 2, 1].map((seq) => ping("a", seq)),
  );
  assert.deepEqual(
    filled.beats.get("a").map((beat) => beat.ping_seq),
    [4, 3, 2, 1],
  );
  assert.equal(filled.stale.has("a"), false);
});

test("no more outcomes are kept than are shown", () => {
  const events = Array.from({ length: BEATS_SHOWN + 20 }, (_, at) => event("a", at + 1));
  const fleet = events.reduce(fromEvent, fromDashboard(EMPTY, answer([agent("a")])));
  assert.equal(fleet.beats.get("a").length, BEATS_SHOWN);
});

test("events carry no uptime of 24 h: the last one known stays", () => {
  const before = fromDashboard(EMPTY, answer([agent("a", { uptime_24h_percent: 99.5 })]));
  const fleet = fromEvent(before, event("a", 1));
  assert.equal(fleet.agents.get("a").uptime_24h_percent, 99.5);
});

test("statuses are counted as they change, also of agents that are not listed", () => {
  const listed = Array.from({ length: 100 }, (_, at) => agent(`a${at}`, { status: "poor" }));
  const sums = { totals: { agents: 500 }, by_status: { poor: 100, healthy: 400 } };
  const big = fromDashboard(EMPTY, answer(listed, sums));
  const one = fromEvent(big, event("a1", 1));
  assert.deepEqual(one.byStatus, { poor: 99, healthy: 401 });
  const missing = agent("z9", { status: "missing" });
  const other = event("z9", 7, { agent: missing, previous_status: "healthy" });
  const two = fromEvent(one, other);
  assert.deepEqual(two.byStatus, { poor: 99, healthy: 400, missing: 1 });
  assert.equal(two.agents.has("z9"), false);
  assert.equal(two.beats.has("z9"), false, "a big fleet must not fill the memory");
  assert.equal(two.changes[0].ping.agent_id, "z9");
});

test("a new agent comes, a removed one goes", () => {
  const pending = agent("a", { status: "pending" });
  const came = fromEvent(EMPTY, { kind: "registered", agent_id: "a", agent: pending });
  assert.deepEqual([came.total, came.byStatus], [1, { pending: 1 }]);
  const left = fromEvent(came, { kind: "removed", agent_id: "a" });
  assert.deepEqual([left.total, left.byStatus, left.agents.size], [0, { pending: 0 }, 0]);
});

test("a row whose agent did not change is not drawn again", () => {
  const first = fromDashboard(EMPTY, answer([agent("a"), agent("b")]));
  const second = fromDashboard(first, answer([agent("a"), agent("b", { status: "poor" })]));
  assert.equal(second.agents.get("a"), first.agents.get("a"));
  assert.notEqual(second.agents.get("b"), first.agents.get("b"));
});

test("rows: worst first, filtered, in either direction", () => {
  const all = [
    agent("b"),
    agent("a"),
    agent("m", { status: "missing" }),
    agent("p", { status: "poor", consecutive_poor_uptime: 1 }),
    agent("q", { status: "poor", consecutive_poor_uptime: 4 }),
    agent("h", { gpus: [{ name: "NVIDIA H100" }] }),
  ];
  const ids = (part) => selectRows(all, { ...ROUTE, ...part }).map((row) => row.agent_id);
  assert.deepEqual(ids(), ["m", "q", "p", "a", "b", "h"]);
  assert.deepEqual(ids({ status: "poor", reverse: true }), ["p", "q"]);
  assert.deepEqual(ids({ sort: "no such order" }), ids());
});

const ROUTE = { status: null, hosts: null, search: "", sort: "status", reverse: false };
const bigFleet = () => {
  const listed = Array.from({ length: 100 }, (_, at) => agent(`a${at}`, { status: "poor" }));
  return fromDashboard(EMPTY, answer(listed, { totals: { agents: 500 }, by_status: { poor: 100, healthy: 400 } }));
};

const idsOf = ({ rows }) => rows.within(0, rows.length).map(({ agent }) => agent?.agent_id ?? null);
const view = (fleet, route, number, page) => fromView(fleet, viewKey(fleet, route), number, page);

test("until the gateway has answered nothing is said about what it finds", () => {
  const route = { ...ROUTE, search: "z" };
  const fleet = bigFleet();
  const before = rowsOf(fleet, route);
  assert.deepEqual([before.rows.length, before.isAsked, before.problem], [0, false, null]);
  const shown = rowsOf(view(fleet, route, 0, { agents: [agent("z9")], total: 1 }), route);
  assert.deepEqual([idsOf(shown), shown.isAsked], [["z9"], true]);
});

test("a row that a search found is kept up to date by events, like any other", () => {
  const route = { ...ROUTE, search: "z" };
  const before = bigFleet();
  const found = view(before, route, 0, { agents: [agent("z9")], total: 1 });
  const after = fromEvent(found, event("z9", 1, { agent: agent("z9", { next_ping_at: at(1800), total_pings: 1 }) }));
  assert.equal(rowsOf(after, route).rows.within(0, 1)[0].agent.next_ping_at, at(1800));
  assert.equal(after.beats.get("z9")[0].ping_seq, 1);
  const later = fromDashboard(after, answer([...before.agents.values()], { totals: { agents: 500 } }));
  assert.equal(later.agents.has("z9"), true, "the next response of the dashboard leaves it");
});

test("an agent enters and leaves a filter as its status changes", () => {
  const route = { ...ROUTE, status: "healthy" };
  const found = view(bigFleet(), route, 0, { agents: [agent("z1"), agent("z2")], total: 2 });
  const left = fromEvent(found, event("z1", 1, { agent: agent("z1", { status: "poor" }), previous_status: "healthy" }));
  assert.deepEqual(idsOf(rowsOf(left, route)), ["z2"]);
  const came = fromEvent(left, event("z7", 1, { previous_status: "missing" }));
  assert.deepEqual(idsOf(rowsOf(came, route)), ["z2", "z7"]);
  assert.deepEqual(idsOf(rowsOf(fromEvent(came, { kind: "removed", agent_id: "z2" }), route)), ["z7"]);
});

test("what nothing shows any more is forgotten", () => {
  const route = { ...ROUTE, search: "z" };
  const found = view(bigFleet(), route, 0, { agents: [agent("z9")], total: 1 });
  const other = fromView(found, "{}", 0, { agents: [], total: 0 });
  assert.equal(other.agents.has("z9"), false);
});

const pageOf = (number, total) => {
  const first = number * VIEW_PAGE;
  const length = Math.min(VIEW_PAGE, total - first);
  return { agents: Array.from({ length }, (_, at) => agent(`z${String(first + at).padStart(5, "0")}`)), total };
};

test("a list has as many rows as the gateway found, and any page of it may be the one that is known", () => {
  const route = { ...ROUTE, search: "z" };
  const last = view(view(bigFleet(), route, 0, pageOf(0, 350)), route, 3, pageOf(3, 350));
  const { rows } = rowsOf(last, route);
  assert.equal(rows.length, 350);
  const ends = [...rows.within(98, 101), ...rows.within(299, 301), ...rows.within(349, 360)];
  assert.deepEqual(
    ends.map(({ index, agent: one }) => [index, one?.agent_id ?? null]),
    [[98, "z00098"], [99, "z00099"], [100, null], [299, null], [300, "z00300"], [349, "z00349"]],
  );
  assert.deepEqual([rows.pagesWithin(98, 101), rows.pagesWithin(299, 360), rows.pagesWithin(0, 0)], [[0, 1], [2, 3], []]);
  const left = fromEvent(last, { kind: "removed", agent_id: "z00300" });
  assert.equal(rowsOf(left, route).rows.length, 349);
  assert.equal(rowsOf(left, route).rows.within(300, 301)[0].agent.agent_id, "z00301");
});

test("pages far from the newest are forgotten: a browser cannot hold every row", () => {
  const route = { ...ROUTE, search: "z" };
  let fleet = bigFleet();
  for (let number = 0; number < 20; number += 1) fleet = view(fleet, route, number, pageOf(number, 50_000));
  assert.ok(fleet.agents.size <= 100 + 4 * VIEW_PAGE, `${fleet.agents.size} agents are kept`);
  assert.equal(rowsOf(fleet, route).rows.length, 50_000);
});

test("an agent that moved between two answers is one row", () => {
  const route = { ...ROUTE, search: "z" };
  const moved = { agents: pageOf(0, 300).agents.toSpliced(0, 1, agent("z00100")), total: 300 };
  const fleet = view(view(bigFleet(), route, 1, pageOf(1, 300)), route, 0, moved);
  const ids = idsOf(rowsOf(fleet, route)).filter(Boolean);
  assert.equal(ids.length, new Set(ids).size);
});

test("the worst of a big fleet are those of the dashboard's response, and the list goes on below them", () => {
  const fleet = bigFleet();
  assert.equal(viewKey(fleet, ROUTE), PLAIN);
  assert.deepEqual(JSON.parse(viewKey(fleet, { ...ROUTE, hosts: "a,b" })).hosts, "a,b");
  const before = rowsOf(fleet, ROUTE);
  assert.deepEqual([before.isAsked, before.rows.length, idsOf(before).filter(Boolean).length], [true, 500, 100]);
  const { rows } = rowsOf(view(fleet, ROUTE, 1, pageOf(1, 500)), ROUTE);
  assert.deepEqual([rows.length, rows.within(100, 101)[0].agent.agent_id], [500, "z00100"]);
});

test("what changed: other kinds of outcomes only, and many at once in one line", () => {
  const first = fromDashboard(EMPTY, answer(["a", "b", "c"].map((id) => agent(id))));
  const good = ["a", "b", "c"].flatMap((id) => [event(id, 1, { ping: ping(id, 1, { verdict: "first" }) }), event(id, 2)]);
  const calm = good.reduce(fromEvent, first);
  assert.equal(calm.changes.length, 3, "the first pings");
  const missed = (id) => event(id, 3, { ping: ping(id, 3, { outcome: "missed", verdict: "poor", reason: "timeout" }) });
  const later = ["a", "b", "c"].map(missed).reduce(fromEvent, calm);
  assert.equal(later.changes.length, 6);
  const [newest, ...older] = newsOf(later);
  assert.deepEqual([newest.ids, newest.before, newest.what], [["c", "b", "a"].sort(), "good → ", "missed"]);
  assert.equal(older.length, 1, "the first pings");
});

const poor = (id, seq, reasons, part = {}) => ({
  previous: "good",
  ping: ping(id, seq, { verdict: "poor", reason: "uptime_below_threshold", gpus: [{ index: 0, state: "down", reasons }], ...part }),
});
const news = (part) => newsOf({ ...EMPTY, ...part });

test("changes for different reasons are never told as one", () => {
  const changes = [poor("a", 3, ["ecc"]), poor("b", 3, ["lost"]), poor("c", 3, ["lost"]), poor("d", 3, ["lost"])];
  assert.deepEqual(news({ changes }).map((entry) => entry.ids.length).sort(), [1, 3]);
});

test("hosts of a site that go missing are one entry, whatever comes between them and however each missed", () => {
  const missing = (id, seq, reason) => ({ previous: "good", ping: ping(id, seq, { outcome: "missed", verdict: "poor", reason }) });
  const changes = [];
  for (let n = 0; n < 14; n += 1) {
    changes.push(missing(`fra-${n}`, 100 + n * 20, n % 2 ? "timeout" : "no_responders"));
    changes.push(poor(`ams-${n}`, 101 + n * 20, [`xid:${n}`]));
  }
  const sites = new Map(changes.map(({ ping: { agent_id: id } }) => [id, id.slice(0, 3).toUpperCase()]));
  const entry = news({ changes, sites }).find(({ kind }) => kind === "missed");
  assert.deepEqual([entry.ids.length, entry.place, entry.isSince, new Date(entry.at).toISOString()], [14, "FRA", true, at(100)]);
  sites.set("fra-0", "BER");
  assert.equal(news({ changes, sites }).find(({ kind }) => kind === "missed").place, "FRA (13), BER (1)");
  sites.delete("fra-0");
  assert.equal(news({ changes, sites }).find(({ kind }) => kind === "missed").place, null, "the site of one is not known");
});

test("of a list that was cut nothing is counted as if it were whole", () => {
  const many = (number) => Array.from({ length: number }, (_, n) => poor(`h${n}`, 1000 - n, ["lost"]));
  const told = (changes) => news({ changes }).map(({ ids, isAtLeast }) => [ids.length, isAtLeast]);
  assert.deepEqual(told(many(29)), [[29, false]]);
  assert.deepEqual(told(many(30)), [[30, true]], "the dashboard tells of no more");
  const second = { ...TOTALS, changes_total: 400, changes: many(20).map(({ ping: one }) => ({ agent_id: one.agent_id, previous_status: "healthy", ping: one })) };
  const after = fromTotals(fromDashboard(EMPTY, answer([agent("a")])), second);
  assert.deepEqual(told(after.changes), [[20, true]], "more changed in that second than are told");
  const later = fromDashboard(after, answer([agent("a")], { changes: many(20) }));
  assert.deepEqual(told(later.changes), [[20, true]]);
});

const TOTALS = { agents: 1, by_status: {}, pings: 0, missed: 0, gpus: null, due: 0, next_ping_at: null };

const trouble = (id, part = {}) => ({
  agent_id: id, gpu: "GPU-0", index: 0, state: "down", reason: "lost", since: at(90), until: null, times: 1, told_at: at(100), ...part,
});
const said = (entry) => [entry.subject + entry.what, entry.rest, entry.isSince];

test("a trouble of a GPU is an entry of its own: that it began, or how long it was", () => {
  const [began] = news({ troubles: [trouble("a")] });
  assert.deepEqual(said(began), ["GPU 0 down", "lost: no longer on the bus", true]);
  const [ended] = news({ troubles: [trouble("a", { until: at(96), times: 12 })] });
  assert.deepEqual(said(ended), ["GPU 0 was down for 6\u00a0s", "lost: no longer on the bus, 12 times in 24\u00a0h", false]);
  const both = [trouble("a"), trouble("a", { gpu: "GPU-1", index: 1, since: at(91) })];
  assert.deepEqual(news({ troubles: both }).map(said), [["GPUs 0, 1 down", "lost: no longer on the bus", true]]);
  const [event] = news({ troubles: [trouble("a", { state: "event", reason: "xid:31", until: at(90) })] });
  assert.deepEqual(said(event), ["GPU 0 XID 31", "", false]);
  const many = ["a", "b", "c"].map((id) => trouble(id));
  assert.deepEqual(news({ troubles: many }).map((entry) => [entry.ids.length, entry.what]), [[3, "down"]]);
});

test("a change does not repeat what an entry of its own says of the GPU", () => {
  const part = { changes: [poor("a", 100, ["lost"], { window_seconds: 20 })], troubles: [trouble("a")] };
  assert.deepEqual(news(part).map((entry) => entry.rest), ["", "lost: no longer on the bus"]);
  assert.match(news({ ...part, troubles: [] })[0].rest, /GPU 0 down: lost/);
});
