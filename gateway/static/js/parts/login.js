/** The sign-in form, shown when the gateway requires a token. */

import * as api from "../api.js";
import { start } from "../live.js";
import { remember } from "../session.js";
import { html, useEffect, useRef, useState } from "../preact.js";

export function Login() {
  const [problem, setProblem] = useState(null);
  const [isBusy, setBusy] = useState(false);
  const field = useRef();
  useEffect(() => field.current.focus(), []);
  const submit = async (event) => {
    event.preventDefault();
    setBusy(true);
    try {
      await api.login(field.current.value.trim());
      remember(true);
      await start();
    } catch (error) {
      setProblem(error.status === 401 ? "That token is not known here." : error.message);
      field.current.select();
    } finally {
      setBusy(false);
    }
  };
  return html`<main class="login" aria-labelledby="login-title">
    <form onSubmit=${submit}>
      <h1 id="login-title">Who is looking?</h1>
      <p>This gateway answers to bearers of a token only. A viewer's token is enough to look. The operator makes one
        with <code>gpuping token NAME</code>.</p>
      <label>Token <input
        ref=${field} type="password" name="token" autocomplete="current-password" required aria-describedby="login-problem"
      /></label>
      <p id="login-problem" class="problem" role="alert">${problem}</p>
      <button type="submit" class="primary" disabled=${isBusy}>${isBusy ? "Looking it up" : "Sign in"}</button>
    </form>
  </main>`;
}
