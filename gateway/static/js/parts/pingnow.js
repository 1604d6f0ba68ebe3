/** Pings the agent at once. It counts like any other ping, and the page says what came of it. */

import * as api from "../api.js";
import { duration } from "../format.js";
import { html, useState } from "../preact.js";
import { BEATS, beatKind } from "../words.js";
import { said } from "./feed.js";

export function PingNow({ id }) {
  const [isBusy, setBusy] = useState(false);
  const [result, setResult] = useState(null);
  const press = async () => {
    setBusy(true);
    setResult(null);
    try {
      setResult({ ping: await api.pingNow(id) });
    } catch (problem) {
      setResult({ problem: problem.message });
    } finally {
      setBusy(false);
    }
  };
  return html`<div class="pingnow">
    <button type="button" class="primary" onClick=${press} disabled=${isBusy}>${isBusy ? "Waiting for the answer" : "Ping now"}</button>
    <p role="status" class=${result ? (result.ping ? `tone-${beatKind(result.ping)}` : "problem") : "quiet"}>
      ${result ? told(result) : "Counts like any other ping; the next one follows from it."}
    </p>
  </div>`;
}

function told({ ping, problem }) {
  if (problem) return problem;
  return html`Ping #${ping.ping_seq}: <b>${BEATS[beatKind(ping)]}</b>${said(ping)}. Next in ${duration(ping.interval_minutes * 60)}.`;
}
