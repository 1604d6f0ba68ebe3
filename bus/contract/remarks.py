"""Remarks: what the scheduler records beside an outcome, and what a statement says of each.

History keeps these names and the verifier reads them, so that they never change.
"""

# Of the admission of a report (`scheduler/ping/accounting/admission.py`).
CLOCK_DISAGREES = "clock_disagrees"  # more known time than passed: scaled down
TIME_CUT = "time_cut"  # more unknown time than passed: cut
TIME_MISSING = "time_missing"  # less time than passed: filled with unknown
UNREPORTED = "unreported"  # an expected GPU is not in the report: down
GPUS_CONTRADICT_HOST = "gpus_contradict_host"  # the host was said to be better than its GPUs
UNHEARD = "unheard"  # between two billed misses nothing counts as up
STOOD_STILL = "stood_still"  # the scheduler stood still, and the host's unknown time is excused

# Of the host's ledger (`bus/identity/ledger_heads.py`).
LEDGER_REWOUND = "ledger_rewound"
LEDGER_NEW = "ledger_new"
LEDGER_FORGOTTEN = "ledger_forgotten"
LEDGER_EDITED = "ledger_edited"  # of a missed ping, whose report was refused

# Of how the answer was received.
BY_HTTP = "by_http"  # a gateway asked the host by HTTP: the report is not signed
TWO_UNDER_ONE_ID = "two_under_one_id"  # two agents answered under this id
RESTORED = "restored"  # the first outcome of an agent after its state was restored from a backup

# A statement says when TWO_UNDER_ONE_ID was, and has no words for how often.
REMARK_WORDS = {
    UNHEARD: "Between two pings or more that were missed in a row, no time counts as up",
    CLOCK_DISAGREES: (
        "The host told of more time than passed by our clock; it was scaled to what passed"
    ),
    TIME_CUT: "The host told of more unknown time than passed; it was cut to what passed",
    STOOD_STILL: "Our scheduler stood still; what the host does not know of that time is excused",
    TIME_MISSING: "The host told of less time than passed; the rest is unknown",
    UNREPORTED: "An expected GPU was not in the report and counts as down",
    GPUS_CONTRADICT_HOST: (
        "The host was said to be better than its GPUs, and counts as its worst GPU"
    ),
    LEDGER_EDITED: (
        "The host's ledger does not contain what it reported before; the report was refused, and "
        "what that process did not see itself is unknown"
    ),
    LEDGER_REWOUND: (
        "The host's ledger was put back to where it was at an earlier report; what it lost is "
        "unknown"
    ),
    LEDGER_NEW: "The host lost its ledger and began a new one; the time before it is unknown",
    BY_HTTP: "The host was asked by HTTP: these reports are not signed",
    RESTORED: (
        "The bus was restored from a backup; pings that were recorded after it are lost on our "
        "side, and their time is in this one's window"
    ),
    LEDGER_FORGOTTEN: "Our own state was restored from a backup that the host's ledger is past",
}
