"""The check for a server that is too old, on version objects as nats-py makes them."""

from types import SimpleNamespace

import pytest
from nats.aio.client import ServerVersion

from bus.errors import LayoutError
from bus.transport import layout


@pytest.mark.parametrize("version", ["2.11.9", "2.9.25", "1.4.0"])
def test_a_server_without_scheduled_messages_is_refused(version: str) -> None:
    with pytest.raises(LayoutError, match=f"nats-server {version} is too old"):
        layout.check_server(SimpleNamespace(connected_server_version=ServerVersion(version)))


@pytest.mark.parametrize("version", ["2.12.0", "2.15.1", "3.0.0", "2.12.0-beta.1"])
def test_newer_servers_are_welcome(version: str) -> None:
    layout.check_server(SimpleNamespace(connected_server_version=ServerVersion(version)))
