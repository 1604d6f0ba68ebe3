/** The colour theme: light, dark, or the system's. The choice is kept in the browser's local storage. */

import { read, write } from "./storage.js";

const KEY = "theme";
export const THEMES = ["system", "light", "dark"];

export function theme() {
  const kept = read(KEY);
  return THEMES.includes(kept) ? kept : "system";
}

/** Where it cannot be kept, the choice lasts until the page is loaded anew. */
export function setTheme(name) {
  write(KEY, name);
  apply(name);
}

export function apply(name = theme()) {
  if (name === "system") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = name;
  dispatchEvent(new Event("themechange"));
}
