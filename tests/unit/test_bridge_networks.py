"""Which addresses may be asked by HTTP, and which networks an operator may list."""

import pytest

from bus import settings
from bus.errors import SettingsError
from bus.networks import AskableNetworks

EVERYTHING = AskableNetworks.parse("0.0.0.0/0,::/0", may_be_loopback=False)

NEVER = [
    *("169.254.169.254", "169.254.0.1", "169.254.170.2", "fd00:ec2::254", "fd20:ce::254"),
    *("100.100.100.200", "168.63.129.16", "192.0.0.192"),
    *("127.0.0.1", "127.255.255.254", "::1", "0.1.2.3", "::"),
    "0.0.0.0",  # noqa: S104  # an address to refuse
    *("224.0.0.1", "239.255.255.255", "240.0.0.1", "255.255.255.255", "ff02::1", "ff0e::1"),
    *("fe80::1", "fe80::1%eth0", "febf::1", "fec0::1"),
    *("::ffff:10.0.0.1", "::ffff:127.0.0.1", "::ffff:169.254.169.254", "::ffff:a9fe:a9fe"),
    *("::ffff:0:10.0.0.1", "::10.0.0.1", "::7f00:1"),
    *("64:ff9b::10.0.0.1", "64:ff9b::a9fe:a9fe", "64:ff9b:1::10.0.0.1"),
    *("2002:0a00:0001::1", "2002:7f00:1::", "2001:0:4136:e378:8000:63bf:3fff:fdd2", "100::1"),
]


@pytest.mark.parametrize("address", NEVER)
def test_what_is_never_asked_is_not_asked_though_everything_is_listed(address):
    assert EVERYTHING.refusal(address)


@pytest.mark.parametrize(
    "address", ["10.1.2.3", "192.168.0.1", "8.8.8.8", "fd12::1", "2001:db8::1"]
)
def test_any_other_address_is_asked_where_everything_is_listed(address):
    assert EVERYTHING.refusal(address) is None


def test_only_what_is_listed_is_asked():
    networks = AskableNetworks.parse("10.1.0.0/16, fd12:3456::/32", may_be_loopback=False)
    assert networks.refusal("10.1.255.255") is None
    assert networks.refusal("fd12:3456::1") is None
    for address in ("10.2.0.1", "192.168.0.1", "fd12:3457::1", "8.8.8.8"):
        assert "GATEWAY_BRIDGE_NETWORKS" in str(networks.refusal(address))


def test_this_machine_is_asked_only_where_its_own_network_is_listed():
    both = AskableNetworks.parse("127.0.0.0/8,::1/128", may_be_loopback=True)
    assert both.refusal("127.0.0.1") is None
    assert both.refusal("::1") is None
    assert both.refusal("::ffff:127.0.0.1")
    everything = AskableNetworks.parse("0.0.0.0/0,::/0", may_be_loopback=True)
    assert everything.refusal("127.0.0.1")
    assert everything.refusal("::1")


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("10.0.0.1/8", "expected networks"),
        ("10.0.0.0/33", "expected networks"),
        ("intranet", "expected networks"),
        ("10.0.0.0/8,", "expected networks"),
        ("10.0.0.0/8;10.1.0.0/16", "expected networks"),
        ("010.0.0.0/8", "expected networks"),
        ("127.0.0.0/8", "GATEWAY_BRIDGE_LOOPBACK"),
        ("::1/128", "GATEWAY_BRIDGE_LOOPBACK"),
        ("169.254.0.0/16", "never asked"),
        ("169.254.169.254/32", "never asked"),
        ("64:ff9b::/96", "never asked"),
        ("::ffff:10.0.0.0/104", "never asked"),
        ("224.0.0.0/8", "never asked"),
        ("fe80::/64", "never asked"),
    ],
)
def test_a_list_in_which_nothing_could_be_asked_is_refused_at_start(text, word):
    with pytest.raises(SettingsError, match=word) as raised:
        settings.load({"GATEWAY_BRIDGE_NETWORKS": text})
    assert str(raised.value).startswith("GATEWAY_BRIDGE_NETWORKS=")


def test_without_a_list_nothing_is_asked():
    assert settings.load({}).bridge_networks is None
    assert settings.load({"GATEWAY_BRIDGE_NETWORKS": " "}).bridge_networks is None
    listed = settings.load(
        {"GATEWAY_BRIDGE_NETWORKS": "127.0.0.0/8", "GATEWAY_BRIDGE_LOOPBACK": "true"}
    )
    assert listed.bridge_networks is not None
