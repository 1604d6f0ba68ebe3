"""The screen of `gpuping top`: the fleet in one line, its agents in a list, and the keys below."""

import asyncio
from datetime import datetime
from typing import ClassVar

from msgspec.structs import replace
from rich.text import Text
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.events import Resize
from textual.widgets import DataTable, Footer, Input, Static
from textual.worker import Worker

from bus import clock
from bus.contract.dashboard import Dashboard
from bus.contract.questions import Agent, AgentOrder, AgentPage, ListRequest
from bus.errors import GpupingError
from bus.runner import Lifecycle
from gpuping.client.sources import Source
from gpuping.output.agent_columns import agent_columns
from gpuping.output.columns import Column, side
from gpuping.output.dashboard_screen import headline
from gpuping.output.formats import untrusted
from gpuping.top.agent_screen import AgentScreen

LISTED = 200  # agents in the list at most: one sorts or searches for the others
SCROLL_BAR = 2  # characters
GAP = 2  # between two columns
FLEET_PADDING = 2  # characters: of the line about the fleet, at both ends together
# The orders in which `s` goes round, the most useful one first.
ORDERS: tuple[AgentOrder, ...] = ("worst", "uptime", "interval", "next", "response", "id")
SEARCH_PAUSE_SECONDS = 0.2  # after a key, before the fleet is searched


