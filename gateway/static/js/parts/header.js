/** The top of the page: its name, the state of the event stream, links, sign-out and the theme switch. */

import { html, useState } from "../preact.js";
import { isSignedIn, signOut } from "../session.js";
import { setTheme, theme, THEMES } from "../theme.js";
import { Icon } from "./glyph.js";

const LIVE = {
  connecting: { label: "Connecting", note: "asking the gateway for its events" },
  live: { label: "Live", note: "every outcome shows up as it happens" },
  reconnecting: { label: "Reconnecting", note: "the event stream was lost; it is being opened again" },
};

export function Header({ live, phase }) {
  const { label, note } = LIVE[live];
  return html`<header class="top">
    <a class="brand" href="#/" aria-label="gpuping, the whole fleet">
      <img src="static/favicon.svg" alt="" width="28" height="28" /><span>gpuping</span>
    </a>
    ${phase !== "login" && html`<span class="live is-${live}" role="status" title=${note}><i aria-hidden="true"></i>${label}</span>`}
    <nav aria-label="More">
      <a href="map">Map</a>
      <a href="schema">API</a>
      <a href="metrics">Metrics</a>
      ${phase === "ready" && isSignedIn() && html`<${SignOut} />`}
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
