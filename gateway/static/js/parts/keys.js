/** The page by keyboard: `j` and `k` walk the rows, arrows their outcomes, Enter opens, Escape closes, `/` searches, `?` tells of these. */

import { html, useEffect } from "../preact.js";

const KEYS = [
  ["j", "next agent"],
  ["k", "agent before"],
  ["← →", "its last outcomes, one by one"],
  ["Enter", "open the agent"],
  ["Esc", "close the panel"],
  ["/", "search"],
  ["?", "these keys"],
];

export const showHelp = () => document.querySelector("#keys")?.showModal();

export function Help() {
  return html`<dialog id="keys" aria-labelledby="keys-title" onClick=${(event) => event.target.id === "keys" && event.target.close()}>
    <form method="dialog">
      <h2 id="keys-title">Keyboard shortcuts</h2>
      <dl>${KEYS.map(([key, does]) => html`<div key=${key}><dt><kbd>${key}</kbd></dt><dd>${does}</dd></div>`)}</dl>
      <button>Close</button>
    </form>
  </dialog>`;
}

const isTyping = (event) => event.ctrlKey || event.metaKey || event.altKey || event.target.closest("input, textarea, dialog");

export function useKeys() {
  useEffect(() => {
    const press = (event) => {
      if (isTyping(event)) return;
      if (event.key === "j") step(1);
      else if (event.key === "k") step(-1);
      else if (event.key === "ArrowLeft" && stepBeat(-1)) return event.preventDefault();
      else if (event.key === "ArrowRight" && stepBeat(1)) return event.preventDefault();
      else if (event.key === "?") showHelp();
      else return;
      event.preventDefault();
    };
    addEventListener("keydown", press);
    return () => removeEventListener("keydown", press);
  }, []);
}

/** Reads the next outcome of the row that has the focus. Returns whether there is such a row. */
function stepBeat(by) {
  const beats = document.activeElement?.closest(".row")?.querySelector(".beats");
  beats?.dispatchEvent(new CustomEvent("beatstep", { detail: by }));
  return Boolean(beats);
}

/** The first row on the screen; those above are elements, too, so that scrolling finds them drawn. */
const isBelowTop = (link) => link.getBoundingClientRect().top >= 0;

/** Moves the focus to the link of the row that many rows away from the one that has it, or that is open. */
function step(by) {
  const links = [...document.querySelectorAll(".row .cell-id a")];
  const focused = links.indexOf(document.activeElement);
  const from = focused >= 0 ? focused : links.findIndex((link) => link.ariaCurrent === "true");
  const to = from < 0 ? Math.max(0, links.findIndex(isBelowTop)) : Math.min(links.length - 1, Math.max(0, from + by));
  links[to]?.focus();
  links[to]?.scrollIntoView({ block: "nearest" });
}
