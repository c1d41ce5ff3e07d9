"""Owns a lab: a switch, nodes on it and the manifests that their daemons share.

Every step registers its undo; `close()` takes them back in reverse, also after a failure half-way.
"""

import tempfile
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from types import TracebackType
from typing import ClassVar, Self

from deploy.netlab import manifests
from deploy.netlab.manifests import Address, Manifests
from deploy.netlab.node import LabNode, Pod, Wire
from deploy.netlab.shell import attempt, run

__all__ = ["Lab", "LabNode", "Pod"]

SWITCH_HOST = 254


@dataclass(frozen=True, slots=True)
class Segment:
    """A bridge and the addresses of those on it, by their number."""

    bridge: str
    underlay4: str
    underlay6: str


NEAR = Segment("br0", "172.30.0.{}/24", "fd00:30::{:x}/64")
FAR = Segment("br1", "172.31.0.{}/24", "fd00:31::{:x}/64")


class Lab:
    """Nodes joined by a bridge in a namespace of its own, which also is "outside" to them.

    name: prefix of all that is made, unique on the machine. mode: network mode of the daemons.
    families: IP versions of the cluster, 4 first. mtu_bytes: of every wire between nodes.
    """

    node_type: ClassVar[type[LabNode]] = LabNode

    def __init__(
        self,
        name: str,
        *,
        mode: str = "vxlan",
        families: tuple[int, ...] = (4, 6),
        mtu_bytes: int = 1500,
    ) -> None:
        self.name = name
        self.mode = mode
        self.families = families
        self.mtu_bytes = mtu_bytes
        self.nodes: list[LabNode] = []
        self._numbers = count(1)
        self.switch = f"{name}-switch"
        self._undo = ExitStack()
        folder = self._undo.enter_context(tempfile.TemporaryDirectory(prefix=f"{name}-"))
        self.folder = Path(folder)
        self.manifests = Manifests(self.folder / "manifests")
        self.cgroup = self._make_cgroup()
        self._segments: list[Segment] = []
        self._make_switch()
        self.manifests.put(manifests.namespace("default"))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        self._undo.close()

    def add_node(
        self, name: str, *, families: tuple[int, ...] = (), far: bool = False, mtu_bytes: int = 0
    ) -> LabNode:
        """A node with its daemon not yet running: `start()` does that.

        families: IP versions of its own addresses, if not all of the cluster's. far: it hangs on
        another bridge, behind a router, which is the switch's namespace. mtu_bytes: of its wire,
        if not the lab's; the first node behind the router decides that bridge's too.
        """
        number, segment = next(self._numbers), FAR if far else NEAR
        mtu_bytes = mtu_bytes or self.mtu_bytes
        if far and len(self._segments) == 1:
            self._make_far_segment(mtu_bytes)
        node = self.node_type(
            name=name,
            namespace=f"{self.name}-{name}",
            folder=self.folder / f"{number}-{name}",
            cgroup=self.cgroup / name,
            underlay=_of(
                families or self.families,
                segment.underlay4.format(number),
                segment.underlay6.format(number),
            ),
            pod_cidrs=_of(self.families, f"10.244.{number}.0/24", f"fd00:10:244:{number:x}::/64"),
            manifests=self.manifests,
            mode=self.mode,
        )
        self._undo.callback(node.close)
        router = _of(families or self.families, *self._at(segment))
        wire = Wire(self.switch, segment.bridge, f"port{number}", mtu_bytes)
        node.make(wire, gateway=router)
        self.nodes.append(node)
        return node

    def remove_node(self, node: LabNode) -> None:
        """The machine is gone; its Node object stays until somebody removes it."""
        node.close()
        self.nodes.remove(node)

    @property
    def outside(self) -> tuple[str, ...]:
        """Addresses of the switch: the nodes' default gateway, a host that knows no pod."""
        return _of(self.families, *self._at(NEAR))

    @staticmethod
    def _at(segment: Segment) -> tuple[str, str]:
        """The switch's own addresses on a segment."""
        patterns = (segment.underlay4, segment.underlay6)
        four, six = (pattern.format(SWITCH_HOST).split("/")[0] for pattern in patterns)
        return four, six

    def endpoints(self, pods: list[Pod]) -> list[Address]:
        return [address for pod in pods for address in pod.addresses]

    def _make_cgroup(self) -> Path:
        root = cgroup2_root() / self.name
        root.mkdir()
        self._undo.callback(lambda: attempt("rmdir", root))
        return root

    def _make_switch(self) -> None:
        run("ip", "netns", "add", self.switch)
        self._undo.callback(lambda: attempt("ip", "netns", "del", self.switch))
        run("ip", "-n", self.switch, "link", "set", "lo", "up")
        self._make_segment(NEAR, self.mtu_bytes)

    def _make_far_segment(self, mtu_bytes: int) -> None:
        self._make_segment(FAR, mtu_bytes)
        for name in ("ipv4.ip_forward", "ipv6.conf.all.forwarding"):
            run("ip", "netns", "exec", self.switch, "sysctl", "-qw", f"net.{name}=1")

    def _make_segment(self, segment: Segment, mtu_bytes: int) -> None:
        ip, name = ("ip", "-n", self.switch), segment.bridge
        run(*ip, "link", "add", name, "mtu", str(mtu_bytes), "type", "bridge")
        run(*ip, "link", "set", name, "up")
        run(*ip, "addr", "add", segment.underlay4.format(SWITCH_HOST), "dev", name)
        run(*ip, "addr", "add", segment.underlay6.format(SWITCH_HOST), "dev", name, "nodad")
        self._segments.append(segment)


def _of(families: tuple[int, ...], four: str, six: str) -> tuple[str, ...]:
    return tuple(text for version, text in ((4, four), (6, six)) if version in families)


def cgroup2_root() -> Path:
    """Where the machine has its version 2 hierarchy mounted."""
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, where, kind, *_ = line.split()
        if kind == "cgroup2":
            return Path(where)
    raise FileNotFoundError("no cgroup2 hierarchy is mounted: mount -t cgroup2 none FOLDER")
