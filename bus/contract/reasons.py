"""The reasons of GPUs, pings and windows in plain words, for statements. The page has the same."""

UPTIME_BELOW_THRESHOLD = "uptime_below_threshold"  # needs no words: the uptime is shown beside it

REASON_WORDS = {
    "no_responders": "nobody listens under this id",
    "timeout": "no answer in time",
    "bad_report": "the answer made no sense",
    "unreported": "expected, but not in the report",
    "hung": "hung: a call to the driver never came back",
    "lost": "lost: no longer on the bus",
    "missing": "missing: expected, but not found",
    "ecc": "memory errors that could not be corrected",
    "reset-required": "needs a reset",
    "recovery-reset": "asks for a reset",
    "recovery-reboot": "asks for a reboot",
    "recovery-drain-and-reset": "asks to be drained and reset",
    "recovery-drain-p2p": "asks for its peers to be drained",
    "remap-failed": "remapping of memory rows failed",
    "remap-pending": "remapped memory rows wait for a reset",
    "fabric": "its NVLink fabric failed",
    "thermal": "slowed down by heat",
    "insufficient-power": "gets too little power",
    "irq-issue": "its interrupts do not arrive",
    "driver-not-loaded": "the driver is not loaded",
    "driver-mismatch": "driver and library are of different versions",
    "library-absent": "the driver's library is not there",
    "permission": "the GPU may not be opened",
    "unknown-error": "the driver reports an unknown error",
    "probe-starting": "the GPUs had not been asked yet",
    "probe-died": "the driver's process died",
    "starting": "agentd had not looked at the GPUs yet",
    "no-sample": "no check came in time",
    "not-running": "agentd did not run",
    "reboot": "the host was rebooted",
}


def reason_words(reason: str) -> str:
    """Returns a reason in plain words; one without any is shown as it is, an XID by its number."""
    if reason.startswith("xid:"):
        return f"XID {reason.removeprefix('xid:')}"
    return REASON_WORDS.get(reason, reason.replace("_", " ").replace("-", " "))
