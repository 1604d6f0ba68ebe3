/**
 * The page's texts for statuses (worst first), outcomes and reason codes.
 *
 * Each status and kind of outcome also has a shape, so that colour is never its only sign: see `parts/glyph.js`.
 */

export const STATUSES = [
  { name: "missing", label: "Missing", meaning: "did not answer its last ping" },
  { name: "poor", label: "Poor", meaning: "last uptime below the threshold, or no GPU" },
  { name: "recovering", label: "Recovering", meaning: "good again, not yet for long enough" },
  { name: "pending", label: "Pending", meaning: "nothing judged yet, or not lately" },
  { name: "maintenance", label: "Maintenance", meaning: "booked by the operator; the time is excused" },
  { name: "healthy", label: "Healthy", meaning: "good uptime, answering" },
];

const BY_NAME = new Map(STATUSES.map((status, severity) => [status.name, { ...status, severity }]));

export const status = (name) => BY_NAME.get(name) ?? { name, label: name, meaning: "", severity: STATUSES.length };

/** The kind of an outcome, a key of BEATS. A miss has the verdict `poor` and is shown as a kind of its own. */
export function outcomeKind(ping) {
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

// Codes come from hosts, so that nothing is found here but what is written here.
const REASONS = {
  __proto__: null,
  no_responders: "nobody listens under this id",
  timeout: "no answer in time",
  bad_report: "the answer made no sense",
  no_gpu: "no GPU can be used",
  uptime_below_threshold: "", // the uptime is shown next to it
  nothing_to_judge: "nothing to judge in this window",
  bus_outage: "our own bus was away",
  own_outage: "we were away ourselves",
  joined_anew: "enrolled again while it was asked",
  maintenance: "booked maintenance",
  percent_contradicts_seconds: "refused: the percentage contradicts the seconds",
  more_time_than_passed: "refused: more time than has passed",
  unreported: "expected, but not in the report",

  // of GPUs
  hung: "hung: a call to the driver never came back",
  lost: "lost: no longer on the bus",
  missing: "missing: expected, but not found",
  ecc: "memory errors that could not be corrected",
  "reset-required": "needs a reset",
  "recovery-reset": "asks for a reset",
  "recovery-reboot": "asks for a reboot",
  "recovery-drain-and-reset": "asks to be drained and reset",
  "recovery-drain-p2p": "asks for its peers to be drained",
  "remap-failed": "remapping of memory rows failed",
  "remap-pending": "remapped memory rows wait for a reset",
  fabric: "its NVLink fabric failed",
  thermal: "slowed down by heat",
  "insufficient-power": "gets too little power",
  "irq-issue": "its interrupts do not arrive",
  "driver-not-loaded": "the driver is not loaded",
  "driver-mismatch": "driver and library are of different versions",
  "library-absent": "the driver's library is not there",
  permission: "the GPU may not be opened",
  "unknown-error": "the driver reports an unknown error",
  "probe-starting": "the GPUs had not been asked yet",
  "probe-died": "the driver's process died",
  starting: "agentd had not looked at the GPUs yet",
  "no-sample": "no check came in time",
  "not-running": "agentd did not run",
  reboot: "the host was rebooted",
};

const REMARKS = {
  __proto__: null,
  clock_disagrees: "the host counted more time than has passed; it was scaled down",
  time_cut: "the host named more unknown time than has passed; it was cut",
  time_missing: "part of the time is not in the report; it counts as unknown",
  gpus_contradict_host: "the host was said to be better than its GPUs; the GPUs count",
  stood_still: "our side stood still; what the host does not know of that time is excused",
  unheard: "between two missed pings nothing counts as up",
  two_under_one_id: "two agents answer in turn under this id",
  ledger_edited: "the host's ledger was changed on its disk; the report was refused",
  ledger_rewound: "the host's ledger was put back to an earlier report; what it lost is unknown",
  ledger_new: "the host lost its ledger; the time before the new one is unknown",
  restored: "our bus was restored from a backup; the window goes on from the last ping in it",
  ledger_forgotten: "our state was restored from a backup",
  by_http: "asked by HTTP: not signed",
  simulated: "", // said once for the agent
};

/** What was found when the report was checked, in plain words. */
export const remark = (code) => REMARKS[code] ?? reason(code);

/** Whether two agents answer in turn, or are connected, under one id, so that nothing tells whose the time is. */
export const areTwo = (agent) => {
  const { conflicting_boot_ids, conflicting_sessions, conflicting_gpus, conflicting_connections } = agent;
  const found = [conflicting_boot_ids, conflicting_sessions, conflicting_gpus, conflicting_connections];
  return found.some((values) => values?.length > 0);
};

/** The service's names as the page writes them. */
export const PART_NAMES = { bus: "Bus", scheduler: "Scheduler", storage: "Storage" };

/** The GPUs of an outcome that were not simply up, those of one state and reason together: `GPUs 0, 5 down: lost`. */
export function gpuNotes(ping) {
  const indexes = new Map();
  for (const gpu of ping.gpus ?? []) {
    if (gpu.state === "up" && !gpu.reasons?.length) continue;
    const why = (gpu.reasons ?? []).map(reason).filter(Boolean).join("; ");
    const what = why ? `${gpu.state}: ${why}` : gpu.state;
    indexes.set(what, [...(indexes.get(what) ?? []), gpu.index ?? "?"]);
  }
  return [...indexes].map(([what, of]) => `${of.length > 1 ? "GPUs" : "GPU"} ${of.join(", ")} ${what}`);
}

/** Why an outcome is as it is, in one line: its reason, its GPUs, the remarks; empty where there is nothing to say. */
export function reasonOf(ping) {
  const parts = [reason(ping.reason), ...gpuNotes(ping), ...(ping.remarks ?? []).map(remark)];
  return [...new Set(parts.filter(Boolean))].join("; ");
}

export const reason = (code) => (code ? (REASONS[code] ?? code.replace(/^xid:/, "XID ").replaceAll(/[_-]/g, " ")) : "");

export const SECONDS = [
  { name: "up", label: "up" },
  { name: "degraded", label: "degraded" },
  { name: "down", label: "down" },
  { name: "unknown", label: "unknown" },
  { name: "unreported", label: "not reported" },
  { name: "excused", label: "excused" },
];

/** Whether the driver could not open the GPU, so that its UUID is not known: it is shown by its place. */
export const isUnopened = (gpu) => gpu.uuid.startsWith("unopened:");
