/** A tile for each status with its count. A press filters the table by it, a second press removes the filter. */

import { count } from "../format.js";
import { html } from "../preact.js";
import { go } from "../route.js";
import { STATUSES } from "../labels.js";
import { isWhole } from "../fleet.js";
import { Glyph } from "./glyph.js";
import { isJudged } from "./row.js";

export function Tiles({ fleet, only }) {
  return html`<div class="tiles" role="group" aria-label="Show agents by status">
    <${Tile} label="All agents" number=${fleet.total} pressed=${!only} press=${() => go({ status: null })} />
    ${STATUSES.map(
      ({ name, label, meaning }) => html`<${Tile}
      key=${name} name=${name} label=${label} meaning=${meaning} number=${fleet.byStatus[name] ?? 0}
      note=${name === "healthy" ? notJudged(fleet) : ""} pressed=${only === name} press=${() => go({ status: only === name ? null : name })}
    />`,
    )}
  </div>`;
}

/** Of the healthy agents those of which no ping was judged yet, where the page knows all of them. */
function notJudged(fleet) {
  if (!isWhole(fleet)) return "";
  const early = [...fleet.listed].map((id) => fleet.agents.get(id)).filter((agent) => agent && !isJudged(agent));
  return early.length > 0 ? `${count(early.length)} not judged yet` : "";
}

function Tile({ name, label, meaning, note, number, pressed, press }) {
  return html`<button
    type="button" class="tile ${name ? `tone-${name}` : ""} ${number === 0 ? "is-zero" : ""}" data-status=${name ?? "all"}
    aria-pressed=${pressed ? "true" : "false"} title=${meaning} onClick=${press}
  >
    <span class="tile-number">${count(number)}</span>
    <span class="tile-label">${name && html`<${Glyph} name=${name} />`}${label}</span>
    ${note && html`<span class="tile-note">${note}</span>`}
  </button>`;
}
