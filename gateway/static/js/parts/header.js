/** The top of the page: its name, the state of the event stream, links, sign-out and the theme switch. */

import { badge } from "../badge.js";
import { html, useState } from "../preact.js";
import { isSignedIn, signOut } from "../session.js";
import { useNow } from "../store.js";
import { setTheme, theme, THEMES } from "../theme.js";
import { ZoneSwitch } from "../zone.js";
import { AlertsBadge } from "./alerts.js";
import { AddHostButton } from "./addhost.js";
import { Icon } from "./glyph.js";
import { showHelp } from "./keys.js";

/** The sign of favicon.svg: as a part of the page it needs no request. */
const Brand = () => html`<svg class="brand-sign" viewBox="0 0 32 32" width="28" height="28" aria-hidden="true">
  <rect width="32" height="32" rx="8" /><path d="M7 12v8M12 8v16M17 12v8M22 6v20" /><circle cx="26.5" cy="16" r="2" />
</svg>`;

function Badge({ state }) {
  useNow(); // each second
  const { kind, label, note } = badge(state, Date.now());
  return html`<span class="live is-${kind}" title=${note}><i aria-hidden="true"></i><span role="status">${label}</span></span>`;
}

export function Header({ state, mayAdd }) {
  const { phase } = state;
  return html`<header class="top">
    <a class="brand" href="#/" aria-label="gpuping, the whole fleet">
      <${Brand} /><span>gpuping</span>
    </a>
    ${phase !== "login" && html`<${Badge} state=${state} />`}
    ${phase === "ready" && html`<${AlertsBadge} summary=${state.fleet.alerts} />`}
    <nav aria-label="More">
      ${phase === "ready" && mayAdd && html`<${AddHostButton} />`}
      <a href="map">Map</a>
      <a href="#/wall" class="wall-link">Wall</a>
      <a href="schema">API</a>
      <a href="metrics">Metrics</a>
      ${phase === "ready" && isSignedIn() && html`<${SignOut} />`}
      ${phase === "ready" && html`<${ZoneSwitch} />`}
      <button type="button" class="plain help-button" onClick=${showHelp} aria-label="Keyboard shortcuts" title="Keyboard shortcuts (?)">?</button>
      <${ThemeButton} />
    </nav>
  </header>`;
}

const SignOut = () => html`<button type="button" class="linklike" onClick=${signOut}>Sign out</button>`;

function ThemeButton() {
  const [name, setName] = useState(theme());
  const next = THEMES[(THEMES.indexOf(name) + 1) % THEMES.length];
  const press = () => {
    setTheme(next);
    setName(next);
  };
  const label = `Theme: ${name}. Switch to ${next}`;
  return html`<button type="button" class="plain" onClick=${press} title=${`Theme: ${name}`} aria-label=${label}>
    <${Icon} name=${name} />
  </button>`;
}
