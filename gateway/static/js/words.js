/**
 * What the system's words are called on the page: statuses worst first, verdicts, reasons, GPU states.
 *
 * Every kind has a shape of its own besides its colour; `parts/glyph.js` draws them.
 */

export const STATUSES = [
  { name: "missing", label: "Missing", meaning: "did not answer its last ping" },
  { name: "poor", label: "Poor", meaning: "last uptime below the threshold, or no GPU" },
  { name: "recovering", label: "Recovering", meaning: "good again, not yet for long enough" },
  { name: "pending", label: "Pending", meaning: "never answered yet" },
  { name: "maintenance", label: "Maintenance", meaning: "booked by the operator; the time is excused" },
  { name: "healthy", label: "Healthy", meaning: "good uptime, answering" },
];

const BY_NAME = new Map(STATUSES.map((status, severity) => [status.name, { ...status, severity }]));

export const status = (name) => BY_NAME.get(name) ?? { name, label: name, meaning: "", severity: STATUSES.length };

/** What an outcome looks like as a beat: a miss is told apart from a poor answer. */
export function beatKind(ping) {
  if (ping.outcome === "missed") return "missed";
  if (ping.outcome === "excused" || ping.verdict === "excused") return "excused";
  return ping.verdict;
}

export const BEATS = {
  good: "good",
  poor: "poor",
  missed: "missed",
  first: "first ping",
  excused: "excused",
};

const REASONS = {
  no_responders: "nobody listens under this id",
  timeout: "no answer in time",
  bad_report: "the answer made no sense",
  no_gpu: "no GPU found",
  below_threshold: "uptime below the threshold",
};

export const reason = (code) => (code ? (REASONS[code] ?? code.replaceAll(/[_-]/g, " ")) : "");

export const SECONDS = [
  { name: "up", label: "up" },
  { name: "degraded", label: "degraded" },
  { name: "down", label: "down" },
  { name: "unknown", label: "unknown" },
  { name: "excused", label: "excused" },
];
