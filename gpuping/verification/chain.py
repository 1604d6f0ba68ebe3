"""The two chains of an agent: of its reports, and of the ledger that they were made from.

A report names the hash of the report that was recorded before it. It also names the head of its
ledger's chain, and the earlier head that this chain contains.
"""

from collections.abc import Iterator

from gpuping.verification.records import Observation, fault, note
from gpuping.verification.signature import Signature

GENESIS = "genesis"
NEW_LEDGER = "new-ledger"
FORGOTTEN = "forgotten"
LEDGER_EDITED = "ledger_edited"
RESTORED = "restored"
HEADS_HELD = 2


class ReportChain:
    """The recorded reports of one agent, oldest first. It may begin anywhere."""

    def __init__(self) -> None:
        self.keys: list[str] = []
        self._number_of: dict[str, int] = {}  # of the reports that were read, by their hash
        self._newest: str | None = None  # None: the next report is not compared with any
        self._newest_number = 0
        self._is_restored = False
        self._is_after_unsigned = False

    def add(
        self,
        number: int,
        signature: Signature,
        record_hash: str,
    ) -> str | None:
        """Takes the next report. Returns what is wrong with its place, or None."""
        wrong = self._wrong_place(signature)
        self._is_restored = False
        self._is_after_unsigned = False
        if signature.key not in self.keys:
            self.keys.append(signature.key)
        self._number_of[record_hash] = number
        self._newest = record_hash
        self._newest_number = number
        return wrong

    def skip(self) -> None:
        """Goes on after a report that cannot be read: the next one may follow anything."""
        self._newest = None

    def unsigned(self) -> None:
        """A report counts that is not signed: only the first one under a key may follow it."""
        self._is_after_unsigned = True

    def restored(self) -> None:
        """Our state was restored from a backup: the next report may follow any earlier one."""
        self._is_restored = True

    def _wrong_place(self, signature: Signature) -> str | None:
        begins_anew = signature.previous == GENESIS and signature.key not in self.keys
        if self._is_after_unsigned and not self.keys and not begins_anew:
            return "it continues a signed report, and the outcome before it is not signed"
        if self._newest is None or begins_anew or signature.previous == self._newest:
            return None
        earlier = self._number_of.get(signature.previous)
        if earlier is not None and self._is_restored:
            return None
        if earlier is not None:
            return (
                f"it follows ping {earlier} and not ping {self._newest_number}: what was recorded "
                "between the two is not continued"
            )
        return f"it does not follow ping {self._newest_number}: reports are missing or were added"


class LedgerChain:
    """The heads of one agent's ledger that its scheduler held, newest first."""

    def __init__(self) -> None:
        self._key: str | None = None
        self._heads: list[str] | None = None  # None: not known, because reading began later
        self._knows_all = False  # reading began with the first report, or goes back far enough

    def add(self, signature: Signature) -> Iterator[Observation]:
        """Takes the next report that counts. Yields what is to be said of its ledger."""
        if signature.key != self._key:
            if self._key is not None:
                self._heads = []
            self._key = signature.key
        if signature.extends == GENESIS:
            self._knows_all = True
        if self._heads is not None:
            yield from self._compared(signature, self._heads)
        self._hold(signature)

    def refused(self, signature: Signature) -> None:
        """Takes a report that was refused because of its ledger: the next one goes on from it."""
        self._heads = []
        self._knows_all = True
        self._hold(signature)

    def skip(self) -> None:
        """Goes on after a report that cannot be read."""
        self._heads = None
        self._knows_all = False

    def restored(self) -> None:
        """Our state was restored from a backup: the heads in it are older than those read here."""
        self.skip()

    def _compared(self, signature: Signature, heads: list[str]) -> Iterator[Observation]:
        extends = signature.extends
        if not heads:
            if extends != GENESIS:
                yield fault(f"its ledger extends {extends}, and no head was recorded")
        elif extends == heads[0]:
            return
        elif extends in heads:
            yield note("its ledger was put back to where it was at an earlier report")
        elif extends == FORGOTTEN:
            yield note("its ledger was asked for a report of long ago: our state was restored")
        elif extends == NEW_LEDGER and heads[0].partition(".")[0] != signature.ledger:
            yield note("its ledger is a new one: the host lost the one before")
        elif self._knows_all or len(heads) == HEADS_HELD:
            yield fault(f"its ledger does not contain what was reported before ({extends})")

    def _hold(self, signature: Signature) -> None:
        if not signature.head:
            self._heads = []
            return
        newest = f"{signature.ledger}.{signature.head}"
        others = [head for head in self._heads or [] if head != newest]
        self._heads = [newest, *others[: HEADS_HELD - 1]]
