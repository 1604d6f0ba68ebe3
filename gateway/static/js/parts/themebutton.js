/** The switch of the colour theme: the system's, light, dark. */

import { html, useState } from "../preact.js";
import { setTheme, theme, THEMES } from "../theme.js";
import { Icon } from "./glyph.js";

export function ThemeButton() {
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
