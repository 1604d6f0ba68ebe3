"""`gpuping labels`: what the operator says of a host, such as its site, owner or rack."""

from typing import Annotated

from cyclopts import Parameter
from rich.console import Console

from bus.contract.labels import LabelsRequest
from bus.errors import GpupingError
from bus.runner import Lifecycle
from gpuping.client.sources import Source
from gpuping.commands.operate.author import author
from gpuping.commands.options import CHECK, AgentId, DataDir, Json, ServerUrl, app, examples
from gpuping.commands.query import run_query
from gpuping.output import tables
from gpuping.output.json_text import print_json

Changes = Annotated[str, Parameter(name="LABEL", help="site=FRA sets one, site= removes it")]


@app.command(
    group=CHECK,
    help_epilogue=examples(
        "gpuping labels agent-001",
        "gpuping labels agent-001 site=FRA owner=acme rack=12",
        "gpuping labels agent-001 rack=",
    ),
)
def labels(
    agent_id: AgentId,
    /,
    *changes: Changes,
    server_url: ServerUrl = None,
    data_dir: DataDir = None,
    as_json: Json = False,
) -> int:
    """Show, set or remove the labels of a host.

    Hosts are found, grouped on the map, alerted and booked for maintenance by their labels and by
    the metadata that they registered with. A label comes before metadata of the same name.
    """

    async def show(
        source: Source,
        _: Lifecycle,
        console: Console,
    ) -> None:
        if changes:
            request = LabelsRequest(labels=read_changes(changes), author=author())
            agent = await source.change_labels(agent_id, request)
        else:
            agent = await source.agent(agent_id)
        if as_json:
            print_json(agent.labels)
            return
        console.print(tables.labels_table(agent))

    return run_query(show, data_dir, server_url)


def read_changes(changes: tuple[str, ...]) -> dict[str, str | None]:
    """Returns the labels to be set, with None for those to be removed.

    Raises GpupingError for what is no label.
    """
    found: dict[str, str | None] = {}
    for change in changes:
        name, equals, value = change.partition("=")
        if not equals or not name:
            raise GpupingError(
                f"{change!r} is no label: expected name=value, or name= to remove it"
            )
        found[name] = value or None
    return found
