"""Owns the ways of the path benches that go through Weft: a lab for each mode, and every path of
the table of paths (tests/netns/paths.py) in it that costs something of its own.

The pods that receive are isolated by a policy that lets the senders in.
"""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from ipaddress import ip_address, ip_interface, ip_network

from deploy.netlab import Lab, LabNode, Pod, manifests
from deploy.netlab.shell import run
from tests.bench import peers
from tests.bench.way import TCP_PORT, UDP_PORT, Way, in_family, inside

VIPS = {
    "pod here": ("10.96.1.1", "fd00:10:96::1:1"),
    "pod there": ("10.96.1.2", "fd00:10:96::1:2"),
    "own node": ("10.96.1.3", "fd00:10:96::1:3"),
    "other node": ("10.96.1.4", "fd00:10:96::1:4"),
}
# UDP, TCP.
NODE_PORTS = {"pod here": (30_001, 30_002), "pod there": (30_003, 30_004)}
Against = Mapping[str, str]
ONE_NODE = {peers.BARE: "<= 1.10 x", peers.FORWARDING: "<= 0.92 x"}
BY_BRIDGE = {peers.BRIDGE: "", peers.BARE: ""}
TUNNEL = {peers.VXLAN: "<= 1.0 x", peers.BARE: ""}
OVER_IPV6 = {peers.VXLAN_OVER_IPV6: "<= 1.0 x", peers.BARE: ""}
DIRECT = {peers.ROUTED: "", peers.VXLAN: "", peers.BARE: ""}
LEAVES = {peers.MASQUERADE: "", peers.FORWARDING: ""}
VIP_HERE = {peers.DNAT: "", peers.FORWARDING: "", peers.BARE: ""}
VIP_ON_BRIDGE = {peers.DNAT: "", peers.BRIDGE: ""}
VIP_IN, VIP_IN_TUNNEL = {peers.IN_DNAT: "", peers.IN: ""}, {peers.IN_DNAT_VXLAN: ""}
VIP_IN_MASKED = {peers.IN_MASKED: ""}
BARE, VXLAN_NODE, ROUTED_NODE = {peers.BARE: ""}, {peers.VXLAN_NODE: ""}, {peers.ROUTED_NODE: ""}
TO_BRIDGE, FROM_BRIDGE = {peers.TO_BRIDGE: ""}, {peers.FROM_BRIDGE: ""}
BETWEEN_NODES, TO_OUTSIDE = {peers.BETWEEN_NODES: ""}, {peers.TO_OUTSIDE: ""}
IN, FROM_OUTSIDE = {peers.IN: ""}, {peers.FROM_OUTSIDE: ""}


@dataclass(frozen=True, slots=True)
class Stage:
    """A client and a server on the first node, a server on the second, a VIP for each kind of
    endpoint. Every path in both families."""

    lab: Lab
    client: Pod
    here: Pod
    there: Pod

    @property
    def east(self) -> LabNode:
        return self.lab.nodes[0]

    @property
    def places(self) -> Mapping[str, tuple[str, tuple[str, ...]]]:
        """Who receives: the namespace and its addresses."""
        east, west = self.lab.nodes
        return {
            "pod here": (self.here.namespace, texts(self.here)),
            "pod there": (self.there.namespace, texts(self.there)),
            "own node": (east.namespace, hosts(east)),
            "other node": (west.namespace, hosts(west)),
            "outside": (self.lab.switch, self.lab.outside),
        }

    def ways(self, source: str, to: str, against: Against) -> Iterator[Way]:
        receiver, addresses = self.places[to]
        for address in addresses:
            yield self._way(f"{source} to {to}", source, address, receiver, against)

    def vips(self, source: str, to: str, against: Against) -> Iterator[Way]:
        for address in VIPS[to]:
            name, receiver = f"{source} to VIP, {to}", self.places[to][0]
            yield self._way(name, source, address, receiver, against)

    def node_ports(self, source: str, to: str, against: Against) -> Iterator[Way]:
        for address in hosts(self.east):
            name, receiver = f"{source} to node port, {to}", self.places[to][0]
            yield self._way(name, source, address, receiver, against, NODE_PORTS[to])

    def _way(
        self, name: str, source: str, address: str, receiver: str, against: Against,
        ports: tuple[int, int] = (UDP_PORT, TCP_PORT),
    ) -> Way:  # fmt: skip
        version, nodes = ip_address(address).version, tuple(self.lab.nodes)
        enter = {
            "pod": tuple(self.client.command()),
            "node": tuple(self.east.command()),
            "outside": inside(self.lab.switch),
        }[source]
        peers_of = {in_family(peer, version): goal for peer, goal in against.items()}
        name = in_family(f"{self.lab.mode}: {name}", version)
        return Way(name, enter, address, receiver, peers_of, nodes, ports)


def texts(pod: Pod) -> tuple[str, ...]:
    return tuple(str(address) for address in pod.addresses)


def hosts(node: LabNode) -> tuple[str, ...]:
    return tuple(str(ip_interface(text).ip) for text in node.underlay)


def all_ours(undo: ExitStack, prefix: str) -> list[Way]:
    vxlan, direct, bridge = (stage(undo, prefix, mode) for mode in ("vxlan", "direct", "bridge"))
    over_ipv6 = stage(undo, f"{prefix}6", "vxlan", underlay=(6,))
    return [
        *from_pods(vxlan),
        *from_node(vxlan),
        *from_outside(vxlan),
        *straight(direct),
        *on_bridge(bridge),
        *renamed(over_ipv6.ways("pod", "pod there", OVER_IPV6)),
    ]


