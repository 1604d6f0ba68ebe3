/**
 * Remembers that this browser signed in. The session itself is a cookie that no script can read; this mark only decides
 * whether the page shows "Sign out".
 */

import * as api from "./api.js";
import { forget } from "./chosen.js";
import { read, write } from "./storage.js";

const KEY = "signed-in";

export const isSignedIn = () => read(KEY) != null;

/** Where it cannot be kept, "Sign out" is not shown; the session expires by itself. */
export const remember = (isIn) => write(KEY, isIn ? "" : null);

export async function signOut() {
  remember(false);
  forget();
  await api.logout();
  location.reload();
}
