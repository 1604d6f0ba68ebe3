"""Fixtures for every test: a real nats-server, and clients of it."""

import os
import sys
from collections.abc import AsyncIterator, Generator
from pathlib import Path

import hypothesis
import pytest
import structlog

from bus import settings
from bus.settings import Settings
from bus.transport import connection, embedded_server, layout
from tests.ports import free_port

_OURS = (
    "PING_",
    "AGENT_",
    "ALERTS_",
    "ENROLMENT_",
    "GATEWAY_",
    "GPUPING_",
    "LOG_",
    "NATS_",
    "SCHEDULER_",
    "STORAGE_",
)
# Where a supervisor or a user's desktop would have us look.
_OF_THE_SYSTEM = (
    "CREDENTIALS_DIRECTORY",
    "NOTIFY_SOCKET",
    "WATCHDOG_USEC",
    "XDG_CONFIG_HOME",
    "XDG_DATA_HOME",
)


def _forget_the_callers_environment() -> None:
    """What the caller set must not decide what tests see.

    Settings of ours would, and so would a proxy, through which requests to this machine would go.
    """
    for name in list(os.environ):
        is_proxy = name.lower().endswith("_proxy")
        if is_proxy or name.startswith(_OURS) or name in _OF_THE_SYSTEM:
            del os.environ[name]


_forget_the_callers_environment()

# How long an example takes on a busy machine is no finding.
hypothesis.settings.register_profile(
    "any machine",
    hypothesis.settings(),
    deadline=None,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.load_profile("any machine")

# Files that take a quarter of a minute and more. They are begun first, so that no worker has one of
# them left when the others have nothing to do any more.
LONG_FILES = frozenset(
    {
        "test_answers_as_files.py",
        "test_bucket_lost.py",
        "test_cluster_outages.py",
        "test_dashboard_page.py",
        "test_dashboard_parts.py",
        "test_dashboard_truth.py",
        "test_demo.py",
        "test_first_ping.py",
        "test_host_lives.py",
        "test_many_agents.py",
        "test_in_a_shell.py",
        "test_killed.py",
        "test_late_answers.py",
        "test_policy_to_the_letter.py",
        "test_probe_standin.py",
        "test_reading_commands.py",
        "test_runner.py",
        "test_scheduler.py",
        "test_scheduler_durable.py",
        "test_scheduler_kills.py",
        "test_scheduler_model.py",
        "test_scheduler_short_outages.py",
        "test_schemathesis.py",
        "test_signed_chain.py",
        "test_storage_away.py",
        "test_storage_delivery.py",
        "test_storage_replicas.py",
        "test_up.py",
        "test_up_on_gpus.py",
    }
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Puts the long files first; within a file the order stays."""
    items.sort(key=lambda item: item.path.name not in LONG_FILES)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """In CI a skip or an xfail is a failure: no part may be missing unnoticed.

    Only containers, GPUs and the rights of root may be.
    """
    report = yield
    is_excused = any(item.get_closest_marker(name) for name in ("docker", "gpu", "root"))
    if report.skipped and os.environ.get("CI") and not is_excused:
        report.outcome = "failed"
        report.longrepr = f"skipped in CI: {report.longrepr}"
    return report


@pytest.fixture(autouse=True)
def _logs_as_before() -> Generator[None]:
    """A command that a test runs in this process sets up logging; the next test has its own.

    Otherwise everything would be logged to the standard error of the test that is over, and each
    module would keep the logger that it had then: below that level nobody would hear of it.
    """
    yield
    structlog.reset_defaults()
    for module in list(sys.modules.values()):
        logger = getattr(module, "log", None)
        if isinstance(logger, structlog._config.BoundLoggerLazyProxy):  # no public name
            logger.__dict__.pop("bind", None)  # which is where structlog keeps it


@pytest.fixture
async def nats_server(tmp_path: Path) -> AsyncIterator[embedded_server.EmbeddedServer]:
    """A real nats-server of this test's own; `.process` may be killed or frozen."""
    async with embedded_server.running(tmp_path / "bus", port=free_port()) as server:
        yield server


@pytest.fixture
def base_settings(nats_server: embedded_server.EmbeddedServer, tmp_path: Path) -> Settings:
    """Settings that point at this test's server and a folder of its own; no environment."""
    return settings.load({}, NATS_URL=nats_server.url, GPUPING_DATA_DIR=str(tmp_path / "data"))


@pytest.fixture
async def bus(base_settings: Settings) -> AsyncIterator[connection.Client]:
    """A client on a bus whose layout stands."""
    async with connection.connected(base_settings, "test") as client:
        await layout.ensure(client, base_settings)
        yield client
