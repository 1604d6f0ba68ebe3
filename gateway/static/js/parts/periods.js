/** The periods of the charts. Months are those of UTC, as in statements. No I/O and no clock. */

export const PERIODS = [
  { name: "24h", label: "24 h", hours: 24 },
  { name: "7d", label: "7 d", hours: 24 * 7 },
  { name: "30d", label: "30 d", hours: 24 * 30 },
  { name: "month", label: "Month" },
];

/** The beginning of a period that ends at `now`; both in milliseconds since 1970. */
export function beginOf(name, now) {
  const { hours } = PERIODS.find((period) => period.name === name);
  if (hours) return now - hours * 3_600_000;
  const today = new Date(now);
  return Date.UTC(today.getUTCFullYear(), today.getUTCMonth(), 1);
}

/** The length of a period in hours, for questions that take hours; a month up to now is rounded up. */
export function hoursOf(name, now) {
  const { hours } = PERIODS.find((period) => period.name === name);
  return hours ?? Math.max(1, Math.ceil((now - beginOf(name, now)) / 3_600_000));
}
