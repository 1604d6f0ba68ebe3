/** One event stream for several tabs. */

import assert from "node:assert/strict";
import { test } from "node:test";
import { DEAD_MS, Multiplexer } from "../../gateway/static/js/stream/multiplexer.js";

class Source extends EventTarget {
  constructor(address) {
    super();
    this.address = address;
    this.query = new URL(address).searchParams;
    this.readyState = 0;
  }
  close() {
    this.readyState = 2;
  }
  opened() {
    this.readyState = 1;
    this.dispatchEvent(new Event("open"));
  }
  says(name, data, lastEventId = "") {
    this.dispatchEvent(Object.assign(new Event(name), { data, lastEventId }));
  }
}

function world() {
  const sources = [];
  const waiting = [];
  const multiplexer = new Multiplexer(
    (address) => {
      sources.push(new Source(address));
      return sources.at(-1);
    },
    (work) => waiting.push(work),
  );
  const tab = () => {
    const heard = [];
    return { heard, send: (message) => heard.push(message) };
  };
  const want = (tab, agents, part = {}) => multiplexer.receive(tab, { kind: "want", base: "http://x/events", agents, ...part }, 0);
  return { multiplexer, sources, waiting, tab, want };
}

test("two tabs share one stream, which asks for what both want", () => {
  const { sources, waiting, tab, want } = world();
  const [one, other] = [tab(), tab()];
  want(one, ["a"], { after: "e-7" });
  assert.equal(sources[0].query.get("after"), "e-7");
  sources[0].opened();
  want(other, ["b"]);
  waiting.shift()();
  assert.deepEqual(sources[1].query.get("agents").split(",").sort(), ["a", "b"]);
  assert.equal(sources[0].readyState, 1); // the old one goes on until the new one is there
  sources[1].opened();
  assert.equal(sources[0].readyState, 2);
  sources[1].says("ping", "{}", "e-9");
  for (const { heard } of [one, other]) assert.equal(heard.at(-1).name, "ping");
});

test("a new stream begins after the last event of the old one", () => {
  const { sources, waiting, tab, want } = world();
  const one = tab();
  want(one, []);
  sources[0].opened();
  sources[0].says("totals", "{}", "e-12");
  want(one, ["a"]);
  waiting.shift()();
  assert.equal(sources[1].query.get("after"), "e-12");
});

test("a wish that is met opens nothing", () => {
  const { sources, waiting, tab, want } = world();
  const one = tab();
  want(one, ["a", "b"]);
  want(one, ["a"]);
  assert.deepEqual([sources.length, waiting.length], [1, 0]);
});

test("only tabs that show the map hear of it", () => {
  const { sources, tab, want } = world();
  const [page, map] = [tab(), tab()];
  want(map, [], { map: true });
  want(page, []);
  sources[0].opened();
  sources[0].says("map", "{}");
  assert.equal(map.heard.at(-1).name, "map");
  assert.ok(!page.heard.some(({ name }) => name === "map"));
});

test("the stream ends with its last tab, said goodbye to or dead", () => {
  const { multiplexer, sources, tab, want } = world();
  const [one, other] = [tab(), tab()];
  want(one, []);
  want(other, []);
  multiplexer.receive(one, { kind: "bye" }, 0);
  assert.notEqual(sources[0].readyState, 2);
  multiplexer.receive(other, { kind: "alive" }, DEAD_MS);
  multiplexer.forgetDead(DEAD_MS + 1);
  assert.notEqual(sources[0].readyState, 2);
  multiplexer.forgetDead(2 * DEAD_MS + 1);
  assert.equal(sources[0].readyState, 2);
});

test("a refused stream is told, and the next wish opens another", () => {
  const { sources, tab, want } = world();
  const one = tab();
  want(one, []);
  sources[0].readyState = 2;
  sources[0].dispatchEvent(new Event("error"));
  assert.deepEqual(one.heard.at(-1), { kind: "state", state: "closed" });
  want(one, []);
  assert.equal(sources.length, 2);
});
