"""Owns a lab: a switch, nodes on it and the manifests that their daemons share.

Every step registers its undo; `close()` takes them back in reverse, also after a failure half-way.
"""

import tempfile
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType

from deploy.netlab import manifests
from deploy.netlab.manifests import Address, Manifests
from deploy.netlab.node import LabNode, Pod
from deploy.netlab.shell import attempt, run

__all__ = ["Lab", "LabNode", "Pod"]

UNDERLAY4 = "172.30.0.{}/24"
UNDERLAY6 = "fd00:30::{:x}/64"
SWITCH_HOST = 254


class Lab:
    """Nodes joined by a bridge in a namespace of its own, which also is "outside" to them.

    name: prefix of all that is made, unique on the machine. mode: network mode of the daemons.
    families: IP versions of the cluster, 4 first.
    """

    def __init__(
        self, name: str, *, mode: str = "vxlan", families: tuple[int, ...] = (4, 6)
    ) -> None:
        self.name = name
        self.mode = mode
        self.families = families
        self.nodes: list[LabNode] = []
        self.switch = f"{name}-switch"
        self._undo = ExitStack()
        folder = self._undo.enter_context(tempfile.TemporaryDirectory(prefix=f"{name}-"))
        self.folder = Path(folder)
        self.manifests = Manifests(self.folder / "manifests")
        self.cgroup = self._make_cgroup()
        self._make_switch()
        self.manifests.put(manifests.namespace("default"))

    def __enter__(self) -> "Lab":
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

    def add_node(self, name: str) -> LabNode:
        """A node with its daemon not yet running: `start()` does that."""
        number = len(self.nodes) + 1
        node = LabNode(
            name=name,
            namespace=f"{self.name}-{name}",
            folder=self.folder / name,
            cgroup=self.cgroup / name,
            underlay=self._of_families(UNDERLAY4.format(number), UNDERLAY6.format(number)),
            pod_cidrs=self._of_families(f"10.244.{number}.0/24", f"fd00:10:244:{number:x}::/64"),
            manifests=self.manifests,
            mode=self.mode,
        )
        self._undo.callback(node.close)
        node.make(switch=self.switch, port=f"port{number}", gateway=self.outside)
        self.nodes.append(node)
        return node

    @property
    def outside(self) -> tuple[str, ...]:
        """Addresses of the switch: the nodes' default gateway, a host that knows no pod."""
        return self._of_families(self._at(UNDERLAY4), self._at(UNDERLAY6))

    def _of_families(self, four: str, six: str) -> tuple[str, ...]:
        return tuple(text for version, text in ((4, four), (6, six)) if version in self.families)

    @staticmethod
    def _at(pattern: str) -> str:
        return pattern.format(SWITCH_HOST).split("/")[0]

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
        ip = ("ip", "-n", self.switch)
        run(*ip, "link", "set", "lo", "up")
        run(*ip, "link", "add", "br0", "type", "bridge")
        run(*ip, "link", "set", "br0", "up")
        run(*ip, "addr", "add", UNDERLAY4.format(SWITCH_HOST), "dev", "br0")
        run(*ip, "addr", "add", UNDERLAY6.format(SWITCH_HOST), "dev", "br0", "nodad")


def cgroup2_root() -> Path:
    """Where the machine has its version 2 hierarchy mounted."""
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, where, kind, *_ = line.split()
        if kind == "cgroup2":
            return Path(where)
    raise FileNotFoundError("no cgroup2 hierarchy is mounted: mount -t cgroup2 none FOLDER")
