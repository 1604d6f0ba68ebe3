/** The arithmetic of the month page, and its advice. */

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { trailOf } from "../../gateway/static/js/fleet.js";
import { axisMarks, formatPeriod, inside, intervalSteps, money, monthBeside, monthBounds, parsePeriod, rateOf, rowPaths, stretchAt, waterfall, weeksOf, zoomed } from "../../gateway/static/js/month/model.js";
import { remedy } from "../../gateway/static/js/month/remedies.js";
import { format, parse } from "../../gateway/static/js/route.js";

const DAY = 86_400_000;

test("a month has its bounds in UTC and neighbours across the year", () => {
  assert.deepEqual(monthBounds("2026-12"), { since: Date.UTC(2026, 11, 1), until: Date.UTC(2027, 0, 1) });
  assert.equal(monthBeside("2026-12", 1), "2027-01");
  assert.equal(monthBeside("2026-01", -1), "2025-12");
});

test("weeks begin on Monday and hold every day once", () => {
  const days = Array.from({ length: 30 }, (_, n) => ({ day: `2026-11-${String(n + 1).padStart(2, "0")}` }));
  const weeks = weeksOf(days);
  assert.deepEqual(weeks[0].slice(0, 6), [null, null, null, null, null, null]); // 1 November 2026 is a Sunday
  assert.deepEqual(weeks.flat().filter(Boolean), days);
});

test("a period survives the URL and stays within its month", () => {
  const bounds = monthBounds("2026-11");
  const period = { since: bounds.since + 3 * DAY, until: bounds.since + 4 * DAY };
  assert.deepEqual(parsePeriod(formatPeriod(period), bounds), period);
  assert.equal(parsePeriod("nonsense", bounds), null);
  assert.deepEqual(inside({ since: bounds.since - DAY, until: bounds.since + DAY }, bounds), { since: bounds.since, until: bounds.since + 2 * DAY });
  assert.deepEqual(zoomed(bounds, 3, bounds), bounds);
  assert.equal(zoomed(period, 1 / 1e9, bounds).until - zoomed(period, 1 / 1e9, bounds).since, 60_000);
});

test("the route keeps the month and its period", () => {
  const route = parse("#/agent/gpu-1/2026-11?period=a~b");
  assert.deepEqual([route.agent, route.month, route.period], ["gpu-1", "2026-11", "a~b"]);
  assert.equal(format(route), "#/agent/gpu-1/2026-11?period=a%7Eb");
  assert.equal(parse("#/agent/gpu-1/2026-13").agent, null);
  assert.equal(parse("#/agent/gpu-1").month, null);
});

test("the waterfall goes from 100 down to what is left, and sums what is beyond", () => {
  const causes = Array.from({ length: 14 }, (_, n) => ({ gpu: `g${n}`, points: 0.5, seconds: 60, losses: 2 }));
  const steps = waterfall(causes, 10);
  assert.equal(steps.length, 10);
  assert.equal(steps[0].from, 100);
  assert.equal(steps.at(-1).cause.rest, 5);
  assert.equal(steps.at(-1).cause.losses, 10);
  assert.equal(steps.at(-1).to, 93);
});

test("a second of a month is seen, and a sum shows every state that it has", () => {
  const paths = rowPaths([{ begin_seconds: 0, end_seconds: 1, down: 1 }, { begin_seconds: 1, end_seconds: 7200, up: 7198, down: 1 }], 2_592_000, 1000, 20);
  const widths = [...paths.down.matchAll(/h([\d.]+)v/g)].map(([, width]) => Number(width));
  assert.deepEqual(widths.map((width) => width >= 1.2), [true, true]);
  const heights = [...paths.down.matchAll(/v([\d.]+)h/g)].map(([, height]) => Number(height));
  assert.equal(heights[0], 20);
  assert.ok(heights[1] >= 4);
});

test("a stretch is found at a point, and near one that is thinner than a pixel", () => {
  const stretches = [{ begin_seconds: 0, end_seconds: 10, up: 10 }, { begin_seconds: 50, end_seconds: 51, down: 1 }];
  assert.equal(stretchAt(stretches, 5), stretches[0]);
  assert.equal(stretchAt(stretches, 48, 3), stretches[1]);
  assert.equal(stretchAt(stretches, 30, 3), undefined);
});

test("the marks of an axis are few, and whole hours in the zone that is shown", () => {
  const day = { since: Date.UTC(2026, 10, 3, 0, 17), until: Date.UTC(2026, 10, 4, 0, 17) };
  const { step, times } = axisMarks(day, 8, 330);
  assert.ok(times.length <= 8);
  for (const at of times) assert.equal((at + 330 * 60_000) % (step * 1000), 0);
});

test("a step of the interval lasts until the next one", () => {
  const steps = [{ at: "2026-11-01T00:00:00Z", interval_minutes: 15, consecutive_poor_uptime: 0 }, { at: "2026-11-02T00:00:00Z", interval_minutes: 30, consecutive_poor_uptime: 1 }];
  const bounds = monthBounds("2026-11");
  const found = intervalSteps(steps, bounds, bounds.since + 5 * DAY);
  assert.deepEqual(found.map(({ from, to }) => (to - from) / DAY), [1, 4]);
});

test("every reason of the manual has its advice", () => {
  const manual = readFileSync(new URL("../../docs/troubleshooting.md", import.meta.url), "utf8");
  const [, section] = manual.split("## A GPU is not up: what its reason means");
  const rows = section.split("\n## ")[0].split("\n").filter((line) => line.startsWith("| `"));
  const reasons = rows.flatMap((row) => [...row.split("|")[1].matchAll(/`([^`]+)`/g)].map(([, reason]) => reason));
  assert.ok(reasons.length > 25);
  for (const reason of reasons) assert.ok(remedy({ reason, gpu: "GPU-a", state: "down" }), reason);
});

test("money: the rate that an operator set as a label, or the host as a number", () => {
  const of = (metadata) => rateOf({ metadata });
  assert.deepEqual(of({ rate_per_hour: "2.50", currency: "EUR" }), { rate: 2.5, currency: "EUR" });
  assert.deepEqual(of({ rate_per_hour: 2.5 }), { rate: 2.5, currency: "" });
  for (const odd of [undefined, "", " ", "a lot", "-1", 0, null, true]) assert.equal(of({ rate_per_hour: odd }), null);
  assert.equal(rateOf(null), null);
  assert.equal(money(7200, { rate: 2.5, currency: "EUR" }), "5.00 EUR");
  assert.equal(money(1, { rate: 2.5, currency: "" }), "0.000694");
  assert.equal(money(0, { rate: 2.5, currency: "EUR" }), "0.00 EUR");
});

test("a failing host drifts outward: its trail ends at its own interval", () => {
  assert.equal(trailOf({ current_interval_minutes: 60 }, 900), 3600);
  assert.equal(trailOf({ current_interval_minutes: 15 }, 900), null);
  assert.equal(trailOf({ current_interval_minutes: 15 }, null), null);
});
