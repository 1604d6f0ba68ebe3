/** What stands first on the pages' top: the product's sign, and whether what is shown is of this moment. */

import { badge } from "../badge.js";
import { html } from "../preact.js";
import { useNow } from "../store.js";

/** The sign of favicon.svg and the name, as a link; as a part of the page the sign needs no request. */
export const Brand = ({ href }) => html`<a class="brand" href=${href} aria-label="gpuping, the whole fleet">
  <svg class="brand-sign" viewBox="0 0 32 32" width="28" height="28" aria-hidden="true">
    <rect width="32" height="32" rx="8" /><path d="M7 12v8M12 8v16M17 12v8M22 6v20" /><circle cx="26.5" cy="16" r="2" />
  </svg><span>gpuping</span>
</a>`;

/** `state` is `{ live, health, heardAt }`, as badge.js has it. */
export function LiveBadge({ state }) {
  useNow(); // each second: silence alone makes the page stale
  const { kind, label, note } = badge(state, Date.now());
  return html`<span class="live is-${kind}" title=${note}><i aria-hidden="true"></i><span role="status">${label}</span></span>`;
}
