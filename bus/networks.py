"""Which addresses a gateway may ask by HTTP: those that the operator listed, less the dangerous.

An address that a host registers is chosen by somebody else. What it leads to must be in a network
that the operator named, and never be one of NEVER_ASKED, whatever the operator named: there are the
secrets of clouds, and other ways to write an address that is not allowed.
"""

import ipaddress
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

from msgspec import Struct

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

_LOOPBACK = (IPv4Network("127.0.0.0/8"), IPv6Network("::1/128"))

# Each network with what it is, for whoever is refused.
NEVER_ASKED: tuple[tuple[Network, str], ...] = (
    (IPv4Network("0.0.0.0/8"), "unspecified"),
    (IPv4Network("169.254.0.0/16"), "link-local, where clouds keep their metadata"),
    (IPv4Network("100.100.100.200/32"), "the metadata of a cloud"),
    (IPv4Network("168.63.129.16/32"), "the metadata of a cloud"),
    (IPv4Network("192.0.0.0/24"), "kept for protocols"),
    (IPv4Network("224.0.0.0/4"), "multicast"),
    (IPv4Network("240.0.0.0/4"), "reserved or broadcast"),
    (IPv6Network("fd00:ec2::254/128"), "the metadata of a cloud"),
    (IPv6Network("fd20:ce::254/128"), "the metadata of a cloud"),
    (IPv6Network("::ffff:0:0/96"), "an IPv4 address written as IPv6"),
    (IPv6Network("::ffff:0:0:0/96"), "an IPv4 address written as IPv6"),
    (IPv6Network("64:ff9b::/96"), "an IPv4 address behind NAT64"),
    (IPv6Network("64:ff9b:1::/48"), "an IPv4 address behind NAT64"),
    (IPv6Network("2002::/16"), "an IPv4 address behind 6to4"),
    (IPv6Network("2001::/32"), "an IPv4 address behind Teredo"),
    (IPv6Network("100::/64"), "where packets are discarded"),
    (IPv6Network("fe80::/10"), "link-local"),
    (IPv6Network("fec0::/10"), "site-local"),
    (IPv6Network("ff00::/8"), "multicast"),
    # below the address of loopback, which is asked about first, only what is obsolete
    (IPv6Network("::/96"), "unspecified, or an IPv4 address written as IPv6"),
)


class AskableNetworks(Struct, frozen=True):
    """The networks of GATEWAY_BRIDGE_NETWORKS."""

    networks: tuple[Network, ...]

    @classmethod
    def parse(cls, text: str, *, may_be_loopback: bool) -> "AskableNetworks":
        """Reads networks with commas between them. Raises ValueError, which says what is wrong."""
        networks = []
        for part in text.split(","):
            network = _network(part.strip())
            _check(network, may_be_loopback=may_be_loopback)
            networks.append(network)
        return cls(tuple(networks))

    def refusal(self, address: str) -> str | None:
        """Returns why an address may not be asked; None where it may."""
        found = ipaddress.ip_address(address)
        if _is_loopback(found):
            if any(_is_of_loopback(network) and found in network for network in self.networks):
                return None
            return f"{address} is this machine itself"
        for network, what in NEVER_ASKED:
            if found in network:
                return f"{address} is never asked: {what}"
        if any(found in network for network in self.networks):
            return None
        return f"{address} is not in a network of GATEWAY_BRIDGE_NETWORKS"


def _network(text: str) -> Network:
    try:
        return ipaddress.ip_network(text)
    except ValueError:
        raise ValueError(
            "expected networks like 10.0.0.0/8,fd12:3456::/32, without bits after their prefix"
        ) from None


def _check(network: Network, *, may_be_loopback: bool) -> None:
    """Raises ValueError for a network in which nothing may be asked."""
    if _is_of_loopback(network):
        if not may_be_loopback:
            raise ValueError(
                f"{network} is this machine itself, which is asked only with "
                "GATEWAY_BRIDGE_LOOPBACK=true"
            )
        return
    for never, what in NEVER_ASKED:
        if _is_within(network, never):
            raise ValueError(f"{network} is never asked: {what}")


def _is_loopback(address: Address) -> bool:
    return any(address in network for network in _LOOPBACK)


def _is_of_loopback(network: Network) -> bool:
    return any(_is_within(network, loopback) for loopback in _LOOPBACK)


def _is_within(inner: Network, outer: Network) -> bool:
    if isinstance(inner, IPv4Network) and isinstance(outer, IPv4Network):
        return inner.subnet_of(outer)
    if isinstance(inner, IPv6Network) and isinstance(outer, IPv6Network):
        return inner.subnet_of(outer)
    return False
