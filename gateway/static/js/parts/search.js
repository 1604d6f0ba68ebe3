/** The search box. The `/` key focuses it. */

import { html, useEffect, useRef } from "../preact.js";
import { go } from "../route.js";
import { Icon } from "./glyph.js";

export function Search({ value }) {
  const field = useRef();
  useEffect(() => {
    const jump = (event) => {
      if (event.key !== "/" || event.ctrlKey || event.metaKey || event.target.closest("input, textarea")) return;
      event.preventDefault();
      field.current.focus();
    };
    addEventListener("keydown", jump);
    return () => removeEventListener("keydown", jump);
  }, []);
  return html`<label class="search">
    <${Icon} name="search" />
    <span class="spoken">Search agents</span>
    <input ref=${field} type="search" value=${value} placeholder="Search, or site:FRA" title="Finds any part of an id, label (site:FRA), GPU name, capability or reason (reason:xid)" maxlength="200" autocomplete="off" spellcheck=${false}
      onInput=${(event) => go({ search: event.target.value })} />
    <kbd aria-hidden="true">/</kbd>
  </label>`;
}
