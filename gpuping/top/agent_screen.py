"""One agent in full: its standing, its GPUs with their reasons, and its newest pings."""

from datetime import datetime
from typing import ClassVar

from rich.console import Group, RenderableType
from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.screen import ModalScreen
from textual.widgets import Footer, Static
from textual.worker import Worker

from bus import clock
from bus.contract.questions import Agent, Ping
from bus.contract.reasons import UPTIME_BELOW_THRESHOLD, reason_words
from bus.errors import GpupingError
from gpuping.client.sources import Source
from gpuping.output import tables
from gpuping.output.formats import duration, milliseconds, percent, relative_time, untrusted
from gpuping.output.ping_columns import pings_table
from gpuping.output.terminal import plain_table

PINGS = 20
HOURS = 24.0
WIDTH_FOR_UUIDS = 90  # characters


class AgentScreen(ModalScreen[None]):
    """Shows one agent until Escape; asks again every `interval` seconds."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,enter", "dismiss", "Back"),
        Binding("q", "app.quit", "Quit"),
    ]
    CSS = """
    AgentScreen { align: center middle; }
    AgentScreen VerticalScroll {
        width: 90%; height: 90%; padding: 1 2; background: $surface; border: round $primary;
    }
    """

    def __init__(
        self,
        source: Source,
        agent: Agent,
        interval: float,
    ) -> None:
        super().__init__()
        self._source = source
        self._agent = agent
        self._interval = interval
        self._asking: Worker[None] | None = None

    def compose(self) -> ComposeResult:
        """The text, which scrolls where the terminal is small, and the keys."""
        with VerticalScroll():
            yield Static("", id="agent")
        yield Footer()

    def on_mount(self) -> None:
        """Called when the screen is shown."""
        self._show(())
        self._ask()
        self.set_interval(self._interval, self._ask)

    def _ask(self) -> None:
        """Asks unless an answer is awaited, which may take longer than the interval."""
        if self._asking is None or self._asking.is_finished:
            self._asking = self.run_worker(self._update(), exit_on_error=False)

    async def _update(self) -> None:
        try:
            self._agent = await self._source.agent(self._agent.agent_id)
            reply = await self._source.history(self._agent.agent_id, HOURS, PINGS)
        except GpupingError as error:
            self._show((), f"not up to date: {error}; trying again ...")
            return
        self._show(reply.pings)

    def _show(self, pings: tuple[Ping, ...], trouble: str = "") -> None:
        shown = agent_in_full(
            self._agent,
            pings,
            clock.utc_now(),
            self.query_one(VerticalScroll).scrollable_content_region.width,
        )
        line = untrusted(trouble)
        line.stylize("bold yellow")
        self.query_one("#agent", Static).update(Group(shown, line))


def agent_in_full(
    agent: Agent,
    pings: tuple[Ping, ...],
    now: datetime,
    width: int,
) -> Group:
    """An agent, its GPUs, and its newest pings where they are known, in so many characters."""
    gpus = _gpus(agent, with_uuids=width >= WIDTH_FOR_UUIDS)
    parts: list[RenderableType] = [_headline(agent), _facts(agent, now), "", gpus]
    if pings:
        parts += ["", pings_table(pings, now, width)]
    return Group(*parts)


def _headline(agent: Agent) -> Text:
    line = Text(agent.agent_id, "bold")
    line.append("  ")
    line.append(agent.status, tables.STATUS_COLOURS.get(agent.status, ""))
    line.append("  ")
    line.append_text(tables.gpus_up(agent))
    return line


def _facts(agent: Agent, now: datetime) -> Text:
    """The standing in one or two lines."""
    line = Text("uptime at the last ping ")
    line.append_text(percent(agent.uptime_percent))
    line.append(", of 24 h ")
    line.append_text(percent(agent.uptime_24h_percent))
    line.append(f", {agent.total_pings} pings, {agent.missed_pings} missed")
    line.append("\nlast ping ")
    line.append_text(relative_time(agent.last_ping_at, now))
    line.append(", took ")
    line.append_text(milliseconds(agent.last_response_ms))
    line.append(", next ")
    line.append_text(relative_time(agent.next_ping_at, now))
    line.append(f", interval {duration(agent.current_interval_minutes * 60)}")
    if agent.last_reason and agent.last_reason != UPTIME_BELOW_THRESHOLD:
        line.append("\n")
        line.append_text(untrusted(reason_words(agent.last_reason)))
    if agent.conflicting_boot_ids or agent.conflicting_sessions or agent.conflicting_connections:
        line.append("\ntwo hosts or two agents answer under this id", "bold red")
    return line


def _gpus(agent: Agent, *, with_uuids: bool) -> RenderableType:
    if not agent.gpus:
        return Text("no GPU was ever reported", "bright_black")
    headings = ["GPU", "NAME", "STATE", "WHY"]
    if with_uuids:
        headings.append("UUID")
    table = plain_table(*headings)
    for gpu in agent.gpus:
        index = "-"
        if gpu.index is not None:
            index = str(gpu.index)
        words = [reason_words(reason) for reason in gpu.reasons]
        cells = [
            Text(index),
            untrusted(gpu.name),
            Text(gpu.state, tables.STATE_COLOURS.get(gpu.state, "")),
            untrusted(", ".join(words)),
        ]
        if with_uuids:
            cells.append(untrusted(gpu.uuid))
        table.add_row(*cells)
    return table
