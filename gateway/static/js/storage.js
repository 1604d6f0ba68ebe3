/** What the browser keeps for the page. It may forbid that, or have no room: then nothing is read, and nothing written. */

/** The text under a key; null where there is none. `area` is `sessionStorage` for what only this tab keeps. */
export function read(key, area = "localStorage") {
  try {
    return globalThis[area].getItem(key);
  } catch {
    return null;
  }
}

/** Keeps a text, or removes it where it is null. Returns whether that worked. */
export function write(key, text, area = "localStorage") {
  try {
    if (text == null) globalThis[area].removeItem(key);
    else globalThis[area].setItem(key, text);
    return true;
  } catch {
    return false;
  }
}
