/**
 * Remembers that this browser signed in. The session itself is a cookie that no script can read; this mark only decides
 * whether the page shows "Sign out".
 */

import * as api from "./api.js";
import { forget } from "./chosen.js";

const KEY = "signed-in";

export function isSignedIn() {
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
    // "Sign out" is then not shown; the session expires by itself
  }
}

export async function signOut() {
  remember(false);
  forget();
  await api.logout();
  location.reload();
}
