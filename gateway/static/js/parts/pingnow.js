/** The "Ping now" button and the outcome of its ping, which counts like any other. */

import * as api from "../api.js";
import { duration } from "../format.js";
import { html, useState } from "../preact.js";
import { BEATS, outcomeKind } from "../labels.js";
import { outcomeDetails } from "./changes.js";

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
    <p role="status" class=${result ? (result.ping ? `tone-${outcomeKind(result.ping)}` : "problem") : "quiet"}>
      ${result ? resultText(result) : "Counts like any other ping; the next one follows from it."}
    </p>
  </div>`;
}

function resultText({ ping, problem }) {
  if (problem) return problem;
  return html`Ping #${ping.ping_seq}: <b>${BEATS[outcomeKind(ping)]}</b>${outcomeDetails(ping)}. Next in ${duration(ping.interval_minutes * 60)}.`;
}
