/** Booked maintenance: in which order it is shown, and in which words. Pure. */

import { duration } from "./format.js";

/** Those going on first, then those to come, the earliest first, then those of this month that are over, the newest first. */
export function inOrder(bookings, now) {
  const monthBegin = new Date(now).toISOString().slice(0, 7);
  const going = bookings.filter((one) => isOn(one, now));
  const coming = bookings.filter((one) => Date.parse(one.since) > now);
  const over = bookings.filter((one) => Date.parse(one.until) <= now && one.until.slice(0, 7) >= monthBegin);
  const byBegin = (one, other) => Date.parse(one.since) - Date.parse(other.since);
  return [...going.sort(byBegin), ...coming.sort(byBegin), ...over.sort(byBegin).reverse()];
}

export const isOn = (one, now) => Date.parse(one.since) <= now && Date.parse(one.until) > now;

/** When a booking is, seen from now. */
export function whenWords(one, now) {
  const [since, until] = [Date.parse(one.since), Date.parse(one.until)];
  if (until <= now) return "over";
  if (since > now) return `begins in ${duration((since - now) / 1000)}`;
  return `going on, for ${duration((until - now) / 1000)} more`;
}

/** The maintenance that was booked for some of a day, in words; empty without any. */
export function bookedWords(bookings, since, until) {
  const within = bookings.filter((one) => Date.parse(one.since) < until && Date.parse(one.until) > since);
  return within.map((one) => one.reason).join(", ");
}
