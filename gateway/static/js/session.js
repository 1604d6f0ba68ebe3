/**
 * Whether this browser signed in here. The session itself is a cookie that no script can read; this only says
 * whether a way out is worth showing.
 */

import * as api from "./api.js";

const KEY = "signed-in";

export function isRemembered() {
  try {
    return localStorage.getItem(KEY) != null;
  } catch {
    return false; // storage may be forbidden
  }
}

export function remember(isIn) {
  try {
    if (isIn) localStorage.setItem(KEY, "");
    else localStorage.removeItem(KEY);
  } catch {
    // then no way out is shown; the session ends by itself
  }
}

export async function signOut() {
  remember(false);
  await api.logout();
  location.reload();
}
