/**
 * Where each host of the map is drawn. Pure: columns of the answer in, rectangles out.
 *
 * A host is a square cell; its GPUs are stripes of it, from left to right. Hosts of one group stand
 * together, under the group's name.
 */

const HEADING = 22; // pixels above each group, for its name
const GROUP_GAP = 14; // pixels below each group
const LARGEST_CELL = 48;
const SMALLEST_CELL = 3;

/** Groups of hosts by index: `[{name, hosts: [index, ...]}]`, the largest group first. */
export function groupsOf(columns) {
  const names = columns.group_names.length > 0 ? columns.group_names : [""];
  const groups = names.map((name) => ({ name, hosts: [] }));
  columns.agent_ids.forEach((_, host) => {
    const group = columns.groups.length > 0 ? columns.groups[host] : 0;
    groups[group].hosts.push(host);
  });
  return groups
    .filter((group) => group.hosts.length > 0)
    .sort((one, other) => other.hosts.length - one.hosts.length || one.name.localeCompare(other.name));
}

/** The largest cell with which all groups fit into `width` by `height` pixels. */
export function cellSize(groups, width, height, scale = 1, largest = LARGEST_CELL) {
  for (let size = Math.round(largest * scale); size > SMALLEST_CELL; size -= 1) {
    if (heightWith(groups, width, size, scale) <= height) return size;
  }
  return SMALLEST_CELL;
}

/** Places every group: `{size, perRow, height, scale, groups: [{name, top, hosts}]}`; `scale` is of names and gaps. */
export function place(groups, width, height, scale = 1, largest = LARGEST_CELL) {
  const size = cellSize(groups, width, height, scale, largest);
  const perRow = cellsPerRow(width, size);
  const placed = [];
  let top = 0;
  for (const group of groups) {
    const cellsTop = top + (group.name ? HEADING * scale : 0);
    placed.push({ ...group, top, cellsTop });
    top = cellsTop + Math.ceil(group.hosts.length / perRow) * size + GROUP_GAP * scale;
  }
  return { size, perRow, height: top, scale, groups: placed };
}

/** The host at a point; null where there is none. */
export function hostAt(placed, x, y) {
  for (const group of placed.groups) {
    const row = Math.floor((y - group.cellsTop) / placed.size);
    const column = Math.floor(x / placed.size);
    if (row < 0 || column < 0 || column >= placed.perRow) continue;
    const index = row * placed.perRow + column;
    if (y < group.cellsTop + Math.ceil(group.hosts.length / placed.perRow) * placed.size) {
      return group.hosts[index] ?? null;
    }
  }
  return null;
}

/** The upper left corner of a group's n-th cell. */
export function corner(placed, group, n) {
  return {
    x: (n % placed.perRow) * placed.size,
    y: group.cellsTop + Math.floor(n / placed.perRow) * placed.size,
  };
}

/** Where each host's letters begin in `gpu_states`. */
export function gpuOffsets(columns) {
  const offsets = new Array(columns.gpu_counts.length);
  let next = 0;
  columns.gpu_counts.forEach((count, host) => {
    offsets[host] = next;
    next += count;
  });
  return offsets;
}

function cellsPerRow(width, size) {
  return Math.max(1, Math.floor(width / size));
}

function heightWith(groups, width, size, scale) {
  const perRow = cellsPerRow(width, size);
  let height = 0;
  for (const group of groups) {
    height += (group.name ? HEADING * scale : 0) + Math.ceil(group.hosts.length / perRow) * size + GROUP_GAP * scale;
  }
  return height;
}
