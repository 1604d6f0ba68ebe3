/**
 * Numbers and times as text. No I/O and no clock, so that `node --test` can test it.
 *
 * Payments depend on these percentages: they are truncated and never rounded up, so that 99.9999 is not shown as 100.
 */

export const NOTHING = "–";
export const SPACE = "\u00a0"; // keeps a number and its unit on one line
const number = new Intl.NumberFormat("en");

export const count = (value) => (value == null ? NOTHING : number.format(value));

/** A percentage of 0 to 100, with three decimals above 99, where thresholds lie. Null becomes a dash, never 0. */
export function percent(value) {
  if (value == null) return NOTHING;
  if (value >= 100) return "100%";
  const places = value >= 99 ? 3 : value >= 10 ? 1 : 2;
  const scale = 10 ** places;
  return `${(Math.floor(value * scale + 1e-9) / scale).toFixed(places)}%`;
}

export function milliseconds(value) {
  if (value == null) return NOTHING;
  if (value < 10) return `${value.toFixed(1)}${SPACE}ms`;
  if (value < 1000) return `${Math.round(value)}${SPACE}ms`;
  return `${(value / 1000).toFixed(2)}${SPACE}s`;
}

/** The label of a response time on an axis: `0 ms`, `0.5 ms`, `50 ms`, `1.5 s`. */
export function axisMilliseconds(value) {
  if (value < 1000) return `${Number(value.toFixed(2))}${SPACE}ms`;
  return `${Number((value / 1000).toFixed(2))}${SPACE}s`;
}

const UNITS = [
  ["d", 86_400],
  ["h", 3_600],
  ["min", 60],
  ["s", 1],
];

const MANY_DAYS = 100;

/** Two units at most: `45 s`, `3 min 20 s`, `1 d 2 h`, `46,296 d`; tenths below ten seconds. Only no time at all is `0 s`. */
export function duration(seconds) {
  if (seconds == null) return NOTHING;
  if (seconds > 0 && seconds < 0.05) return `< 0.1${SPACE}s`;
  if (seconds < 10) return `${Number(seconds.toFixed(1))}${SPACE}s`;
  let rest = Math.round(seconds);
  const parts = [];
  for (const [unit, size] of UNITS) {
    const whole = Math.floor(rest / size);
    rest -= whole * size;
    if (whole > 0) parts.push(`${count(whole)}${SPACE}${unit}`);
    else if (parts.length > 0) break;
    if (unit === "d" && whole >= MANY_DAYS) break;
  }
  return parts.slice(0, 2).join(" ");
}

/** `0:07`, `14:59`, `2:03:11`. */
export function countdown(seconds) {
  const whole = Math.max(0, Math.ceil(seconds));
  const two = (value) => String(value).padStart(2, "0");
  const [hours, minutes, rest] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60, whole % 60];
  return hours > 0 ? `${hours}:${two(minutes)}:${two(rest)}` : `${minutes}:${two(rest)}`;
}

let timeZone; // undefined: the browser's own
let formats = formatsIn(timeZone);

function formatsIn(zoneName) {
  const format = (options) => new Intl.DateTimeFormat("en-GB", { ...options, timeZone: zoneName });
  return {
    clock: format({ hour: "2-digit", minute: "2-digit", second: "2-digit" }),
    minute: format({ hour: "2-digit", minute: "2-digit" }),
    day: format({ day: "numeric", month: "short" }),
    longDay: format({ dateStyle: "medium" }),
    full: format({ dateStyle: "medium", timeStyle: "medium" }),
  };
}

/** Shows every time in UTC, or else in the browser's own zone. */
export function showUtc(isUtc) {
  timeZone = isUtc ? "UTC" : undefined;
  formats = formatsIn(timeZone);
}

/** The time of day; on any other day than today with the date, and in any other year than this one with the year. */
export function formatTime(iso, now = Date.now()) {
  if (!iso) return NOTHING;
  const at = new Date(iso);
  const clock = formats.clock.format(at);
  const [day, today] = [formats.longDay.format(at), formats.longDay.format(now)]; // `27 Nov 2026`
  if (day === today) return clock;
  const isThisYear = day.slice(-4) === today.slice(-4);
  return `${isThisYear ? formats.day.format(at) : day}, ${clock}`;
}

/** The day with its year. */
export const formatDay = (iso) => (iso ? formats.longDay.format(new Date(iso)) : NOTHING);

export const formatFullTime = (iso) => (iso ? formats.full.format(new Date(iso)) : NOTHING);

/** The label of a time on an axis whose marks are `step` seconds apart. */
export function axisLabel(at, step) {
  if (step < 60) return formats.clock.format(at);
  return step < 86_400 ? formats.minute.format(at) : formats.day.format(at);
}

/** A month of UTC by its name, `November 2026`. */
export const nameOfMonth = (month) =>
  new Date(`${month}-01T00:00:00Z`).toLocaleDateString("en-GB", { month: "long", year: "numeric", timeZone: "UTC" });

/** A time as fields for a date and a time have it, `2026-11-26T14:05`, in the shown zone. */
export const asField = (at) => new Date(at + zoneOffset(at) * 60_000).toISOString().slice(0, 16);

/** The time that such a field names in the shown zone, in milliseconds since 1970; NaN for none. */
export const fromField = (text) => Date.parse(timeZone === "UTC" ? `${text}Z` : text);

/** Whether times are shown in UTC by choice, whatever the browser's own zone. */
export const isShownInUtc = () => timeZone === "UTC";

/** The minutes by which the shown zone is ahead of UTC at a time. */
export const zoneOffset = (at) => (timeZone === "UTC" ? 0 : -new Date(at).getTimezoneOffset());

export function ago(iso, now) {
  if (!iso) return "never";
  const seconds = (now - Date.parse(iso)) / 1000;
  if (seconds < 2) return "just now";
  return `${duration(Math.floor(seconds))} ago`;
}

/** A percentage with three decimals throughout, as statements have it. */
export function exactPercent(value) {
  if (value == null) return NOTHING;
  return value === 100 ? "100%" : `${(Math.trunc(value * 1000) / 1000).toFixed(3)}%`;
}

export const plural = (value, word) => `${count(value)} ${word}${value === 1 ? "" : "s"}`;

/** The zone of every time on the page, such as `Europe/Berlin`; UTC by that name. */
export function zone() {
  const name = timeZone ?? new Intl.DateTimeFormat().resolvedOptions().timeZone;
  return name === "Etc/UTC" || name === "Etc/GMT" ? "UTC" : name;
}
