/** The alerts badge: how much is wrong and whether everybody was told; opened, what it is. */

import * as api from "../api.js";
import { formatTime, plural } from "../format.js";
import { classes, html, useEffect, useState } from "../preact.js";

const READ_MS = 30_000;
const SHOWN = 12;
const TONES = { critical: "missing", warning: "poor", info: "recovering" };

export function AlertsBadge() {
  const alerts = useAlerts();
  if (!alerts) return null;
  const wrong = alerts.active.filter((alert) => !alert.silenced);
  const unsent = alerts.notifications.filter((one) => one.error && one.state !== "sent");
  if (wrong.length === 0 && unsent.length === 0) return null;
  return html`<details class="alerts" data-name="alerts">
    <summary class=${`tone-${TONES[wrong[0]?.severity ?? "warning"]}`}>
      ${wrong.length > 0 && plural(wrong.length, "alert")}${unsent.length > 0 && html`<span class=${classes({ unsent: true, "is-more": wrong.length > 0 })}>${wrong.length > 0 && ", "}${unsent.length} not sent</span>`}
    </summary>
    <div class="alerts-list">
      <ul>
        ${unsent.slice(0, SHOWN).map((one) => html`<${Unsent} key=${one.notification_id} notification=${one} />`)}
        ${wrong.slice(0, SHOWN).map((alert) => html`<${Wrong} key=${`${alert.about} ${alert.rule} ${alert.detail}`} alert=${alert} />`)}
      </ul>
      ${wrong.length > SHOWN && html`<p class="quiet">and ${wrong.length - SHOWN} more: <code>gpuping alerts list</code></p>`}
      ${alerts.targets.length === 0 && html`<p class="quiet">Nobody is told: GPUPING_ALERTS_FILE names no target.</p>`}
    </div>
  </details>`;
}

const Wrong = ({ alert }) => html`<li class=${`tone-${TONES[alert.severity]}`}>
  <b>${alert.about}</b> ${alert.rule.replaceAll("-", " ")}
  <span class="quiet">since ${formatTime(alert.since)}${alert.detail ? `, ${alert.detail}` : ""}</span>
</li>`;

const Unsent = ({ notification }) => html`<li class="tone-missing">
  <b>${notification.target}</b> was not told: ${notification.title}
  <span class="quiet">${notification.error}${notification.state === "failed" ? "; given up" : "; trying again"}</span>
</li>`;

/** What is wrong, read from time to time while the page is seen; null where no alerts service answers. */
function useAlerts() {
  const [alerts, setAlerts] = useState(null);
  useEffect(() => {
    let timer = null;
    const read = async () => {
      clearTimeout(timer);
      if (document.hidden) return;
      setAlerts(await api.alerts().catch(() => null));
      timer = setTimeout(read, READ_MS);
    };
    read();
    document.addEventListener("visibilitychange", read);
    return () => {
      clearTimeout(timer);
      document.removeEventListener("visibilitychange", read);
    };
  }, []);
  return alerts;
}
