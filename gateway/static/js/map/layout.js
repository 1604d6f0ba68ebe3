/**
 * Where each host of the map is drawn. Pure: columns of the answer in, rectangles out.
 *
 * A host is a square cell; its GPUs are stripes of it, from left to right. Hosts of one group stand
 * together, under the group's name.
 */

const HEADING = 22; // pixels above each group, for its name
const GROUP_GAP = 14; // pixels below each group
const BESIDE = 28; // pixels between two groups side by side
const LETTER = 7.5; // pixels of a letter of a name, about
const WIDEST_NAME = 220; // pixels; longer ones are cut
const LARGEST_CELL = 48;
const SMALLEST_CELL = 3;

export const NO_LABEL = "-"; // the group of hosts without the label

/** What is written above a group. */
export const titleOf = (name) => (name === NO_LABEL ? "without the label" : name);

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
    if (placed(groups, width, size, scale).height <= height) return size;
  }
  return SMALLEST_CELL;
}

/**
 * Places every group: `{size, height, scale, groups: [{name, hosts, left, top, cellsTop, perRow, width}]}`; `scale` is of
 * names and gaps. Groups that need no whole row stand side by side.
 */
export function place(groups, width, height, scale = 1, largest = LARGEST_CELL) {
  return placed(groups, width, cellSize(groups, width, height, scale, largest), scale);
}

function placed(groups, width, size, scale) {
  const mostPerRow = Math.max(1, Math.floor(width / size));
  const found = [];
  let [left, top, bottom] = [0, 0, 0]; // where the next group goes, and where the row of groups ends
  for (const group of groups) {
    const perRow = Math.min(mostPerRow, group.hosts.length);
    const needed = Math.min(width, Math.max(perRow * size, nameWidth(group.name) * scale));
    if (left > 0 && left + needed > width) [left, top] = [0, bottom];
    const cellsTop = top + (group.name ? HEADING * scale : 0);
    found.push({ ...group, left, top, cellsTop, perRow, width: needed });
    bottom = Math.max(bottom, cellsTop + Math.ceil(group.hosts.length / perRow) * size + GROUP_GAP * scale);
    left += needed + BESIDE * scale;
  }
  return { size, height: bottom, scale, groups: found };
}

/** The width that a group's name, and how many hosts it has, is given at least, in pixels. */
const nameWidth = (name) => (name ? Math.min(WIDEST_NAME, LETTER * (titleOf(name).length + 7)) : 0);

/** The host at a point; null where there is none. */
export function hostAt({ groups, size }, x, y) {
  for (const group of groups) {
    const row = Math.floor((y - group.cellsTop) / size);
    const column = Math.floor((x - group.left) / size);
    if (row < 0 || column < 0 || column >= group.perRow) continue;
    const host = group.hosts[row * group.perRow + column];
    if (host !== undefined) return host;
  }
  return null;
}

/** The upper left corner of a group's n-th cell. */
export function corner({ size }, group, n) {
  return {
    x: group.left + (n % group.perRow) * size,
    y: group.cellsTop + Math.floor(n / group.perRow) * size,
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
