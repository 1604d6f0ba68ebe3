"""`gpuping status-page`, `badge`, `host-link`, `revoke-links`: what people see without a login."""

from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter, validators
from rich.console import Console

from bus.contract.publishing import (
    MAX_VALID_SECONDS,
    AddStatusPage,
    Link,
    MakeLink,
    RemoveStatusPage,
    RevokedLinks,
    RevokeLinks,
    StatusPage,
    StatusPages,
)
from bus.errors import GpupingError, SettingsError
from gpuping.client import bus_file
from gpuping.client.sources import Source
from gpuping.commands.command_settings import load_settings
from gpuping.commands.operate.author import author
from gpuping.commands.options import (
    CHECK,
    AgentId,
    DataDir,
    Json,
    OneAgent,
    ServerUrl,
    app,
    examples,
)
from gpuping.commands.query import run_answer
from gpuping.output import tables

DAY_SECONDS = 86_400

status_page_app = App(
    name="status-page",
    group=CHECK,
    help_format="markdown",
    help="""\
Show chosen hosts to everybody, on a page without a login.

The gateway answers it at /status/NAME: the state of each host, 90 days as bars, the incidents of 14
days in plain words, and planned maintenance. Hosts are named by their label `public_name`, else
"Host 1", "Host 2" and so on; nothing else of them is shown.
""",
    help_epilogue=examples(
        'gpuping status-page add fleet --title "Our GPU fleet" --agents agent-001,agent-002',
        'gpuping status-page add fra --title "Frankfurt" --label site=FRA',
        'gpuping labels agent-001 "public_name=Frankfurt 1"',
        "gpuping status-page list",
        "gpuping status-page remove fra",
    ),
)
app.command(status_page_app)

PageNameArgument = Annotated[
    str, Parameter(name="NAME", help="lower case letters, digits and -; the end of its address")
]
Title = Annotated[str, Parameter(help="the heading of the page")]
Agents = Annotated[str | None, Parameter(help="the agents' ids, with commas between them")]
Label = Annotated[str | None, Parameter(help="all agents that have this label, such as site=FRA")]
ShowIds = Annotated[
    bool, Parameter(name="--show-ids", negative="", help="show the agents' ids, too")
]
Replace = Annotated[
    bool, Parameter(name="--replace", negative="", help="in the place of a page of this name")
]
Days = Annotated[
    float | None,
    Parameter(
        validator=validators.Number(gt=0, lte=MAX_VALID_SECONDS / DAY_SECONDS),
        help="how long the link is good",
    ),
]
HostDays = Annotated[
    float,
    Parameter(
        name="--days",
        validator=validators.Number(gt=0, lte=MAX_VALID_SECONDS / DAY_SECONDS),
        help="how long the link is good",
    ),
]
ShownName = Annotated[
    str | None,
    Parameter(
        name="--name",
        help='what the badge says; else the label public_name, else "GPU host"',
    ),
]


@status_page_app.command
def add(  # noqa: PLR0913  # each is an option of the command
    name: PageNameArgument,
    /,
    *,
    title: Title,
    agents: Agents = None,
    label: Label = None,
    show_ids: ShowIds = False,
    replace: Replace = False,
    server_url: ServerUrl = None,
    data_dir: DataDir = None,
    as_json: Json = False,
) -> int:
    """Add a page of some agents, or of all that have a label."""
    if (agents is None) == (label is None):
        raise SettingsError("status-page add: expected --agents, or --label")
    ids = tuple(part.strip() for part in (agents or "").split(",") if part.strip())
    try:
        page = StatusPage(name=name, title=title, agents=ids, label=label, show_ids=show_ids)
    except ValueError as error:
        raise SettingsError(f"status-page add: {error}") from None
    request = AddStatusPage(page=page, replace=replace, author=author())

    def show(console: Console, added: StatusPage) -> None:
        address = _address(f"/status/{added.name}", data_dir, server_url)
        console.print(f"everybody can see it now: {address}", soft_wrap=True, highlight=False)

    return run_answer(
        lambda source: source.add_status_page(request), show, data_dir, server_url, as_json=as_json
    )


@status_page_app.command(name="list")
def list_pages(
    *,
    server_url: ServerUrl = None,
    data_dir: DataDir = None,
    as_json: Json = False,
) -> int:
    """List the pages."""

    def show(console: Console, found: StatusPages) -> None:
        if found.pages:
            console.print(tables.status_pages_table(found.pages))
        else:
            console.print("there is no status page")

    return run_answer(
        lambda source: source.status_pages(), show, data_dir, server_url, as_json=as_json
    )


