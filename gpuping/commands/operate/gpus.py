"""`gpuping gpus`: which GPUs are expected of a host, and the operator's changes of that."""

from datetime import datetime
from typing import Annotated, Literal

from cyclopts import Parameter
from rich.console import Console

from bus.contract.questions import ExpectedGpus, ExpectGpusRequest
from bus.errors import GpupingError
from bus.runner import Lifecycle
from gpuping.client.sources import Source
from gpuping.commands.operate.author import author
from gpuping.commands.options import CHECK, AgentId, DataDir, Json, ServerUrl, app, examples
from gpuping.commands.query import run_query
from gpuping.output import tables
from gpuping.output.json_text import print_json

Verb = Literal["replace", "expect", "forget"]


def _check_moment(_kind: object, moment: datetime | None) -> None:
    """Raises ValueError, which cyclopts reports as wrong usage."""
    if moment is not None and moment.tzinfo is None:
        raise ValueError("the time needs a zone, such as 2026-11-26T12:00:00Z.")


OptionalVerb = Annotated[
    Verb | None, Parameter(name="CHANGE", help="without one, nothing is changed")
]
Uuids = Annotated[str, Parameter(name="UUID", help="replace: the old GPU and the new one")]
From = Annotated[
    datetime | None,
    Parameter(
        name="--from",
        validator=_check_moment,
        help="when the change took effect, with a zone; without it, now",
    ),
]


@app.command(
    group=CHECK,
    help_epilogue=examples(
        "gpuping gpus agent-001",
        "gpuping gpus agent-001 replace GPU-old GPU-new",
        "gpuping gpus agent-001 expect GPU-added --from 2026-11-26T12:00:00Z",
        "gpuping gpus agent-001 forget GPU-sold --from 2026-11-26T12:00:00Z",
    ),
)
def gpus(
    agent_id: AgentId,
    change: OptionalVerb = None,
    /,
    *uuids: Uuids,
    since: From = None,
    server_url: ServerUrl = None,
    data_dir: DataDir = None,
    as_json: Json = False,
) -> int:
    """Show or change which GPUs are expected of a host.

    An expected GPU that is not there is down. One that is forgotten or replaced counts until the
    change takes effect. Windows that are recorded stay as they are: a change reaches back to the
    last answered ping at most.
    """

    async def show(
        source: Source,
        _: Lifecycle,
        console: Console,
    ) -> None:
        expected = await source.expected_gpus(agent_id)
        if change is not None:
            request = ExpectGpusRequest(
                expected_gpus=changed(expected, change, uuids),
                since=since,
                replaces=expected.expected_gpus,
                author=author(),
            )
            expected = await source.expect_gpus(agent_id, request)
        if as_json:
            print_json(expected)
            return
        agent = await source.agent(agent_id)
        console.print(tables.gpus_headline(agent))
        console.print(tables.gpus_table(agent, expected))

    return run_query(show, data_dir, server_url)


def changed(
    expected: ExpectedGpus,
    verb: Verb,
    uuids: tuple[str, ...],
) -> tuple[str, ...]:
    """The expected GPUs after a change, in order. Raises GpupingError for one that cannot be."""
    present = list(expected.expected_gpus)
    if verb == "replace":
        if len(uuids) != 2:
            raise GpupingError("replace needs two GPUs: the old one and the new one")
        old, new = uuids
        _check_expected(present, [old])
        _check_not_expected(present, [new])
        present[present.index(old)] = new
        return tuple(present)
    if not uuids:
        raise GpupingError(f"{verb} needs at least one GPU")
    if verb == "expect":
        _check_not_expected(present, uuids)
        return (*present, *uuids)
    _check_expected(present, uuids)
    left = tuple(uuid for uuid in present if uuid not in uuids)
    if not left:
        raise GpupingError(
            "a host without an expected GPU cannot be judged: expect another one first, "
            "or remove the host"
        )
    return left


def _check_expected(present: list[str], uuids: tuple[str, ...] | list[str]) -> None:
    for uuid in uuids:
        if uuid not in present:
            raise GpupingError(f"{uuid} is not expected of this host")


def _check_not_expected(present: list[str], uuids: tuple[str, ...] | list[str]) -> None:
    for uuid in uuids:
        if uuid in present:
            raise GpupingError(f"{uuid} is expected of this host already")
