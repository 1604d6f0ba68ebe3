"""What needs root: a network namespace of its own for each server, and small disks that fill."""

import asyncio
import os
import re
import secrets
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

DISK_MEGABYTES = 400
SLOW_RATE = "512kbit"
is_root = os.geteuid() == 0


async def command(*words: str) -> None:
    """Runs a command of the machine; raises when it fails."""
    process = await asyncio.create_subprocess_exec(
        *words, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE
    )
    _, said = await process.communicate()
    if process.returncode:
        raise OSError(f"{' '.join(words)}: {said.decode().strip()}")


class Namespaces:
    """One network namespace a server, joined by a bridge that this machine is on too.

    The bridge has a namespace of its own: a container engine's rules for forwarding, which this
    machine may have, do not hold there.
    """

    def __init__(self, names: Sequence[str]) -> None:
        octet = secrets.choice([number for number in range(2, 252) if number not in _used_octets()])
        self._id = octet  # a second drill that drew the same fails here, and is not heard by ours
        self._own_address = f"10.213.{octet}.1/24"
        self.addresses = {
            name: f"10.213.{octet}.{number + 10}" for number, name in enumerate(names)
        }
        self._hub = self._namespace("hub")
        self._in_hub = ("ip", "-n", self._hub)

    @property
    def own_address(self) -> str:
        """Where every namespace reaches this machine."""
        return self._own_address.partition("/")[0]

    def prefix(self, name: str) -> tuple[str, ...]:
        """Before a command: it then runs in that namespace."""
        return ("ip", "netns", "exec", self._namespace(name))

    async def make(self) -> None:
        await command("ip", "netns", "add", self._hub)
        await command(*self._in_hub, "link", "add", "hub", "type", "bridge")
        await command(*self._in_hub, "link", "set", "hub", "up")
        await self._plug_in(self._own_link, None)
        await command("ip", "address", "add", self._own_address, "dev", self._own_link)
        await command("ip", "link", "set", self._own_link, "up")
        for name, address in self.addresses.items():
            namespace = self._namespace(name)
            inside = ("ip", "-n", namespace)
            await command("ip", "netns", "add", namespace)
            await self._plug_in("inner", namespace, outer=name)
            await command(*inside, "address", "add", f"{address}/24", "dev", "inner")
            await command(*inside, "link", "set", "inner", "up")
            await command(*inside, "link", "set", "lo", "up")

    async def isolate(self, name: str, *, isolated: bool) -> None:
        """Pulls the cable of one server, or puts it back."""
        await command(*self._in_hub, "link", "set", name, "down" if isolated else "up")

    async def slow(self, name: str, *, slowed: bool) -> None:
        """Lets hardly more through to a server, and from it, than the load needs; or all again."""
        rate = ("tbf", "rate", SLOW_RATE, "burst", "16kb", "latency", "400ms")
        for namespace, link in ((self._hub, name), (self._namespace(name), "inner")):
            change = ("tc", "-n", namespace, "qdisc", "add" if slowed else "delete")
            await command(*change, "dev", link, "root", *(rate if slowed else ()))

    async def remove(self) -> None:
        for name in (*self.addresses, "hub"):
            await command("ip", "netns", "delete", self._namespace(name))

    async def _plug_in(self, link: str, namespace: str | None, outer: str = "machine") -> None:
        """Joins a new link of a namespace, or of this machine, with the bridge."""
        where = () if namespace is None else ("netns", namespace)
        peer = ("peer", "name", link, *where)
        await command(*self._in_hub, "link", "add", outer, "type", "veth", *peer)
        if namespace is None:
            await command(*self._in_hub, "link", "set", link, "netns", "1")
        await command(*self._in_hub, "link", "set", outer, "master", "hub")
        await command(*self._in_hub, "link", "set", outer, "up")

    @property
    def _own_link(self) -> str:
        return f"gc{self._id}"

    def _namespace(self, name: str) -> str:
        return f"gpuping-{self._id}-{name}"


def _used_octets() -> set[int]:
    """Subnets of other drills on this machine: two that share one would hear each other."""
    addresses = subprocess.run(["ip", "-o", "address"], capture_output=True, text=True, check=True)
    return {int(octet) for octet in re.findall(r"10\.213\.(\d+)\.", addresses.stdout)}


class SmallDisk:
    """A loop-mounted file system that can be filled to the last block."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._image = folder.with_suffix(".img")

    async def make(self) -> None:
        self.folder.mkdir(parents=True)
        with self._image.open("wb") as image:
            image.truncate(DISK_MEGABYTES * 2**20)
        await command("mkfs.ext4", "-q", "-m", "0", str(self._image))
        await command("mount", "-o", "loop", str(self._image), str(self.folder))

    def fill(self) -> None:
        """Leaves not a byte."""
        with (self.folder / "filler").open("wb", buffering=0) as filler:
            room = os.statvfs(self.folder)
            # others write meanwhile, so the reservation may fail
            with suppress(OSError):
                os.posix_fallocate(filler.fileno(), 0, room.f_bavail * room.f_frsize)
            with suppress(OSError):
                while True:
                    filler.write(bytes(4096))

    def free(self) -> None:
        (self.folder / "filler").unlink(missing_ok=True)

    async def remove(self) -> None:
        await command("umount", "--lazy", str(self.folder))
        self._image.unlink()
