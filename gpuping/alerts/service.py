"""The alerts service, assembled. Any number of them share the work on one bus, without a leader."""

import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import structlog
from prometheus_client.core import Metric

from bus.background import StartTask, background
from bus.client.fleet_client import FleetClient
from bus.contract import subjects
from bus.monitoring.alerts_families import alerts_families
from bus.monitoring.families import gauge
from bus.settings import Settings
from bus.transport import connection, layout
from bus.transport.availability import when_available
from bus.transport.connection import Client
from bus.transport.micro_services import serve
from gpuping.alerts.board import Board
from gpuping.alerts.deliver.channels import Channels
from gpuping.alerts.deliver.dispatcher import Dispatcher
from gpuping.alerts.deliver.sender import Sender
from gpuping.alerts.detect.fleet_checks import FleetChecks
from gpuping.alerts.detect.fleet_facts import FleetFacts
from gpuping.alerts.detect.history_reader import HistoryReader
from gpuping.alerts.detect.recorder import Recorder
from gpuping.alerts.endpoints import AlertsEndpoints
from gpuping.alerts.rules.file_watch import FileWatch, read
from gpuping.alerts.rules.rulebook import Rulebook

log = structlog.get_logger("gpuping.alerts")


class AlertsService:
    """Makes the parts of one alerts process, and starts them."""

    def __init__(self, client: Client, settings: Settings) -> None:
        self._client = client
        self._file = FileWatch(settings, self._on_board_change)
        self.board = Board(client, self._on_board_change)
        self.dispatcher = Dispatcher(self.board, self._rulebook)
        self.sender = Sender(
            self.board, lambda: Channels(self._rulebook().file), secrets.token_hex(6)
        )
        self._facts = FleetFacts(client)
        self.reader = HistoryReader(
            client,
            self.board,
            Recorder(self.board, self._on_recorded),
            self._facts.of,
            settings.max_interval_seconds,
        )
        self._checks = FleetChecks(
            FleetClient(client, settings.PING_RESPONSE_TIMEOUT_SECONDS),
            self.board,
            self._facts,
            self._rulebook,
            settings,
            self._on_recorded,
        )
        self.endpoints = AlertsEndpoints(
            client, self.board, self._rulebook, self.dispatcher, self.sender
        )
        self.recorded = 0

    async def start(self, start: StartTask) -> None:
        """Returns when the bucket and the registry are known; everything else goes on then."""
        start(self._file.run())
        start(self.board.watcher.run())
        start(self._facts.watcher.run())
        await self.board.watcher.loaded.wait()
        await self._facts.watcher.loaded.wait()
        start(self.reader.run())
        start(self._checks.run_connections())
        start(self._checks.run_services())
        start(self._checks.run_expiries())
        start(self.dispatcher.run())
        start(self.sender.run())

    async def metric_families(self) -> list[Metric]:
        """What this service shows to Prometheus."""
        return [
            gauge("bus_connected", "Whether the bus is connected", self._client.is_connected),
            *alerts_families(self.endpoints.stats()),
        ]

    def _rulebook(self) -> Rulebook:
        return self._file.rulebook

    def _on_board_change(self) -> None:
        self.dispatcher.wake()
        self.sender.wake()

    def _on_recorded(self, changes: int) -> None:
        self.recorded += changes


@asynccontextmanager
async def running(settings: Settings) -> AsyncIterator[AlertsService]:
    """Runs one alerts process for the length of a block. Raises SettingsError, BusError."""
    read(settings)  # a file that cannot be used is refused at once, also while there is no bus
    inbox_prefix = subjects.service_inbox("alerts")
    async with connection.connected(settings, "alerts", inbox_prefix=inbox_prefix) as client:
        await when_available(lambda: layout.ensure(client, settings))
        alerts = AlertsService(client, settings)
        async with background() as start:
            await alerts.start(start)
            service = await serve(
                client,
                subjects.ALERTS_SERVICE,
                "tells people once about every change",
                alerts.endpoints.endpoints(),
            )
            try:
                yield alerts
            finally:
                await service.stop()
