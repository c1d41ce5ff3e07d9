"""Owns the ways of the path benches that go through Weft: a lab for each mode, every path in it.

The pods that receive are isolated by a policy that lets the senders in.
"""

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from ipaddress import ip_interface

from deploy.netlab import Lab, LabNode, Pod, manifests
from tests.bench import peers
from tests.bench.way import TCP_PORT, UDP_PORT, Way, in_family

VIPS = {"here": "10.96.1.1", "there": "10.96.1.2"}
ONE_NODE = {peers.BARE: "<= 1.10 x", peers.FORWARDING: "<= 0.92 x"}
TUNNEL, DIRECT = {peers.VXLAN: "<= 1.0 x"}, {peers.ROUTED: ""}
OUTSIDE = {peers.MASQUERADE: ""}


@dataclass(frozen=True, slots=True)
class Stage:
    """A client and a server on the first node, a server on the second, a VIP for each server."""

    lab: Lab
    client: Pod
    here: Pod
    there: Pod

    @property
    def east(self) -> LabNode:
        return self.lab.nodes[0]

    def from_pod(self, name: str, to: str, receiver: str, against: Mapping[str, str]) -> Way:
        return self._way(f"pod to {name}", tuple(self.client.command()), to, receiver, against)

    def from_node(self, name: str, to: Pod, against: Mapping[str, str]) -> Way:
        enter = tuple(self.east.command())
        return self._way(f"node to {name}", enter, str(to.address(4)), to.namespace, against)

    def to_pod(self, name: str, to: Pod, against: Mapping[str, str], version: int = 4) -> Way:
        """Towards a pod, in either family, against the peers' ways in that family."""
        peers_of = {in_family(peer, version): goal for peer, goal in against.items()}
        address, name = str(to.address(version)), in_family(name, version)
        return self.from_pod(name, address, to.namespace, peers_of)

    def to_outside(self, version: int) -> Way:
        against = {in_family(peer, version): goal for peer, goal in OUTSIDE.items()}
        address = next(a for a in self.lab.outside if (":" in a) == (version == 6))
        return self.from_pod(in_family("outside", version), address, self.lab.switch, against)

    def to_vip(self, side: str, name: str, to: Pod, against: Mapping[str, str]) -> Way:
        return self.from_pod(f"VIP, {name}", VIPS[side], to.namespace, against)

    def _way(
        self, name: str, enter: tuple[str, ...], to: str, receiver: str, against: Mapping[str, str]
    ) -> Way:
        nodes = tuple(self.lab.nodes)
        return Way(f"{self.lab.mode}: {name}", enter, to, receiver, against, nodes)


def all_ours(undo: ExitStack, prefix: str) -> list[Way]:
    vxlan, direct, bridge = (stage(undo, prefix, mode) for mode in ("vxlan", "direct", "bridge"))
    return [*over_tunnel(vxlan), *straight(direct), *on_bridge(bridge)]


def over_tunnel(at: Stage) -> list[Way]:
    """And all that is alike in every mode."""
    own = str(ip_interface(at.east.underlay[0]).ip)
    vip = {peers.DNAT: "", peers.FORWARDING: ""}
    return [
        *(at.to_pod("pod here", at.here, ONE_NODE, version) for version in (4, 6)),
        *(at.to_pod("pod there", at.there, TUNNEL, version) for version in (4, 6)),
        at.to_vip("here", "pod here", at.here, vip),
        at.to_vip("there", "pod there", at.there, {peers.VXLAN: ""}),
        at.from_pod("own node", own, at.east.namespace, {peers.BARE: ""}),
        *(at.to_outside(version) for version in (4, 6)),
        at.from_node("pod here", at.here, {peers.BARE: ""}),
        at.from_node("pod there", at.there, {peers.VXLAN_NODE: ""}),
    ]


def straight(at: Stage) -> list[Way]:
    return [
        *(at.to_pod("pod there", at.there, DIRECT, version) for version in (4, 6)),
        at.to_vip("there", "pod there", at.there, DIRECT),
        at.from_node("pod there", at.there, {peers.ROUTED_NODE: ""}),
    ]


def on_bridge(at: Stage) -> list[Way]:
    own = str(ip_interface(at.east.underlay[0]).ip)
    return [
        at.to_pod("pod here", at.here, {peers.BRIDGE: "", peers.BARE: ""}),
        at.to_pod("pod there", at.there, TUNNEL),
        at.from_pod("own node", own, at.east.namespace, {peers.TO_BRIDGE: ""}),
        at.from_node("pod here", at.here, {peers.FROM_BRIDGE: ""}),
    ]


def stage(undo: ExitStack, prefix: str, mode: str) -> Stage:
    lab = undo.enter_context(Lab(f"{prefix}{mode[0]}", mode=mode))
    for name in ("east", "west"):
        lab.add_node(name)
    for node in lab.nodes:
        node.start()
    east, west = lab.nodes
    made = Stage(lab, east.add_pod("client"), east.add_pod("here"), west.add_pod("there"))
    lab.manifests.put(let_in())
    for pod in (made.here, made.there):
        publish(lab, pod)
    return made


def publish(lab: Lab, pod: Pod) -> None:
    ports = [("tcp", "TCP", TCP_PORT), ("udp", "UDP", UDP_PORT)]
    lab.manifests.put(
        manifests.service(pod.name, "default", [VIPS[pod.name]], ports),
        manifests.endpoint_slice(pod.name, "default", pod.name, list(pod.addresses), ports),
    )


def let_in() -> manifests.Manifest:
    """Pods, and nodes by the addresses that they come with."""
    networks = ("10.244.0.0/16", "172.30.0.0/24")
    blocks = [{"ipBlock": {"cidr": network}} for network in networks]
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": "bench", "namespace": "default"},
        "spec": {
            "podSelector": {},
            "policyTypes": ["Ingress"],
            "ingress": [{"from": [{"podSelector": {}}, *blocks]}],
        },
    }
