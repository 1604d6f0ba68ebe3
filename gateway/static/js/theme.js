/** Light, dark, or as the system says; remembered in this browser. */

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
    // it then holds for this visit
  }
  apply(name);
}

export function apply(name = theme()) {
  if (name === "system") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = name;
  dispatchEvent(new Event("themechange"));
}
