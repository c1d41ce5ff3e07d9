"""Owns the questions of the twin test: who asks, at which address, of which Service, and the
Services themselves. Says nothing of what the answer is: two networks are asked and compared.

Source: kube-proxy 1.36's TestInternalExternalMasquerade (reference/services.md 1.3), by the effect
instead of the rules.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from typing import Any, NamedTuple

from deploy.netlab import manifests
from deploy.netlab.manifests import Manifest

PORT, SERVICE_PORT, UNSERVED_PORT = 8080, 80, 81
FIRST_NODE_PORT, FIRST_HEALTH_PORT = 30_100, 32_100
RANGES = {4: "10.96.0.0/16", 6: "fd00:96::/108"}
VIPS = {4: "10.96.1.{}", 6: "fd00:96::1:{}"}
BALANCERS = {4: "198.51.100.{}", 6: "2001:db8:100::{}"}
EXTERNALS = {4: "203.0.113.{}", 6: "2001:db8:113::{}"}
ROUTED = {4: ("198.51.100.0/24", "203.0.113.0/24"), 6: ("2001:db8:100::/64", "2001:db8:113::/64")}
"""Beside the Service range, what a host outside sends to the first node."""

NODES = ("east", "west")
PODS = {"client": "east", "here": "east", "there": "west", "far": "west"}
"""Every pod serves; `client` and `far` ask too. "Here" is east."""
CLIENTS = ("client", "east", "outside", "far")
LOCAL = {"externalTrafficPolicy": "Local"}, {"internalTrafficPolicy": "Local"}
POLICIES: Mapping[str, Mapping[str, str]] = {
    "cluster": {},
    "external": LOCAL[0],
    "internal": LOCAL[1],
    "local": LOCAL[0] | LOCAL[1],
}
READY, LEAVING, UNREADY = (
    {"ready": True, "serving": True, "terminating": False},
    {"ready": False, "serving": True, "terminating": True},
    {"ready": False, "serving": False, "terminating": False},
)
# By name: a Service's endpoints, servers and their conditions.
PLACEMENTS: Mapping[str, Mapping[str, Mapping[str, bool]]] = {
    "here": {"here": READY},
    "there": {"there": READY},
    "both": {"here": READY, "there": READY},
    "unready": {"here": UNREADY, "there": UNREADY},
    "leaving": {"here": LEAVING},
    "staying": {"here": LEAVING, "there": READY},
    "itself": {"client": READY},
    "node": {"east": READY},
    "other-node": {"west": READY},
}
SERVICES = tuple(product(POLICIES, PLACEMENTS))


class Cell(NamedTuple):
    """One question. place: the kind of address that is asked."""

    client: str
    place: str
    policy: str
    placement: str
    protocol: str
    version: int

    @property
    def servers(self) -> int:
        """How many may answer, in turn."""
        return max(1, [*PLACEMENTS[self.placement].values()].count(READY))


class Asked(NamedTuple):
    address: str
    port: int


def number(policy: str, placement: str) -> int:
    return SERVICES.index((policy, placement))


def entry_node(cell: Cell) -> str:
    """Where a cell's address is translated: what is not a node's own, at the client's."""
    if cell.place in NODES:
        return cell.place
    return NODES[0] if cell.client == "outside" else PODS.get(cell.client, cell.client)


def client_at(cell: Cell, entry: str) -> str:
    """As whom it comes there: a node is itself, a pod leaves its own with the node's address."""
    own = PODS.get(cell.client, cell.client)
    if cell.client in NODES or (cell.client in PODS and own != entry):
        return own
    return "the client"


