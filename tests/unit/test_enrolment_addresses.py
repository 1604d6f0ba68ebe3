"""Where a host that is let in reaches the bus: of a cluster every server is named."""

import pytest

from agentd.messaging.enrolment import url_of
from bus import settings
from bus.errors import SettingsError
from gpuping.enrolment.service import public_address

CLUSTER = "tls://n1:4222,tls://n2:4222,tls://n3:4222"


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, "127.0.0.1:4222"),
        ({"NATS_URL": CLUSTER}, "n1:4222,n2:4222,n3:4222"),
        ({"NATS_URL": CLUSTER, "NATS_PUBLIC_URL": "tls://bus.example"}, "bus.example"),
        (
            {"NATS_PUBLIC_URL": "tls://a.example:4222, tls://b.example:4223"},
            "a.example:4222,b.example:4223",
        ),
        ({"NATS_URL": "tls://u:p@n1:4222"}, "n1:4222"),
        ({"NATS_PUBLIC_URL": "wss://bus.example"}, "wss://bus.example"),
    ],
)
def test_the_address_in_a_command_for_hosts(variables: dict[str, str], expected: str):
    assert public_address(settings.load(variables)) == expected


def test_a_host_keeps_the_addresses_of_all_servers():
    assert url_of("n1:4222,n2:4222,n3:4222") == CLUSTER
    assert url_of("127.0.0.1:4222") == "nats://127.0.0.1:4222"
    for wrong in ("n1:4222,", "[::1", "nats://[::1", "n1:99999", "n1:port", "", "tls://"):
        with pytest.raises(SettingsError, match="HOST:PORT"):
            url_of(wrong)


def test_each_public_address_is_checked():
    with pytest.raises(SettingsError, match="NATS_PUBLIC_URL"):
        settings.load({"NATS_PUBLIC_URL": "tls://a.example,tls://b.example/path/x"})
