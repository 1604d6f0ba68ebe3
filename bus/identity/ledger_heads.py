"""What a signed report says of the ledger that it was made from, and what a scheduler makes of it.

The ledger's records are chained. `head` in a signature is the head of that chain after the record
of this report; the scheduler keeps the newest ones under the compare-and-set of the outcome, as
`<ledger id>.<head>`, and sends them with the next ping. `extends` says which of them the present
chain contains, or why it contains none:

- `genesis`: the ping named none. The first report under a key.
- `new-ledger`: this is another ledger, because the host lost its own. Its time begins with it.
- `forgotten`: the head is older than those that the ledger keeps. Our state was restored.
- `broken`: it should contain it and does not. The ledger was changed on the disk.

Pure.
"""

from bus.contract.remarks import LEDGER_FORGOTTEN, LEDGER_NEW, LEDGER_REWOUND
from bus.errors import GpupingError
from bus.identity.signatures import GENESIS

NEW_LEDGER = "new-ledger"
FORGOTTEN = "forgotten"
BROKEN = "broken"
HEADS_HELD = 2


class LedgerEditedError(GpupingError):
    """The ledger does not contain the head that was recorded, and nothing excuses it."""


def remark(
    ledger: str,
    extends: str,
    heads: tuple[str, ...],
) -> str | None:
    """Returns what is to be said of the ledger of a report; None where it simply goes on.

    `heads` were sent with the ping, newest first. Raises LedgerEditedError.
    """
    if not heads:
        if extends == GENESIS:
            return None
        raise LedgerEditedError(f"its ledger extends {extends}, and no head was recorded")
    if extends == heads[0]:
        return None
    if extends in heads:
        return LEDGER_REWOUND
    if extends == FORGOTTEN:
        return LEDGER_FORGOTTEN
    is_another = heads[0].partition(".")[0] != ledger
    if extends == NEW_LEDGER and is_another:
        return LEDGER_NEW
    raise LedgerEditedError(f"its ledger is {extends}, and {heads[0]} was recorded")


def heads_after(
    ledger: str,
    head: str,
    heads: tuple[str, ...],
) -> tuple[str, ...]:
    """Returns the heads to hold once a report with this head is recorded, newest first."""
    if not head:
        return ()
    newest = f"{ledger}.{head}"
    others = [other for other in heads if other != newest]
    return (newest, *others[: HEADS_HELD - 1])
