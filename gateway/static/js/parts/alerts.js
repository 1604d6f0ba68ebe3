/** The alerts badge: how much is wrong and whether everybody was told; opened, what it is. */

import * as api from "../api.js";
import { formatTime, plural } from "../format.js";
import { classes, html, useEffect, useState } from "../preact.js";

const SHOWN = 12;
const TONES = { critical: "missing", warning: "poor", info: "recovering" };

/** `summary` is of the dashboard's response: null where no alerts service answers. */
export function AlertsBadge({ summary }) {
  const [isOpen, setIsOpen] = useState(false);
  const counts = summary?.by_severity ?? {};
  const wrong = Object.values(counts).reduce((sum, number) => sum + number, 0);
  const unsent = summary?.unsent ?? 0;
  if (wrong === 0 && unsent === 0) return null;
  const worst = Object.keys(TONES).find((severity) => counts[severity] > 0) ?? "critical";
  return html`<details class="alerts" data-name="alerts" onToggle=${(event) => setIsOpen(event.currentTarget.open)}>
    <summary class=${`tone-${TONES[worst]}`}>
      ${wrong > 0 && plural(wrong, "alert")}${unsent > 0 && html`<span class=${classes({ unsent: true, "is-more": wrong > 0 })}>${wrong > 0 && ", "}${unsent} not sent</span>`}
    </summary>
    ${isOpen && html`<${List} summary=${summary} />`}
  </details>`;
}

/** Read when it is opened, and again with each response of the dashboard. */
function List({ summary }) {
  const [alerts, setAlerts] = useState(null);
  useEffect(() => {
    let isWanted = true;
    api.alerts().then((answer) => isWanted && setAlerts(answer)).catch(() => isWanted && setAlerts(null));
    return () => (isWanted = false);
  }, [summary]);
  if (!alerts) return null;
  const wrong = alerts.active.filter((alert) => !alert.silenced);
  const unsent = alerts.notifications.filter((one) => one.error && one.state !== "sent");
  return html`<div class="alerts-list">
    <ul>
      ${unsent.slice(0, SHOWN).map((one) => html`<${Unsent} key=${one.notification_id} notification=${one} />`)}
      ${wrong.slice(0, SHOWN).map((alert) => html`<${Wrong} key=${`${alert.about} ${alert.rule} ${alert.detail}`} alert=${alert} />`)}
    </ul>
    ${wrong.length > SHOWN && html`<p class="quiet">and ${wrong.length - SHOWN} more: <code>gpuping alerts list</code></p>`}
    ${alerts.targets.length === 0 && html`<p class="quiet">Nobody is told: GPUPING_ALERTS_FILE names no target.</p>`}
  </div>`;
}

const Wrong = ({ alert }) => html`<li class=${`tone-${TONES[alert.severity]}`}>
  <b>${alert.about}</b> ${alert.rule.replaceAll("-", " ")}
  <span class="quiet">since ${formatTime(alert.since)}${alert.detail ? `, ${alert.detail}` : ""}</span>
</li>`;

const Unsent = ({ notification }) => html`<li class="tone-missing">
  <b>${notification.target}</b> was not told: ${notification.title}
  <span class="quiet">${notification.error}${notification.state === "failed" ? "; given up" : "; trying again"}</span>
</li>`;
