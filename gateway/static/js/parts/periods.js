/**
 * The periods of the panel's charts, as the URL has them: `7d`, a month of UTC such as `2026-10`, or two times,
 * `2026-11-03T00:00Z~2026-11-04T00:00Z`. Months are those of UTC, as in statements. No I/O and no clock.
 */

import { monthBeside, monthBounds } from "../month/model.js";

const HOUR_MS = 3_600_000;
const MINUTE_MS = 60_000;
const LONGEST_MS = 87_600 * HOUR_MS; // ten years, the most that is answered

export const PERIODS = [
  { name: "24h", label: "24 h", hours: 24 },
  { name: "7d", label: "7 d", hours: 24 * 7 },
  { name: "30d", label: "30 d", hours: 24 * 30 },
  { name: "month", label: "Month" },
  { name: "custom", label: "From, to" },
];
const DEFAULT = PERIODS[0];

/** The month of a time in UTC, `2026-11`. */
export const monthOf = (at) => new Date(at).toISOString().slice(0, 7);

/**
 * The period that a text of the URL names: `{ text, name, since, until, isOpen }`, times in milliseconds since 1970.
 * An open one ends now and goes on. A text that names none is the last 24 hours.
 */
export function periodOf(text, now) {
  const month = /^\d{4}-(0[1-9]|1[0-2])$/.test(text ?? "") ? monthBounds(text) : null;
  if (month && month.since >= 0 && month.since < now) {
    return { text, name: "month", since: month.since, until: Math.min(now, month.until), isOpen: now < month.until };
  }
  const [since, until] = (text ?? "").split("~").map((part) => Date.parse(part));
  if (since >= 0 && until - since >= MINUTE_MS && until - since <= LONGEST_MS) {
    return { text, name: "custom", since, until, isOpen: until > now };
  }
  const rolling = PERIODS.find(({ name, hours }) => hours && name === text) ?? DEFAULT;
  return { text: rolling.name, name: rolling.name, since: now - rolling.hours * HOUR_MS, until: now, isOpen: true };
}

/** The text of the URL for a period that was chosen by its name, from the one that is shown. */
export function textOf(name, shown, now) {
  if (name === "month") return monthOf(now);
  if (name === "custom") return customText(shown.since, shown.until);
  return name === DEFAULT.name ? null : name;
}

export const customText = (since, until) => [since, until].map((at) => `${new Date(at).toISOString().slice(0, 16)}Z`).join("~");

/** The months from that of one time to that of another, newest first. */
export function monthsBetween(first, last) {
  const months = [monthOf(last)];
  while (months.at(-1) > monthOf(first)) months.push(monthBeside(months.at(-1), -1));
  return months;
}

/** The hours from a time until now, for questions that take hours back from now. */
export const hoursSince = (since, now) => Math.min(87_600, Math.max(1, Math.ceil((now - since) / HOUR_MS)));
