/**
 * The one event stream of all tabs of this browser, in a shared worker. A browser keeps at most six connections to one
 * host, and a wall of six tabs needs only one stream.
 */

import { Multiplexer } from "./multiplexer.js";

const multiplexer = new Multiplexer((address) => new EventSource(address));
setInterval(() => multiplexer.forgetDead(Date.now()), 30_000);

addEventListener("connect", ({ ports: [port] }) => {
  const tab = { send: (message) => port.postMessage(message) };
  port.onmessage = ({ data }) => multiplexer.receive(tab, data, Date.now());
  port.start();
});
