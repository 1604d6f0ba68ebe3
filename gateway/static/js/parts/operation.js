/** The foot of the page, for operators: what to put right although all works, and how far back the bus reaches. */

import { formatDay, plural } from "../format.js";
import { html } from "../preact.js";

/** What an operator should put right; nothing while there is nothing, or while a part cannot work at all. */
export function Remarks({ health }) {
  const remarks = health?.remarks ?? [];
  if (remarks.length === 0) return null;
  return html`<section class="trouble remarks" role="status" aria-label="To put right">
    <strong>To put right:</strong>
    <ul>${remarks.map((remark) => html`<li key=${remark}>${remark}</li>`)}</ul>
  </section>`;
}

/** Since when the bus holds outcomes, and the days that exist once only. */
export function Operation({ health }) {
  const begins = health?.stream_begins;
  const left = health?.stream_days_left;
  const only = health?.days_in_file_only ?? 0;
  if (!begins && only === 0) return null;
  return html`<footer class="operation note">
    <span>${begins ? `The bus holds outcomes since ${formatDay(begins)}` : "The bus holds no outcomes."}</span>
    ${left != null && html`<span>and drops the oldest in about ${plural(Math.round(left), "day")}; history and archive keep them.</span>`}
    ${only > 0 && html`<strong>${plural(only, "day")} ${only === 1 ? "is" : "are"} in storage’s file only: back its data dir up.</strong>`}
  </footer>`;
}
