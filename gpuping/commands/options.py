"""The `gpuping` application, and the options that several of its commands share."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

from cyclopts import App, Group, Parameter, validators

from bus.contract.statements import READY_MADE
from bus.contract.subjects import check_agent_id
from bus.errors import BadMessageError
from bus.transport import micro_services
from gpuping.output.terminal import PipeConsole

# The help lists commands by these groups, in this order.
RUN = Group.create_ordered("Run")
LOOK = Group.create_ordered("Look")
CHECK = Group.create_ordered("Set up and check")

app = App(
    name="gpuping",
    version=micro_services.VERSION,
    help_format="markdown",
    help="""\
GPU uptime that can be paid on: pings GPU hosts over NATS, keeps every outcome, proves who was up.

Begin with `gpuping up`: it runs everything on this machine and says where the dashboard is.
Then, in another terminal, `gpuping top` watches the fleet.
""",
    help_epilogue="""\
Settings are environment variables (PING_BASE_INTERVAL_MINUTES, NATS_URL, AGENT_ID ...):
see docs/operations.md.

Exit codes: 0 done, 1 failed, 2 wrong usage or settings.
""",
    console=PipeConsole(),
    result_action="return_value",
    exit_on_error=False,
    print_error=False,
)
app["--help"].group = CHECK
app["--version"].group = CHECK

DataDir = Annotated[
    Path | None,
    Parameter(help="where state is kept [GPUPING_DATA_DIR: ~/.local/share/gpuping]"),
]
Scenario = Annotated[
    str | None,
    Parameter(help="simulate GPUs: a TOML file, or a built-in such as flapping [AGENT_SCENARIO]"),
]
ServerUrl = Annotated[
    str | None, Parameter(name="--server-url", help="ask this gateway over HTTP instead of the bus")
]
Json = Annotated[
    bool,
    Parameter(
        name="--json",
        negative="",
        help="print JSON, for machines",
    ),
]

Month = Annotated[str | None, Parameter(help="such as 2026-11; without it, this month so far")]
Threshold = Annotated[
    float | None,
    Parameter(
        validator=validators.Number(gte=0, lte=100), help="under this uptime threshold, in percent"
    ),
]
Policy = Annotated[
    str | None,
    Parameter(help=f"under these rules of payment: {', '.join(READY_MADE)}, or a TOML file"),
]
Output = Annotated[
    Path | None,
    Parameter(
        name=["--output", "-o"],
        help="write to this file, or into this folder; its suffix may tell the format",
    ),
]


def _check_id(_kind: object, text: str | None) -> None:
    """Raises ValueError, which cyclopts reports as wrong usage."""
    if text is None:
        return
    try:
        check_agent_id(text)
    except BadMessageError as error:
        raise ValueError(f"{error}.") from None


AgentId = Annotated[
    str,
    Parameter(
        name="ID",
        validator=_check_id,
        help="the agent's id",
    ),
]
OneAgentOption = Annotated[
    str | None,
    Parameter(
        name="--id",
        validator=_check_id,
        help="the agent that it becomes",
    ),
]
OneAgent = Annotated[
    str | None,
    Parameter(
        name="ID",
        validator=_check_id,
        help="only this agent",
    ),
]


def examples(*lines: str) -> str:
    """The end of a command's help: command lines to copy."""
    indented = "\n".join(f"    {line}" for line in lines)
    return f"Examples:\n\n{indented}\n"


def bullets(descriptions: Mapping[str, str]) -> str:
    """A Markdown list of names and what they mean."""
    return "\n".join(f"- **{name}**: {text}" for name, text in descriptions.items())
