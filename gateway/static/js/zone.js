/** The zone of every time on the page: the browser's own or UTC. The choice is kept in local storage. */

import { showUtc, zone } from "./format.js";
import { html, useEffect, useState } from "./preact.js";
import { read, write } from "./storage.js";

const KEY = "zone";

let isUtc = read(KEY) === "utc";
showUtc(isUtc);

/** Where it cannot be kept, the choice lasts until the page is loaded anew. */
function choose(utc) {
  isUtc = utc;
  write(KEY, utc ? "utc" : "local");
  showUtc(utc);
  dispatchEvent(new Event("zonechange"));
}

/** Draws the component again when the zone changes. Returns a number that differs with each zone. */
export function useZone() {
  const [changes, setChanges] = useState(0);
  useEffect(() => {
    const bump = () => setChanges((times) => times + 1);
    addEventListener("zonechange", bump);
    return () => removeEventListener("zonechange", bump);
  }, []);
  return changes;
}

const localName = () => new Intl.DateTimeFormat().resolvedOptions().timeZone;

/** The switch between the browser's zone and UTC; the name of the one zone where both are the same. */
export function ZoneSwitch() {
  useZone();
  if (["UTC", "Etc/UTC", "Etc/GMT"].includes(localName())) return html`<span class="zone-name quiet">UTC</span>`;
  const to = isUtc ? localName() : "UTC";
  return html`<button type="button" class="zone-switch" onClick=${() => choose(!isUtc)}
    aria-label=${`Times in ${zone()}. Switch to ${to}`} title=${`Switch to ${to}`}>${zone()}</button>`;
}
