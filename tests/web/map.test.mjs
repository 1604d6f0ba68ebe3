/** Where the hosts of the map stand. */

import assert from "node:assert/strict";
import { test } from "node:test";
import { cellSize, corner, gpuOffsets, groupsOf, hostAt, place } from "../../gateway/static/js/map/layout.js";

const columns = (count, part = {}) => ({
  agent_ids: Array.from({ length: count }, (_, n) => `a${n}`),
  gpu_counts: Array.from({ length: count }, () => 2),
  groups: [],
  group_names: [],
  ...part,
});

test("without a label all hosts are one group without a name", () => {
  assert.deepEqual(groupsOf(columns(3)), [{ name: "", hosts: [0, 1, 2] }]);
});

test("groups stand by size, then by name", () => {
  const grouped = columns(5, { groups: [0, 1, 1, 2, 2], group_names: ["AMS", "FRA", "BER"] });
  assert.deepEqual(
    groupsOf(grouped).map(({ name, hosts }) => [name, hosts]),
    [["BER", [3, 4]], ["FRA", [1, 2]], ["AMS", [0]]],
  );
});

test("cells are as large as fits, and never smaller than can be seen", () => {
  assert.equal(cellSize(groupsOf(columns(10)), 1000, 500), 48);
  assert.equal(cellSize(groupsOf(columns(1_000_000)), 1000, 500), 3);
  for (const count of [100, 5_000, 50_000]) {
    const placed = place(groupsOf(columns(count)), 1400, 800);
    if (placed.size > 3) assert.ok(placed.height <= 800, `${count} hosts are ${placed.height} pixels high`);
  }
});

test("groups that need no whole row stand side by side, and no two cells share a place", () => {
  const sizes = [40, 6, 3, 2, 1, 1, 1];
  const grouped = columns(54, { groups: sizes.flatMap((size, n) => Array(size).fill(n)), group_names: ["a", "b", "c", "d".repeat(80), "e", "f", "g"] });
  const placed = place(groupsOf(grouped), 500, 420);
  assert.ok(new Set(placed.groups.map(({ top }) => top)).size < sizes.length);
  const cells = placed.groups.flatMap((group) => group.hosts.map((_, n) => corner(placed, group, n)));
  for (const [at, { x, y }] of cells.entries()) {
    assert.ok(x >= 0 && x + placed.size <= 500 && y + placed.size <= placed.height);
    assert.ok(cells.every((other, n) => n === at || Math.abs(other.x - x) >= placed.size || Math.abs(other.y - y) >= placed.size));
  }
  assert.ok(placed.groups.every(({ left, width }) => left + width <= 500), "names are cut within the page");
});

test("the host at each cell's middle is that host, and there is none beyond the last", () => {
  const grouped = columns(101, { groups: Array.from({ length: 101 }, (_, n) => n % 3), group_names: ["a", "b", "c"] });
  const placed = place(groupsOf(grouped), 300, 400);
  for (const group of placed.groups) {
    group.hosts.forEach((host, n) => {
      const { x, y } = corner(placed, group, n);
      assert.equal(hostAt(placed, x + placed.size / 2, y + placed.size / 2), host);
    });
  }
  assert.equal(hostAt(placed, 1, placed.height + 5), null);
  assert.equal(hostAt(placed, 299.9, 1), null);
});

test("each host's letters follow those of the host before it", () => {
  assert.deepEqual(gpuOffsets({ gpu_counts: [2, 0, 8, 1] }), [0, 2, 2, 10]);
});