class TopApp(App[None]):
    """Asks the source every `interval` seconds; what it answered last stays until it answers again.

    The fleet is sorted and searched where it is known, so that a large one costs no more.
    """

    TITLE = "gpuping top"
    ENABLE_COMMAND_PALETTE = False
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("q,ctrl+c", "quit", "Quit"),
        Binding("slash", "search", "Search", key_display="/"),
        Binding("s", "next_order", "Sort"),
        Binding("r", "reverse", "Reverse"),
        Binding("escape", "clear_search", "All agents", show=False),
    ]
    CSS = """
    #fleet { height: auto; padding: 0 1; }
    #shown { height: auto; padding: 0 1; color: $text-muted; }
    DataTable { height: 1fr; }
    #search { display: none; }
    #search.wanted { display: block; }
    """

    def __init__(self, source: Source, interval: float) -> None:
        super().__init__()
        self._source = source
        self._interval = interval
        self._request = ListRequest(order=ORDERS[0], limit=LISTED)
        self._agents: tuple[Agent, ...] = ()
        self._asking: Worker[None] | None = None

    def compose(self) -> ComposeResult:
        """The parts of the screen, from top to bottom."""
        yield Static("asking the fleet ...", id="fleet")
        yield Static("", id="shown")
        yield DataTable(cursor_type="row", zebra_stripes=False)
        yield Input(
            placeholder="an id, a GPU, site:FRA, reason:xid ... Enter keeps it, Escape ends it",
            id="search",
        )
        yield Footer()

    def on_mount(self) -> None:
        """Called when the screen is shown."""
        self.query_one(DataTable).focus()
        self._ask()
        self.set_interval(self._interval, self._ask_again)

    def on_resize(self, _event: Resize) -> None:
        """Leaves out columns, or shows them again, as the terminal gets another width."""
        self._fill_table()

    def action_next_order(self) -> None:
        """Sorts by the next order."""
        place = ORDERS.index(self._request.order) + 1
        self._change_request(replace(self._request, order=ORDERS[place % len(ORDERS)]))

    def action_reverse(self) -> None:
        """Turns the order round."""
        self._change_request(replace(self._request, reverse=not self._request.reverse))

    def action_search(self) -> None:
        """Opens the line in which one types what to search for."""
        box = self.query_one("#search", Input)
        box.add_class("wanted")
        box.focus()

    def action_clear_search(self) -> None:
        """Shows all agents again."""
        box = self.query_one("#search", Input)
        box.value = ""
        self._leave_search()
        self._change_request(replace(self._request, search=None))

    async def on_input_changed(self, event: Input.Changed) -> None:
        """Searches while one types, after a short pause."""
        words = event.value.strip() or None
        if words == self._request.search:
            return
        self._request = replace(self._request, search=words)
        self._asking = self.run_worker(self._search(), exclusive=True, exit_on_error=False)

    def on_input_submitted(self, _event: Input.Submitted) -> None:
        """Goes back to the list and keeps the search."""
        self._leave_search()

    def on_data_table_row_selected(self, event: DataTable.RowSelected) -> None:
        """Shows one agent in full."""
        for agent in self._agents:
            if agent.agent_id == event.row_key.value:
                self.push_screen(AgentScreen(self._source, agent, self._interval))

    def _leave_search(self) -> None:
        self.query_one("#search", Input).remove_class("wanted")
        self.query_one(DataTable).focus()

    def _change_request(self, request: ListRequest) -> None:
        self._request = request
        self._ask()

    def _ask(self) -> None:
        """Asks at once: what was asked before is of no use any more."""
        self._asking = self.run_worker(self._update(), exclusive=True, exit_on_error=False)

    def _ask_again(self) -> None:
        """Asks unless an answer is awaited, which may take longer than the interval."""
        if self._asking is None or self._asking.is_finished:
            self._ask()

    async def _search(self) -> None:
        await asyncio.sleep(SEARCH_PAUSE_SECONDS)
        await self._update()

    async def _update(self) -> None:
        request = self._request
        try:
            dashboard = await self._source.dashboard()
            page = await self._source.agents_page(request)
        except GpupingError as error:
            self._show_trouble(error)
            return
        self._show(dashboard, page)

    def _show(self, dashboard: Dashboard, page: AgentPage) -> None:
        self._agents = page.agents
        self.query_one("#fleet", Static).update(
            headline(dashboard, self.size.width - FLEET_PADDING)
        )
        self.query_one("#shown", Static).update(self._what_is_shown(page))
        self._fill_table()

    def _show_trouble(self, error: GpupingError) -> None:
        """Says that what is on the screen is old, and goes on asking."""
        line = untrusted(f"not up to date: {error}; trying again ...")
        line.stylize("bold yellow")
        self.query_one("#shown", Static).update(line)

    def _what_is_shown(self, page: AgentPage) -> Text:
        order = {
            "worst": "worst first",
            "uptime": "lowest uptime first",
            "interval": "longest interval first",
            "next": "next ping first",
            "response": "slowest first",
            "id": "by id",
        }[self._request.order]
        if self._request.reverse:
            order += ", reversed"
        line = Text(f"{len(page.agents)} of {page.total}, {order}")
        if self._request.search:
            line.append(", with ")
            line.append_text(untrusted(self._request.search))
        return line

    def _fill_table(self) -> None:
        """Shows the agents; the cursor stays on the agent that it was on."""
        table = self.query_one(DataTable)
        columns = agent_columns(self._agents, self.size.width - SCROLL_BAR, GAP)
        chosen = None
        if table.row_count:
            chosen = table.coordinate_to_cell_key(table.cursor_coordinate).row_key.value
        scrolled_to = table.scroll_y
        table.clear(columns=True)
        for column in columns:
            heading = Text(column.heading, justify=side(column))
            table.add_column(heading, width=column.width, key=column.heading)
        now = clock.utc_now()
        for agent in self._agents:
            cells = [_cell(column, agent, now) for column in columns]
            table.add_row(*cells, key=agent.agent_id)
        for row, agent in enumerate(self._agents):
            if agent.agent_id == chosen:
                table.move_cursor(row=row, animate=False)
        table.scroll_to(y=scrolled_to, animate=False)


def _cell(column: Column[Agent], agent: Agent, now: datetime) -> Text:
    """One agent's text in a column, as long as there is room for."""
    text = column.cell(agent, now).copy()
    text.truncate(column.width, overflow="ellipsis")
    text.justify = side(column)
    return text


async def run_top(
    source: Source,
    lifecycle: Lifecycle,
    interval: float,
) -> None:
    """Shows the fleet until `q`, Ctrl-C or a signal."""
    app = TopApp(source, interval)
    stopped = asyncio.ensure_future(lifecycle.until_stopped())
    stopped.add_done_callback(lambda _: app.exit())
    try:
        await app.run_async()
    finally:
        stopped.cancel()
