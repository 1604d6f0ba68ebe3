/**
 * Loads the page anew once the gateway serves another build of it, after an upgrade: an old page would ask a new gateway
 * for what it no longer has. Nothing is lost by it, as the URL keeps what is shown.
 */

import { read, write } from "./storage.js";

const AGAIN_MS = 60_000; // gateways of two builds that take turns must not make the page load without end
const KEY = "loaded-anew-at";
const AREA = "sessionStorage"; // each tab has a page of its own
const IN_USE = "dialog[open], .book-form, input:focus, textarea:focus, select:focus";

/** The build of this page; empty where it is served from its sources. */
const own = () => document.querySelector("meta[name=page-build]")?.content ?? "";

/** Whether to load the page anew now: not while somebody types, and not more often than once a minute. */
export function isOutdated(own, served, isInUse, loadedAnewAt, now) {
  if (!own || !served || own === served || isInUse) return false;
  return !(now - loadedAnewAt < AGAIN_MS);
}

/** Called with each `health` event, which tells the build that the gateway serves. */
export function followBuild(served, now = Date.now()) {
  const isInUse = document.querySelector(IN_USE) != null;
  const loadedAnewAt = Number(read(KEY, AREA) ?? Number.NaN);
  if (!isOutdated(own(), served, isInUse, loadedAnewAt, now)) return;
  // where it cannot be kept, the page might load without end
  if (write(KEY, String(now), AREA)) location.reload();
}
