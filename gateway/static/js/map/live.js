/** The map's event stream: what was pinged, and whether what is drawn is of this moment. */

import { LIVE_BY_STREAM, PARTS } from "../badge.js";
import { followBuild } from "../build.js";
import { openStream } from "../stream/stream.js";

const AGAIN_MS = 5_000; // after the gateway refused the stream

/**
 * Follows the stream until the returned function is called. `onState` gets `{ live, health, heardAt, byStatus }` at each
 * change, `onUpdates` each `map` event, and `onReturn` is called when the gateway or a part behind it is back.
 */
export function follow({ onState, onUpdates, onReturn }) {
  let state = { live: "connecting", health: null, heardAt: null, byStatus: {} };
  let stream = null;
  let again = null;
  const change = (part) => {
    state = { ...state, ...part };
    onState(state);
  };
  const onEvent = (name, data) => {
    if (name === "map") onUpdates(data);
    if (name === "health") {
      followBuild(data.page_build);
      const isBack = state.health && PARTS.some((part) => data[part] && !state.health[part]);
      if (isBack) onReturn();
    }
    change({ heardAt: Date.now(), ...(name === "health" && { health: data }), ...(name === "totals" && { byStatus: data.by_status }) });
  };
  const onStreamState = (name) => {
    const wasLost = state.live === "reconnecting";
    change({ live: LIVE_BY_STREAM[name] });
    if (name === "open" && wasLost) onReturn();
    if (name === "closed") again = setTimeout(open, AGAIN_MS);
  };
  const open = () => {
    stream?.close();
    stream = openStream({ onEvent, onState: onStreamState });
    stream.want({ agents: [], map: true });
  };
  open();
  return () => {
    clearTimeout(again);
    stream.close();
  };
}
