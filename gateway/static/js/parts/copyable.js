/** A command line with a button that copies it to the clipboard. The line scrolls, so that it takes the focus. */

import { html, useRef, useState } from "../preact.js";
import { Icon } from "./glyph.js";

async function copy(text, line) {
  if (navigator.clipboard) return navigator.clipboard.writeText(text);
  // plain HTTP outside localhost has no clipboard API: select the line and use the older command
  getSelection().selectAllChildren(line);
  document.execCommand("copy");
}

export function Copyable({ text, label }) {
  const [done, setDone] = useState(false);
  const line = useRef();
  const press = async () => {
    try {
      await copy(text, line.current);
    } catch {
      getSelection().selectAllChildren(line.current);
      return;
    }
    setDone(true);
    setTimeout(() => setDone(false), 1500);
  };
  return html`<div class="copyable">
    <code ref=${line} tabindex="0">${text}</code>
    <button type="button" class="plain" onClick=${press} aria-label=${`Copy: ${label ?? text}`} title="Copy">
      <${Icon} name=${done ? "done" : "copy"} /><span class="spoken" role="status">${done ? "copied" : ""}</span>
    </button>
  </div>`;
}
