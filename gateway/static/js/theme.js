/** The colour theme: light, dark, or the system's. The choice is kept in the browser's local storage. */

export const THEMES = ["system", "light", "dark"];

function stored() {
  try {
    return localStorage.getItem("theme");
  } catch {
    return null; // storage may be forbidden
  }
}

export const theme = () => (THEMES.includes(stored()) ? stored() : "system");

export function setTheme(name) {
  try {
    localStorage.setItem("theme", name);
  } catch {
    // the choice then lasts until the page is reloaded
  }
  apply(name);
}

export function apply(name = theme()) {
  if (name === "system") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = name;
  dispatchEvent(new Event("themechange"));
}