def from_pods(at: Stage) -> Iterator[Way]:
    """And all of these three is alike in every mode, but for what goes to another node."""
    yield from at.ways("pod", "pod here", ONE_NODE)
    yield from at.ways("pod", "pod there", TUNNEL)
    yield from at.vips("pod", "pod here", VIP_HERE)
    yield from at.vips("pod", "pod there", TUNNEL)
    yield from at.vips("pod", "own node", BARE)
    yield from at.vips("pod", "other node", LEAVES)
    yield from at.node_ports("pod", "pod here", VIP_HERE)
    yield from at.node_ports("pod", "pod there", TUNNEL)
    yield from at.ways("pod", "own node", BARE)
    yield from at.ways("pod", "other node", LEAVES)
    yield from at.ways("pod", "outside", LEAVES)


def from_node(at: Stage) -> Iterator[Way]:
    """To other nodes and the outside nothing is done: what it costs to find that out."""
    yield from at.ways("node", "pod here", BARE)
    yield from at.ways("node", "pod there", VXLAN_NODE)
    yield from at.vips("node", "pod here", BARE)
    yield from at.vips("node", "pod there", VXLAN_NODE)
    yield from at.ways("node", "other node", BETWEEN_NODES)
    yield from at.ways("node", "outside", TO_OUTSIDE)


def from_outside(at: Stage) -> Iterator[Way]:
    yield from at.ways("outside", "pod here", IN)
    yield from at.ways("outside", "own node", FROM_OUTSIDE)
    yield from at.vips("outside", "pod here", VIP_IN)
    yield from at.vips("outside", "pod there", VIP_IN_TUNNEL)
    yield from at.vips("outside", "own node", FROM_OUTSIDE)
    yield from at.node_ports("outside", "pod here", VIP_IN)
    yield from at.node_ports("outside", "pod there", VIP_IN_TUNNEL)


def straight(at: Stage) -> Iterator[Way]:
    yield from at.ways("pod", "pod there", DIRECT)
    yield from at.vips("pod", "pod there", DIRECT)
    yield from at.ways("node", "pod there", ROUTED_NODE)
    yield from at.vips("outside", "pod there", VIP_IN_MASKED)


def on_bridge(at: Stage) -> Iterator[Way]:
    yield from at.ways("pod", "pod here", BY_BRIDGE)
    yield from at.ways("pod", "pod there", TUNNEL)
    yield from at.vips("pod", "pod here", VIP_ON_BRIDGE)
    yield from at.vips("pod", "pod there", TUNNEL)
    yield from at.ways("pod", "own node", TO_BRIDGE)
    yield from at.ways("node", "pod here", FROM_BRIDGE)
    yield from at.vips("outside", "pod here", VIP_IN)


def renamed(ways: Iterator[Way]) -> Iterator[Way]:
    for way in ways:
        yield replace(way, name=way.name.replace(":", " over IPv6:", 1))


# --- The lab --------------------------------------------------------------------------------------
def stage(undo: ExitStack, prefix: str, mode: str, *, underlay: tuple[int, ...] = (4, 6)) -> Stage:
    """underlay: IP versions of the nodes' own addresses."""
    lab = undo.enter_context(Lab(f"{prefix}{mode[0]}", mode=mode))
    for name in ("east", "west"):
        lab.add_node(name, families=underlay)
    for node in lab.nodes:
        node.start()
    east, west = lab.nodes
    made = Stage(lab, east.add_pod("client"), east.add_pod("here"), west.add_pod("there"))
    lab.manifests.put(let_in())
    for number, place in enumerate(VIPS):
        publish(made, f"vip-{number}", place)
    lead_here(lab, hosts(east))
    return made


def lead_here(lab: Lab, via: tuple[str, ...]) -> None:
    """The outside's routes to VIPs and the first node's pods."""
    networks = ("10.96.1.0/24", "fd00:10:96::1:0/112", *lab.nodes[0].pod_cidrs)
    for network in networks:
        for router in via:
            if ip_address(router).version == ip_network(network).version:
                run("ip", "-n", lab.switch, "route", "add", network, "via", router)


def publish(at: Stage, name: str, place: str) -> None:
    ports = [("udp", "UDP", UDP_PORT), ("tcp", "TCP", TCP_PORT)]
    service = dict(manifests.service(name, "default", VIPS[place], ports))
    if place in NODE_PORTS:
        listed = zip(service["spec"]["ports"], NODE_PORTS[place], strict=True)
        service["spec"] = {
            **service["spec"], "type": "NodePort",
            "ports": [{**one, "nodePort": number} for one, number in listed],
        }  # fmt: skip
    at.lab.manifests.put(service)
    addresses = [ip_address(text) for text in at.places[place][1]]
    for version in (4, 6):
        words = (f"{name}-{version}", "default", name, addresses, ports, version)
        at.lab.manifests.put(manifests.endpoint_slice(*words))


def let_in() -> manifests.Manifest:
    """Pods, and nodes and the outside by the addresses that they come with."""
    networks = ("10.244.0.0/16", "172.30.0.0/24", "fd00:10:244::/48", "fd00:30::/64")
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
