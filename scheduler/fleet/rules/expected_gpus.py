"""Which GPUs are expected of a host: the operator's changes, and what they may be. Pure.

Statements account a GPU for as long as it was expected. Windows that are recorded were accounted by
what was expected then, and are never accounted anew; a change reaches back to the beginning of the
open window at most.
"""

from datetime import datetime, timedelta

from msgspec.structs import replace

from bus.contract.messages import AgentEntry, GpuChange
from bus.contract.questions import ExpectedGpus, ExpectGpusRequest
from bus.errors import RefusedError
from scheduler.fleet.tracked import CLOCK_TOLERANCE, Tracked

MAX_CHANGES = 2_000  # of one host: an entry must fit into a message
_MILLISECOND = timedelta(milliseconds=1)


def view(entry: AgentEntry, tracked: Tracked) -> ExpectedGpus:
    """Returns what is shown of the expected GPUs."""
    return ExpectedGpus(
        agent_id=entry.agent_id,
        expected_gpus=entry.expected_gpus,
        changes=entry.gpu_changes,
        open_since=tracked.window_since,
    )


def expected_now(entry: AgentEntry | None) -> tuple[str, ...] | None:
    """Returns the GPUs that the host is judged by now; None before its first report."""
    if entry is None or not entry.expected_gpus:
        return None
    return entry.expected_gpus


def changed(
    tracked: Tracked,
    request: ExpectGpusRequest,
    now: datetime,
) -> AgentEntry:
    """Returns the entry of a registered agent with the GPUs that the request names.

    Raises RefusedError: 400 for a moment in the future or a GPU that is named twice, 409 for a
    moment in a window that is recorded, for a list that has changed meanwhile, and for a GPU that
    was changed later than that.
    """
    entry = tracked.entry
    assert entry is not None  # noqa: S101  # a registered agent has one
    wanted = request.expected_gpus
    if len(set(wanted)) < len(wanted):
        raise RefusedError(400, "a GPU is named twice")
    if request.replaces is not None and request.replaces != entry.expected_gpus:
        raise RefusedError(409, "the expected GPUs were changed meanwhile: look again")
    since = _since(tracked, request, now)
    changes = _changes(entry, wanted, since, request.author, now)
    if len(entry.gpu_changes) + len(changes) > MAX_CHANGES:
        raise RefusedError(409, f"this host has had {MAX_CHANGES} changes of GPUs: use a new id")
    return replace(
        entry,
        expected_gpus=wanted,
        gpu_changes=(*entry.gpu_changes, *changes),
        # From now on the operator's word counts, whatever GPUs a report shows.
        expects_simulated=False,
    )


def _since(
    tracked: Tracked,
    request: ExpectGpusRequest,
    now: datetime,
) -> datetime:
    if request.since is None:
        return now
    if request.since > now + CLOCK_TOLERANCE:
        raise RefusedError(400, "the change lies in the future: make it when it takes effect")
    open_since = tracked.window_since
    if open_since is not None and request.since < open_since - _MILLISECOND:
        raise RefusedError(
            409,
            f"windows until {open_since.isoformat()} are recorded and stay as they are: "
            "a change can take effect from then on",
        )
    return min(request.since, now)


def _changes(
    entry: AgentEntry,
    wanted: tuple[str, ...],
    since: datetime,
    author: str,
    now: datetime,
) -> list[GpuChange]:
    """Returns the GPUs that are no longer expected and then those that newly are."""
    changes = []
    for uuid in entry.expected_gpus:
        if uuid not in wanted:
            changes.append(
                GpuChange(
                    uuid=uuid,
                    expected=False,
                    since=since,
                    author=author,
                    at=now,
                )
            )
    for uuid in wanted:
        if uuid not in entry.expected_gpus:
            changes.append(
                GpuChange(
                    uuid=uuid,
                    expected=True,
                    since=since,
                    author=author,
                    at=now,
                )
            )
    changed_at = {change.uuid: change.since for change in entry.gpu_changes}
    for change in changes:
        last = changed_at.get(change.uuid)
        if last is not None and change.since < last:
            raise RefusedError(
                409,
                f"{change.uuid} was changed from {last.isoformat()} on: "
                "a further change of it takes effect no earlier",
            )
    return changes
