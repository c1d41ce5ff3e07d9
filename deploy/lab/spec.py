"""What a lab cluster is: its size, shape, names, addresses and folders.

Pure values, derived from a name and two numbers, so that `down` finds what `up` made even when
`up` never finished. Every cluster uses the same addresses: its namespaces keep them apart.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from pathlib import Path

NODE_NETWORK4 = IPv4Network("172.30.0.0/24")
NODE_NETWORK6 = IPv6Network("fd00:30::/64")
POD_NETWORK4 = IPv4Network("10.244.0.0/16")
POD_NETWORK6 = IPv6Network("fd00:244::/56")
SERVICE_NETWORK4 = IPv4Network("10.96.0.0/16")
# The API server takes at most 20 bits of IPv6 Service addresses.
SERVICE_NETWORK6 = IPv6Network("fd00:96::/108")
API_PORT = 6443
_ZONES = 3
# Off the nodes' link, behind their default route: what a pod sees as the outside world.
OUTSIDE4 = IPv4Address("198.51.100.1")
OUTSIDE6 = IPv6Address("2001:db8:51::1")
OUTSIDE_NAME = "outside.lab.test"

CHECKOUT = Path(__file__).resolve().parents[2]


class Shape(StrEnum):
    """What a node looks like from inside: a plain machine, or a kind node."""

    PLAIN = "plain"
    KIND = "kind"


class Network(StrEnum):
    """What gives the cluster its pod network and its Services."""

    WEFT = "weft"
    REFERENCE = "reference"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class Address:
    """One machine's pair of addresses on the nodes' link."""

    v4: IPv4Address
    v6: IPv6Address

    def __str__(self) -> str:
        return f"{self.v4},{self.v6}"


def _host(number: int) -> Address:
    return Address(NODE_NETWORK4[number], NODE_NETWORK6[number])


SWITCH_ADDRESS = _host(1)
API_ADDRESS = _host(2)
# What the nodes' resolv.conf names. In SHAPE=kind nobody has this address.
RESOLVER_ADDRESS = _host(3)
API_URL = f"https://{API_ADDRESS.v4}:{API_PORT}"


@dataclass(frozen=True, slots=True)
class Node:
    """One node: its Kubernetes name, zone, namespace and addresses."""

    name: str
    namespace: str
    address: Address
    state: Path
    cgroup: str
    zone: str


@dataclass(frozen=True, slots=True)
class Cluster:
    """One lab cluster. `name` prefixes all that it makes on this machine; `settings` go into
    Weft's ConfigMap."""

    name: str
    node_count: int
    shape: Shape
    network: Network
    settings: Mapping[str, str] = field(default_factory=dict)

    @property
    def switch_namespace(self) -> str:
        return f"{self.name}-sw"

    @property
    def control_namespace(self) -> str:
        return f"{self.name}-cp"

    @property
    def cgroup(self) -> str:
        """The cgroup, in every hierarchy, below which every process of the cluster runs."""
        return f"weft-lab-{self.name}"

    @property
    def state(self) -> Path:
        root = Path(os.environ.get("WEFT_STATE") or "/var/lib/weft-lab")
        return root / self.name

    @property
    def kubeconfig(self) -> Path:
        return self.state / "admin.kubeconfig"

    def owns(self, namespace: str) -> bool:
        """Whether a network namespace is this cluster's, even when its record was lost."""
        prefix, _, role = namespace.rpartition("-")
        is_machine = role in ("sw", "cp") or (role[:1] == "n" and role[1:].isdigit())
        return prefix == self.name and is_machine

    def nodes(self) -> Iterator[Node]:
        for number in range(1, self.node_count + 1):
            name = f"n{number}"
            yield Node(
                name=name,
                namespace=f"{self.name}-{name}",
                address=_host(10 + number),
                state=self.state / name,
                cgroup=f"{self.cgroup}/{name}",
                zone=f"zone-{(number - 1) % _ZONES + 1}",
            )

    def save(self) -> None:
        """Writes the record that `load` reads: before anything else is made."""
        self.state.mkdir(parents=True, exist_ok=True)
        record = {
            "node_count": self.node_count,
            "shape": self.shape,
            "network": self.network,
            "settings": dict(self.settings),
        }
        (self.state / "cluster.json").write_text(json.dumps(record))


def load(name: str) -> Cluster:
    """The record of a cluster that `up` began; FileNotFoundError when there is none."""
    state = Cluster(name, 0, Shape.PLAIN, Network.NONE).state
    record = json.loads((state / "cluster.json").read_text())
    return Cluster(
        name=name,
        node_count=record["node_count"],
        shape=Shape(record["shape"]),
        network=Network(record["network"]),
        settings=record["settings"],
    )


def default_name() -> str:
    """$WEFT_CLUSTER, or `weft`: short, since it becomes part of namespace names."""
    return os.environ.get("WEFT_CLUSTER") or "weft"
