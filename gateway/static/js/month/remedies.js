/** What to do about each reason, as docs/troubleshooting.md has it. No I/O and no clock. */

const REMEDIES = [
  [["lost", "missing"], "The GPU fell off the bus or is no longer found. Look at dmesg, the power and the slot; reboot the host."],
  [
    ["reset-required", "recovery-reset", "recovery-reboot", "recovery-drain-and-reset"],
    "The driver asks for it: stop the work and agentd, then nvidia-smi --gpu-reset, or reboot.",
  ],
  [["hung"], "A call of the driver does not return. A reboot helps."],
  [
    ["driver-not-loaded", "library-absent", "driver-mismatch"],
    "The host has no working driver: install it, or reboot after an update.",
  ],
  [
    ["xid:48", "xid:62", "xid:64", "xid:79", "xid:95", "xid:119", "xid:120", "xid:140"],
    "Look the XID up in NVIDIA's catalogue. It ends when the GPU is reset.",
  ],
  [["ecc", "remap-failed"], "Memory errors that could not be corrected: reset the GPU, and replace it if they come back."],
  [["timeout-driver", "unknown-error", "insufficient-power", "irq-issue"], "This is what the driver answers. The kernel's log has more."],
  [
    ["remap-pending", "recovery-drain-p2p", "fabric", "thermal", "xid:74", "xid:94"],
    "The GPU works for now: plan the reset, check cooling and NVLink.",
  ],
  [["permission"], "agentd may not open the GPU: give it the device files (--gpus all, or the unit that is shipped)."],
  [["starting"], "agentd had not looked at the GPUs yet. The driver may take up to 30 s to open."],
  [["no-sample", "not-running", "reboot"], "agentd did not run, or got no sample in time. Read its log of that time."],
  [["probe-starting", "probe-died"], "The GPU could not be asked: agentd's log says why."],
  [["no_responders"], "No agent of this id was connected to the bus. Is agentd running, and is the network there?"],
  [["timeout"], "The agent was connected and did not answer in time. Look at the load of the host and its network."],
  [["bad_report"], "The answer was not a valid report, or not signed for its ping. The history's remark says which."],
  [["unheard"], "Two pings or more in a row were missed; between them nothing counts as up, whatever the host says later."],
  [["time_missing"], "The host told of less time than passed. Read agentd's log of that time."],
  [["unreported"], "The host does not know a GPU that is expected of it. After an exchange: gpuping gpus ID replace OLD NEW --from TIME."],
];

const BY_REASON = new Map(REMEDIES.flatMap(([reasons, text]) => reasons.map((reason) => [reason, text])));

/** A sentence or two; empty where there is nothing to advise. `timeout` of a GPU is the driver's. */
export function remedy({ reason, gpu, state }) {
  if (state === "unreported" && !reason) return BY_REASON.get("timeout");
  if (reason === "timeout" && gpu) return BY_REASON.get("timeout-driver");
  if (reason?.startsWith("nvml-error")) return BY_REASON.get("probe-died");
  return BY_REASON.get(reason) ?? "";
}
