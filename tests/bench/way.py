"""Owns what the path benches go over: from a namespace to an address, ours or a peer's."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from deploy.netlab import LabNode

UDP_PORT, TCP_PORT = 9000, 5201


@dataclass(frozen=True, slots=True)
class Way:
    """enter: what a command is prefixed with to be the sender's; receiver: the namespace that
    `address` leads to. against: of a way of ours, its peers' names and the design's goals for CPU
    per packet; nodes: whose programs carry it; ports: of UDP and of TCP.
    """

    name: str
    enter: tuple[str, ...]
    address: str
    receiver: str
    against: Mapping[str, str] = field(default_factory=dict)
    nodes: tuple[LabNode, ...] = ()
    ports: tuple[int, int] = (UDP_PORT, TCP_PORT)

    @property
    def version(self) -> int:
        return 6 if ":" in self.address else 4

    def command(self, *argv: str) -> tuple[str, ...]:
        return *self.enter, *argv


def inside(namespace: str) -> tuple[str, ...]:
    return "nsenter", f"--net=/run/netns/{namespace}"


def in_family(name: str, version: int) -> str:
    """A way's name; IPv4 goes without saying."""
    return name if version == 4 else f"{name}, IPv6"