@status_page_app.command(name="show")
def show_page(
    name: PageNameArgument,
    /,
    *,
    server_url: ServerUrl = None,
    data_dir: DataDir = None,
    as_json: Json = False,
) -> int:
    """Show the definition of a page, and its address."""

    async def ask(source: Source) -> StatusPage:
        for page in (await source.status_pages()).pages:
            if page.name == name:
                return page
        raise GpupingError(f"there is no status page {name!r}: see `gpuping status-page list`")

    def show(console: Console, page: StatusPage) -> None:
        console.print(tables.status_pages_table((page,)))
        address = _address(f"/status/{page.name}", data_dir, server_url)
        console.print(address, soft_wrap=True, highlight=False)

    return run_answer(ask, show, data_dir, server_url, as_json=as_json)


@status_page_app.command
def remove(
    name: PageNameArgument,
    /,
    *,
    server_url: ServerUrl = None,
    data_dir: DataDir = None,
    as_json: Json = False,
) -> int:
    """Take a page away. Every gateway forgets it within two seconds."""
    request = RemoveStatusPage(name=name, author=author())

    def show(console: Console, removed: StatusPage) -> None:
        console.print(f"removed the status page {removed.name}")

    return run_answer(
        lambda source: source.remove_status_page(request),
        show,
        data_dir,
        server_url,
        as_json=as_json,
    )


@app.command(
    group=CHECK,
    help_epilogue=examples(
        "gpuping badge agent-001",
        'gpuping badge agent-001 --name "Frankfurt 1" --days 365',
        "gpuping revoke-links agent-001",
    ),
)
def badge(
    agent_id: AgentId,
    /,
    *,
    days: Days = None,
    name: ShownName = None,
    server_url: ServerUrl = None,
    data_dir: DataDir = None,
    as_json: Json = False,
) -> int:
    """Make the address of a host's badge that needs no login.

    The badge shows the status and the uptime of 24 hours. Its address does not tell the agent's id.
    Without --days it is good until it is revoked.
    """
    valid_seconds = None if days is None else max(60, round(days * DAY_SECONDS))
    request = MakeLink(
        kind="badge",
        agent_id=agent_id,
        valid_seconds=valid_seconds,
        shown_name=name,
        author=author(),
    )
    return _make_link(request, server_url, data_dir, as_json=as_json)


@app.command(
    name="host-link",
    group=CHECK,
    help_epilogue=examples(
        "gpuping host-link agent-001",
        "gpuping host-link agent-001 --days 90",
        "gpuping revoke-links agent-001",
    ),
)
def host_link(
    agent_id: AgentId,
    /,
    *,
    days: HostDays = 30.0,
    server_url: ServerUrl = None,
    data_dir: DataDir = None,
    as_json: Json = False,
) -> int:
    """Make a link to a host's own view, for its owner.

    Whoever has the link can read, without a login, this host's pings and windows, its statements
    and evidence, and what it is held to. It reaches no other host.
    """
    request = MakeLink(
        kind="host",
        agent_id=agent_id,
        valid_seconds=max(60, round(days * DAY_SECONDS)),
        author=author(),
    )
    return _make_link(request, server_url, data_dir, as_json=as_json)


@app.command(
    name="revoke-links",
    group=CHECK,
    help_epilogue=examples("gpuping revoke-links agent-001", "gpuping revoke-links --all"),
)
def revoke_links(
    agent_id: OneAgent = None,
    /,
    *,
    every: Annotated[
        bool, Parameter(name="--all", negative="", help="of all agents, by a new key")
    ] = False,
    server_url: ServerUrl = None,
    data_dir: DataDir = None,
    as_json: Json = False,
) -> int:
    """Refuse every badge address and host link that was made so far, of one agent or of all."""
    if every == (agent_id is not None):
        raise SettingsError("revoke-links: expected an agent's id, or --all")
    request = RevokeLinks(agent_id=agent_id, author=author())

    def show(console: Console, _: RevokedLinks) -> None:
        whose = agent_id or "all agents"
        console.print(f"links of {whose} that were made until now are refused within 2 s")

    return run_answer(
        lambda source: source.revoke_links(request), show, data_dir, server_url, as_json=as_json
    )


def _make_link(
    request: MakeLink,
    server_url: str | None,
    data_dir: Path | None,
    *,
    as_json: bool,
) -> int:
    def show(console: Console, link: Link) -> None:
        address = link.url or _address(link.path, data_dir, server_url)
        console.print(address, soft_wrap=True, highlight=False)

    return run_answer(
        lambda source: source.make_link(request), show, data_dir, server_url, as_json=as_json
    )


def _address(
    path: str,
    data_dir: Path | None,
    server_url: str | None,
) -> str:
    """The whole address of a path at the gateway; the path alone where no gateway is known."""
    settings = load_settings(default_log_level="error", GPUPING_DATA_DIR=data_dir)
    root = settings.GATEWAY_PUBLIC_URL or server_url
    if root is None:
        running = bus_file.find(settings.data_dir)
        root = running.gateway_url if running is not None else ""
    return root.rstrip("/") + path
