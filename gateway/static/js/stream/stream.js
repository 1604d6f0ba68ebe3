/**
 * A tab's side of the event stream: the stream that all tabs share, or one of its own where the browser has no shared
 * workers (Chrome on Android).
 */

import { Multiplexer } from "./multiplexer.js";

const ALIVE_MS = 20_000;
const base = new URL("ping-system/events", document.baseURI).href;
export const isShared = "SharedWorker" in globalThis;

/**
 * Opens the stream. `onEvent(name, data)` gets the parsed data of each event, `onState` is told `open`, `lost` and
 * `closed`. Returns `{ want({ agents, map, after }), close() }`; the first `want` opens it.
 */
export function openStream({ onEvent, onState }) {
  const receive = (message) => {
    if (message.kind === "event") onEvent(message.name, JSON.parse(message.data));
    else onState(message.state);
  };
  const send = isShared ? toWorker(receive) : toOwn(receive);
  const alive = setInterval(() => send({ kind: "alive" }), ALIVE_MS);
  return {
    want: ({ agents, map = false, after = null }) => send({ kind: "want", base, agents, map, after }),
    close: () => {
      clearInterval(alive);
      send({ kind: "bye" });
    },
  };
}

function toWorker(receive) {
  const { content } = document.querySelector("meta[name=stream-worker]"); // its address, which differs in the built page
  const worker = new SharedWorker(new URL(content, document.baseURI), { type: "module", name: "gpuping" });
  worker.port.onmessage = ({ data }) => receive(data);
  worker.port.start();
  return (message) => worker.port.postMessage(message);
}

function toOwn(receive) {
  const multiplexer = new Multiplexer((address) => new EventSource(address));
  const tab = { send: receive };
  return (message) => multiplexer.receive(tab, message, Date.now());
}
