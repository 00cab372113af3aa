"""Another host, as the network sees it: a network namespace that can vanish without a word."""

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass

NETWORK = "10.231.77"  # a link of two addresses: .1 is here, .2 is there


@dataclass(frozen=True)
class FarHost:
    name: str

    @property
    def address(self) -> str:
        return f"{NETWORK}.2"

    @property
    def within(self) -> list[str]:
        """The beginning of a command that runs there."""
        return ["ip", "netns", "exec", self.name]

    def vanish(self) -> None:
        """From now on nothing comes from there."""
        _ip("-n", self.name, "route", "add", "blackhole", f"{NETWORK}.1/32")

    def come_back(self) -> None:
        _ip("-n", self.name, "route", "del", "blackhole", f"{NETWORK}.1/32")


def far_host_possible() -> bool:
    if os.geteuid() != 0 or shutil.which("ip") is None:
        return False
    name = f"ql-probe-{os.getpid()}"
    made = subprocess.run(["ip", "netns", "add", name], capture_output=True, check=False).returncode == 0
    if made:
        _ip("netns", "del", name)
    return made


@contextlib.contextmanager
def far_host() -> Iterator[FarHost]:
    host = FarHost(f"ql-{os.getpid()}")
    here, there = f"qla{os.getpid() % 10**6}", f"qlb{os.getpid() % 10**6}"
    _ip("netns", "add", host.name)
    try:
        _ip("link", "add", here, "type", "veth", "peer", "name", there, "netns", host.name)
        _ip("addr", "add", f"{NETWORK}.1/30", "dev", here)
        _ip("link", "set", here, "up")
        _ip("-n", host.name, "addr", "add", f"{host.address}/30", "dev", there)
        for device in ("lo", there):
            _ip("-n", host.name, "link", "set", device, "up")
        yield host
    finally:
        _ip("netns", "del", host.name)


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)
