/**
 * The filters that are set, each as a chip that takes it away: the status, hosts of the map, and words such as
 * `site:FRA`.
 */

import { idsOf } from "../chosen.js";
import { plural } from "../format.js";
import { html } from "../preact.js";
import { go, link } from "../route.js";
import { status } from "../labels.js";
import { Icon } from "./glyph.js";

const wordsOf = (search) => search.split(/\s+/).filter(Boolean);

/** A word that names what it is searched in; labels have names of letters, digits, `_`, `.` and `-`. */
export const isNamed = (word) => /^[\w.-]+:./.test(word);

/** The search without a word. */
export const without = (search, word) =>
  wordsOf(search)
    .filter((other) => other !== word)
    .join(" ");

/** The search with a word added, once. */
export const withWord = (search, word) => [...new Set([...wordsOf(search), word])].join(" ");

/** The word that finds hosts by a label; null where its value holds spaces, which part words. */
export function wordOf(name, value) {
  const text = typeof value === "string" ? value : JSON.stringify(value);
  return text && isNamed(`${name}:${text}`) && !/\s/.test(text) ? `${name}:${text}` : null;
}

const NO_AGENT = { agent: null, month: null, period: null };

/** The address of the hosts that a word finds, among those that are found already. */
export const hrefOf = (word, search) => link({ ...NO_AGENT, search: withWord(search, word) });

/** The address of all hosts that a word finds. */
export const hrefOfAll = (word) => link({ ...NO_AGENT, status: null, hosts: null, search: word });

/** `37 hosts of the map`; without the number where this browser does not know them. */
function hostsOfMap(text) {
  const ids = idsOf(text);
  return ids ? `${plural(ids.length, "host")} of the map` : "hosts of the map";
}

export function Chips({ route }) {
  const words = [...new Set(wordsOf(route.search))].filter(isNamed);
  if (words.length === 0 && !route.status && !route.hosts) return null;
  return html`<div class="chips" role="group" aria-label="Filters">
    ${route.status && html`<${Filter} text=${`status:${route.status}`} label=${status(route.status).label} clear=${() => go({ status: null })} />`}
    ${route.hosts && html`<${Filter} text="hosts" label=${hostsOfMap(route.hosts)} clear=${() => go({ hosts: null })} />`}
    ${words.map((word) => html`<${Filter} key=${word} text=${word} label=${word} clear=${() => go({ search: without(route.search, word) })} />`)}
  </div>`;
}

const Filter = ({ text, label, clear }) =>
  html`<button type="button" class="filter" data-filter=${text} onClick=${clear} aria-label=${`Without ${label}`}>${label}<${Icon} name="close" /></button>`;
