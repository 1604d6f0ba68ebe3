/** Changes of many agents at once as one. No I/O and no clock. */

import { outcomeKind, reasonOf } from "./labels.js";

const TOGETHER_SECONDS = 60; // changes of one kind and reason within so long are one line
const FEWEST_TOGETHER = 3;

/** Neighbouring changes of one kind and reason within TOGETHER_SECONDS, as one entry where they are many. */
export function grouped(changes) {
  const groups = [];
  for (const change of changes) {
    const group = groups.at(-1);
    const isSame = group && sameEvent(group[0], change);
    if (isSame) group.push(change);
    else groups.push([change]);
  }
  return groups.flatMap((group) => (group.length >= FEWEST_TOGETHER ? [group] : group.map((change) => [change])));
}

function sameEvent({ ping }, other) {
  const apart = (Date.parse(ping.pinged_at) - Date.parse(other.ping.pinged_at)) / 1000;
  const isSameKind = outcomeKind(ping) === outcomeKind(other.ping);
  return isSameKind && reasonOf(ping) === reasonOf(other.ping) && apart <= TOGETHER_SECONDS;
}
