/** The arithmetic of the month page: periods, paths of timelines, steps of the waterfall. No I/O and no clock. */

export const STATES = ["up", "degraded", "down", "unknown", "excused", "unreported"];
const WORST_FIRST = ["down", "unreported", "unknown", "degraded", "excused", "up"];
const LEAST_HEIGHT = 0.22; // of the row: a second of a month must still be seen
const LEAST_WIDTH = 0.0012; // of the row's width
const SHORTEST_MS = 60_000;

/** The beginning and end of a month of UTC, in milliseconds since 1970. */
export function monthBounds(month) {
  const [year, number] = month.split("-").map(Number);
  return { since: Date.UTC(year, number - 1, 1), until: Date.UTC(year, number, 1) };
}

/** The month before or after another, `2026-11`. */
export function monthBeside(month, by) {
  const [year, number] = month.split("-").map(Number);
  return new Date(Date.UTC(year, number - 1 + by, 1)).toISOString().slice(0, 7);
}

/** The days of a month as weeks that begin on Monday; null where a week has days of another month. */
export function weeksOf(days) {
  const first = new Date(`${days[0].day}T00:00:00Z`).getUTCDay();
  const cells = [...new Array((first + 6) % 7).fill(null), ...days];
  while (cells.length % 7 !== 0) cells.push(null);
  return Array.from({ length: cells.length / 7 }, (_, week) => cells.slice(week * 7, week * 7 + 7));
}

/** A period as the URL has it, `2026-11-03T00:00Z~2026-11-04T00:00Z`; null for none or a malformed one. */
export function parsePeriod(text, bounds) {
  const [since, until] = (text ?? "").split("~").map((part) => Date.parse(part));
  if (!(until - since >= SHORTEST_MS)) return null;
  return inside({ since, until }, bounds);
}

export const formatPeriod = ({ since, until }) => [since, until].map((at) => new Date(at).toISOString().replace(/:\d\d\.\d+Z$/, "Z")).join("~");

/** The period moved and cut so that it lies within the bounds, at least a minute long. */
export function inside({ since, until }, bounds) {
  const length = Math.min(bounds.until - bounds.since, Math.max(SHORTEST_MS, until - since));
  const begin = Math.min(Math.max(bounds.since, since), bounds.until - length);
  return { since: begin, until: begin + length };
}

/** The period `factor` times as long, around a point that is a share of it. */
export function zoomed({ since, until }, factor, bounds, around = 0.5) {
  const length = Math.max(SHORTEST_MS, (until - since) * factor);
  const middle = since + (until - since) * around;
  return inside({ since: middle - length * around, until: middle + length * (1 - around) }, bounds);
}

export const moved = ({ since, until }, share, bounds) => {
  const by = (until - since) * share;
  return inside({ since: since + by, until: until + by }, bounds);
};

/** The state that a stretch is worst in. */
export const worstOf = (stretch) => WORST_FIRST.find((state) => stretch[state] > 0) ?? "up";

/**
 * The path of each state of a row, in a box of `width` by `height`. A stretch of one state fills the height; a sum of
 * several is a column of them, the worst at the bottom, of which every one can be seen.
 */
export function rowPaths(stretches, seconds, width, height) {
  const paths = Object.fromEntries(STATES.map((state) => [state, ""]));
  for (const stretch of stretches) {
    const x = (stretch.begin_seconds / seconds) * width;
    const wide = Math.max(LEAST_WIDTH * width, ((stretch.end_seconds - stretch.begin_seconds) / seconds) * width);
    const present = WORST_FIRST.filter((state) => stretch[state] > 0);
    const total = present.reduce((sum, state) => sum + stretch[state], 0);
    let bottom = height;
    let left = height;
    present.forEach((state, place) => {
      const rest = present.length - place - 1;
      const share = (stretch[state] / total) * height;
      const tall = rest === 0 ? left : Math.min(left - rest * LEAST_HEIGHT * height * 0.5, Math.max(LEAST_HEIGHT * height, share));
      paths[state] += `M${x.toFixed(2)} ${(bottom - tall).toFixed(2)}h${wide.toFixed(2)}v${tall.toFixed(2)}h${(-wide).toFixed(2)}z`;
      bottom -= tall;
      left -= tall;
    });
  }
  return paths;
}

/** The stretch at a point of the period, in seconds after its beginning; undefined where nothing is known. */
export const stretchAt = (stretches, at, tolerance = 0) =>
  stretches.find((one) => at >= one.begin_seconds && at < one.end_seconds) ??
  stretches.find((one) => at >= one.begin_seconds - tolerance && at < one.end_seconds + tolerance);

const NICE_SECONDS = [1, 5, 10, 30, 60, 300, 600, 1800, 3600, 7200, 10_800, 21_600, 43_200, 86_400, 172_800, 432_000, 864_000];

/** The marks of an axis, at most `most` of them: `{ step, times }`; the zone is `offset` minutes ahead of UTC. */
export function axisMarks({ since, until }, most, offset = 0) {
  const seconds = (until - since) / 1000;
  const step = NICE_SECONDS.find((size) => seconds / size <= most) ?? NICE_SECONDS.at(-1);
  const shift = offset * 60_000;
  const times = [];
  for (let at = Math.ceil((since + shift) / (step * 1000)) * step * 1000 - shift; at < until; at += step * 1000) times.push(at);
  return { step, times };
}

/**
 * The steps of the waterfall, costliest first: `{ cause, from, to }` in points, from 100 down to the figure. What is
 * beyond `most` causes is one step.
 */
export function waterfall(causes, most = 10) {
  const shown = causes.length > most ? causes.slice(0, most - 1) : causes;
  const rest = causes.slice(shown.length);
  const all = [...shown];
  if (rest.length > 0) {
    const sum = (name) => rest.reduce((total, cause) => total + cause[name], 0);
    all.push({ rest: rest.length, losses: sum("losses"), seconds: sum("seconds"), points: sum("points") });
  }
  let from = 100;
  return all.map((cause) => {
    const step = { cause, from, to: from - cause.points };
    from = step.to;
    return step;
  });
}

/** The steps of the interval within a period: `[{ from, to, minutes, level }]`, in milliseconds since 1970. */
export function intervalSteps(steps, { since, until }, end) {
  const bounded = steps.map((step, at) => ({
    from: Math.max(since, Date.parse(step.at)),
    to: Math.min(until, end, at + 1 < steps.length ? Date.parse(steps[at + 1].at) : Number.POSITIVE_INFINITY),
    minutes: step.interval_minutes,
    level: step.consecutive_poor_uptime,
  }));
  return bounded.filter(({ from, to }) => to > from);
}

/**
 * What an hour of full uptime is worth, by the host's labels `rate_per_hour` and `currency`; null without. Labels that an
 * operator sets are texts.
 */
export function rateOf(agent) {
  const { rate_per_hour: given, currency } = agent?.metadata ?? {};
  const rate = typeof given === "string" && given.trim() !== "" ? Number(given) : given;
  return Number.isFinite(rate) && rate > 0 ? { rate, currency: typeof currency === "string" ? currency : "" } : null;
}

/** What so many seconds are worth, with as many decimals as a cent, or the smallest loss, needs to be seen. */
export function money(seconds, { rate, currency }) {
  const value = (seconds / 3600) * rate;
  return `${value.toFixed(value === 0 || value >= 0.01 ? 2 : 6)} ${currency}`.trim();
}
