/** The top of the page: its name, the state of the event stream, links, sign-out and the theme switch. */

import { html } from "../preact.js";
import { isSignedIn, signOut } from "../session.js";
import { ZoneSwitch } from "../zone.js";
import { AlertsBadge } from "./alerts.js";
import { AddHostButton } from "./addhost.js";
import { showHelp } from "./keys.js";
import { ThemeButton } from "./themebutton.js";
import { Brand, LiveBadge } from "./topbar.js";

export function Header({ state, mayAdd }) {
  const { phase } = state;
  return html`<header class="top">
    <${Brand} href="#/" />
    ${phase !== "login" && html`<${LiveBadge} state=${state} />`}
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
