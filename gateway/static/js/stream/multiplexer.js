/**
 * One event stream for several tabs: it asks for what any of them wants, and each gets what comes.
 *
 * A tab sends `{ kind: "want", base, agents, map, after }`, `{ kind: "alive" }` and `{ kind: "bye" }`, and is sent
 * `{ kind: "event", name, data }` and `{ kind: "state", state }`, where `state` is `open`, `lost` or `closed`. No clock.
 */

const NAMES = ["ping", "registered", "removed", "connected", "conflict", "totals", "map", "health", "reset"];
const CLOSED = 2; // EventSource.CLOSED
const MOST_AGENTS = 500;
export const DEAD_MS = 150_000; // hidden tabs may speak only once a minute
const REOPEN_MS = 250; // wishes within so long are met by one new stream

export class Multiplexer {
  constructor(open, later = (work, ms) => setTimeout(work, ms)) {
    this._open = open;
    this._later = later;
    this._tabs = new Map(); // a tab's wishes, by the tab
    this._source = null;
    this._asked = null; // what the open stream was asked for
    this._lastId = null;
    this._isWaiting = false;
    this._health = null; // the last one, for a tab that comes later
  }

  /** Takes a message of a tab. */
  receive(tab, message, now) {
    if (message.kind === "bye") return this._forget(tab);
    const known = this._tabs.get(tab);
    if (message.kind === "alive") {
      if (known) known.seenAt = now;
      return undefined;
    }
    if (!known && this._source) {
      tab.send({ kind: "state", state: this._source.readyState === 1 ? "open" : "lost" });
      if (this._health) tab.send({ kind: "event", name: "health", data: this._health });
    }
    this._tabs.set(tab, { ...message, seenAt: now });
    this._lastId ??= message.after ?? null;
    return this._meet();
  }

  /** Forgets the tabs that said nothing for DEAD_MS: a tab that crashed says no goodbye. */
  forgetDead(now) {
    for (const [tab, { seenAt }] of this._tabs) if (now - seenAt > DEAD_MS) this._forget(tab);
  }

  _forget(tab) {
    this._tabs.delete(tab);
    if (this._tabs.size > 0) return;
    this._close();
    this._lastId = null;
  }

  /** Opens another stream where the present one lacks something. What it has too much is dropped with the next one. */
  _meet() {
    const wanted = this._wanted();
    const isMet = this._source && this._asked.map >= wanted.map && wanted.agents.every((id) => this._asked.agents.has(id));
    if (isMet || this._isWaiting) return;
    if (!this._source) return this._reopen();
    this._isWaiting = true;
    this._later(() => {
      this._isWaiting = false;
      if (this._tabs.size > 0) this._reopen();
    }, REOPEN_MS);
  }

  _wanted() {
    const tabs = [...this._tabs.values()];
    const agents = [...new Set(tabs.flatMap((tab) => tab.agents))].slice(0, MOST_AGENTS);
    return { agents, map: tabs.some((tab) => tab.map), base: tabs[0].base };
  }

  /** The new stream begins where the old one ended, which stays until the new one is there. */
  _reopen() {
    const wanted = this._wanted();
    const query = new URLSearchParams({ view: "slim", agents: wanted.agents.join(",") });
    if (wanted.map) query.set("map", "true");
    if (this._lastId) query.set("after", this._lastId);
    const old = this._source;
    const source = this._open(`${wanted.base}?${query}`);
    this._source = source;
    this._asked = { agents: new Set(wanted.agents), map: wanted.map };
    source.addEventListener("open", () => {
      old?.close();
      if (source === this._source) this._sendAll({ kind: "state", state: "open" });
    });
    source.addEventListener("error", () => {
      old?.close();
      if (source !== this._source) return;
      const isClosed = source.readyState === CLOSED; // it was refused, and the browser does not try again
      if (isClosed) this._close();
      this._sendAll({ kind: "state", state: isClosed ? "closed" : "lost" });
    });
    for (const name of NAMES) {
      source.addEventListener(name, (event) => {
        if (source !== this._source) return;
        if (event.lastEventId) this._lastId = event.lastEventId;
        if (name === "health") this._health = event.data;
        this._sendAll({ kind: "event", name, data: event.data });
      });
    }
  }

  _close() {
    this._source?.close();
    this._source = null;
    this._asked = null;
    this._health = null;
  }

  _sendAll(message) {
    for (const [tab, { map }] of this._tabs) if (message.name !== "map" || map) tab.send(message);
  }
}