def asked(cell: Cell, nodes: Mapping[str, Mapping[int, str]]) -> Asked:
    """nodes: their addresses by name and version."""
    at, version = number(cell.policy, cell.placement), cell.version
    digits = f"{at + 1:x}" if version == 6 else str(at + 1)
    if cell.place in NODES:
        return Asked(nodes[cell.place][version], FIRST_NODE_PORT + at)
    patterns = {"balancer": BALANCERS, "external": EXTERNALS}.get(cell.place, VIPS)
    port = UNSERVED_PORT if cell.place == "unserved" else SERVICE_PORT
    return Asked(patterns[version].format(digits), port)


def cells() -> Iterator[Cell]:
    for client, (policy, placement), protocol, version in product(
        CLIENTS, SERVICES, ("tcp", "udp"), (4, 6)
    ):
        for place in ("cluster-ip", *NODES, "balancer", "external"):
            yield Cell(client, place, policy, placement, protocol, version)
    for client, placement, protocol, version in product(
        CLIENTS, ("here", "unready"), ("tcp", "udp"), (4, 6)
    ):
        yield Cell(client, "unserved", "cluster", placement, protocol, version)


def objects(addresses: Mapping[str, Mapping[int, str]]) -> Iterator[Manifest]:
    """Every Service with its slices. addresses: of servers, by name and version."""
    yield service_range()
    for policy, placement in SERVICES:
        yield service(policy, placement)
        for version in (4, 6):
            yield slice_of(f"{policy}-{placement}", PLACEMENTS[placement], addresses, version)


@dataclass(frozen=True, slots=True)
class Sentinel:
    """A Service that is published last: where it is served, so is all that was before it."""

    number: int

    def address(self, version: int) -> str:
        digits = str(self.number) if version == 4 else f"{self.number:x}"
        return {4: "10.96.2.{}", 6: "fd00:96::2:{}"}[version].format(digits)

    def objects(self, addresses: Mapping[str, Mapping[int, str]]) -> Iterator[Manifest]:
        name = f"sentinel-{self.number}"
        vips = [self.address(version) for version in (4, 6)]
        yield manifests.service(name, "default", vips, ports(SERVICE_PORT))
        for version in (4, 6):
            yield slice_of(name, {"here": READY}, addresses, version)


def service_range() -> Manifest:
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "ServiceCIDR",
        "metadata": {"name": "kubernetes"},
        "spec": {"cidrs": list(RANGES.values())},
    }


def service(policy: str, placement: str) -> Manifest:
    at = number(policy, placement)
    four, six = str(at + 1), f"{at + 1:x}"
    vips = VIPS[4].format(four), VIPS[6].format(six)
    manifest = dict(
        manifests.service(f"{policy}-{placement}", "default", vips, ports(SERVICE_PORT))
    )
    exposed: dict[str, Any] = {
        "type": "LoadBalancer",
        "externalIPs": [EXTERNALS[4].format(four), EXTERNALS[6].format(six)],
        "ports": [{**port, "nodePort": FIRST_NODE_PORT + at} for port in manifest["spec"]["ports"]],
        **POLICIES[policy],
    }
    if "externalTrafficPolicy" in exposed:
        exposed["healthCheckNodePort"] = FIRST_HEALTH_PORT + at
    ingress = [{"ip": BALANCERS[4].format(four)}, {"ip": BALANCERS[6].format(six)}]
    manifest["spec"] = manifest["spec"] | exposed
    return manifest | {"status": {"loadBalancer": {"ingress": ingress}}}


def slice_of(
    service: str,
    endpoints: Mapping[str, Mapping[str, bool]],
    addresses: Mapping[str, Mapping[int, str]],
    version: int,
) -> Manifest:
    words = (f"{service}-{version}", "default", service, (), ports(PORT), version)
    listed = [
        {
            "addresses": [addresses[server][version]],
            "nodeName": PODS.get(server, server),
            "conditions": dict(conditions),
        }
        for server, conditions in endpoints.items()
    ]
    return {**manifests.endpoint_slice(*words), "endpoints": listed}


def ports(number: int) -> list[tuple[str, str, int]]:
    return [("tcp", "TCP", number), ("udp", "UDP", number)]
