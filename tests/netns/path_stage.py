"""Owns what the table of paths is walked in: a lab of each kind, its actors, its Services and the
policies that deny; never what a walk must show.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from functools import partial
from ipaddress import ip_address, ip_interface, ip_network

from deploy.netlab import Lab, LabNode, Pod, manifests
from deploy.netlab.shell import wait_for
from tests.netns.ask import Answer, Asker, Host, ask
from tests.netns.conftest import lab_name
from tests.netns.outside import serve
from tests.netns.paths import CELLS, NODE_PORTS, Cell, Reach, Seen, Side
from weft.cli.client import daemon, items
from weft.proxy.api import weft_pb2 as pb
from weft.proxy.api.weft_pb2_grpc import WeftStub

PORT = 8080
VIPS = {
    Side.VIP_HERE: {4: "10.96.1.1", 6: "fd00:10:96::1:1"},
    Side.VIP_THERE: {4: "10.96.1.2", 6: "fd00:10:96::1:2"},
    Side.VIP_NODE: {4: "10.96.1.4", 6: "fd00:10:96::1:4"},
    Side.VIP_OTHER_NODE: {4: "10.96.1.5", 6: "fd00:10:96::1:5"},
    Side.ITSELF: {4: "10.96.1.6", 6: "fd00:10:96::1:6"},
}
NOBODY = {4: "10.96.1.3", 6: "fd00:10:96::1:3"}
VIP_PORT = 80
NODE_PORT_OF = {side: 30_080 + number for number, side in enumerate(NODE_PORTS.values())}


@dataclass(frozen=True, slots=True)
class Kind:
    """One lab: two nodes, "here" first. reach: of the pods of each for the other; far: a router is
    between them."""

    name: str
    mode: str
    reach: Reach
    families: tuple[int, ...] = (4, 6)
    far: bool = False
    overlay: bool = True

    def __str__(self) -> str:
        return self.name

    def cells(self) -> list[Cell]:
        overlay = Reach.OVERLAY if self.overlay else Reach.NO_OVERLAY
        return [cell for cell in CELLS if cell.reach in (Reach.ANY, self.reach, overlay)]


class Denied(StrEnum):
    """What a policy of this name keeps from every pod. STRANGERS: ingress of all but nodes."""

    NOTHING = "nothing"
    EGRESS = "egress"
    INGRESS = "ingress"
    STRANGERS = "strangers"


@dataclass(slots=True)
class Stage:
    """The lab's actors: a client and a server pod on east, both on west too, a Service for each
    kind of endpoint, a host-network pod as server on each node, a server outside.
    """

    kind: Kind
    lab: Lab
    client: Pod
    here: Pod
    there: Pod
    far_client: Pod
    askers: Mapping[Side, Asker]
    daemons: tuple[WeftStub, ...]
    denied: Denied = field(default=Denied.NOTHING)

    @property
    def east(self) -> LabNode:
        return self.lab.nodes[0]

    @property
    def west(self) -> LabNode:
        return self.lab.nodes[1]

    def target(self, side: Side, version: int) -> tuple[str, int]:
        """Address and port that a target side stands for."""
        if side in VIPS:
            return VIPS[side][version], VIP_PORT
        if side in NODE_PORT_OF:
            return underlay(self.east, version), NODE_PORT_OF[side]
        own: dict[Side, Callable[[], str]] = {
            Side.POD_HERE: lambda: str(self.here.address(version)),
            Side.POD_THERE: lambda: str(self.there.address(version)),
            Side.NODE: lambda: underlay(self.east, version),
            Side.OTHER_NODE: lambda: underlay(self.west, version),
            Side.OUTSIDE: lambda: outside(self.lab, version),
        }
        return own[side](), PORT

    def answer(self, cell: Cell, version: int) -> Answer:
        """Who answers, whom it saw as the table says, and that the client was answered by whom it
        dialled."""
        address, _ = self.target(cell.target, version)
        return Answer(SERVERS[cell.target], self.seen(cell, version), address)

    def seen(self, cell: Cell, version: int) -> str:
        node = self.east if cell.source in (Side.POD, Side.NODE) else self.west
        own: dict[Seen, Callable[[], str]] = {
            Seen.SENDER: lambda: self._own(cell.source, version),
            Seen.NODE: lambda: underlay(node, version),
            Seen.GATEWAY: lambda: gateway(node, version),
            Seen.ENTRY: lambda: underlay(self.east, version),
            Seen.ENTRY_GATEWAY: lambda: gateway(self.east, version),
        }
        return own[cell.seen]()

    def _own(self, source: Side, version: int) -> str:
        own: dict[Side, Callable[[], str]] = {
            Side.POD: lambda: str(self.client.address(version)),
            Side.POD_OVER_THERE: lambda: str(self.far_client.address(version)),
            Side.NODE: lambda: underlay(self.east, version),
            Side.OTHER_NODE: lambda: underlay(self.west, version),
            Side.OUTSIDE: lambda: outside(self.lab, version),
        }
        return own[source]()

    def deny(self, what: Denied) -> None:
        """Have this denied and nothing else, by the time it returns."""
        if what is self.denied:
            return
        if self.denied is not Denied.NOTHING:
            self.lab.manifests.remove("NetworkPolicy", self.denied, "default")
        if what is not Denied.NOTHING:
            self.lab.manifests.put(denying(what, self.lab.nodes))
        self.denied = what
        for one in self.daemons:
            wait_for(f"{what} denied", partial(is_denied, one, what))


SERVERS = {
    Side.POD_HERE: "here", Side.VIP_HERE: "here", Side.PORT_HERE: "here",
    Side.POD_THERE: "there", Side.VIP_THERE: "there", Side.PORT_THERE: "there",
    Side.NODE: "east", Side.VIP_NODE: "east", Side.PORT_NODE: "east",
    Side.OTHER_NODE: "west", Side.VIP_OTHER_NODE: "west", Side.PORT_OTHER_NODE: "west",
    Side.ITSELF: "client", Side.OUTSIDE: "outside",
}  # fmt: skip


def underlay(node: LabNode, version: int) -> str:
    return str(ip_interface(_of_family(node.underlay, version)).ip)


def gateway(node: LabNode, version: int) -> str:
    return str(ip_network(_of_family(node.pod_cidrs, version))[1])


def outside(lab: Lab, version: int) -> str:
    return _of_family(lab.outside, version)


def _of_family(texts: Iterable[str], version: int) -> str:
    return next(text for text in texts if (":" in text) == (version == 6))


# --- The lab --------------------------------------------------------------------------------------
@contextmanager
def staged(kind: Kind) -> Iterator[Stage]:
    """A lab of two started nodes, its Services in force."""
    with ExitStack() as stack:
        lab = stack.enter_context(Lab(lab_name(), mode=kind.mode, families=kind.families))
        for name in ("east", "west"):
            node = lab.add_node(name, far=kind.far and name == "west")
            node.flags = ("--overlay", str(kind.overlay).lower())
            node.start()
        lead_here(lab, kind)
        yield act(stack, kind, lab)


def lead_here(lab: Lab, kind: Kind) -> None:
    """Routes of those who send by way of this node: outside to pods and Services, the other node to
    Services. Where the network between the nodes routes podCIDRs, it does that too."""
    east, west = lab.nodes
    switch = Host(lab.switch, lab.cgroup)
    lengths = {4: 24, 6: 112}
    services = [ip_network((NOBODY[v], lengths[v]), strict=False) for v in lab.families]
    far_by = west if kind.reach is Reach.ROUTED else east
    for network in services:
        via = underlay(east, network.version)
        route(switch, str(network), via)
        if not kind.far:
            route(Host(west.namespace, lab.cgroup), str(network), via)
    for node, by in ((east, east), (west, far_by)):
        for cidr in node.pod_cidrs:
            route(switch, cidr, underlay(by, ip_network(cidr).version))


def route(host: Host, network: str, via: str) -> None:
    host.run("ip", "route", "replace", network, "via", via)


def act(stack: ExitStack, kind: Kind, lab: Lab) -> Stage:
    """Pods, servers and clients of a lab that runs."""
    east, west = lab.nodes
    client, here = east.add_pod("client"), east.add_pod("here")
    there, far_client = west.add_pod("there"), west.add_pod("far-client")
    for node, pod in ((east, client), (east, here), (west, there)):
        node.serve(pod, PORT)
    for node in lab.nodes:
        serve(lab, stack, node.add_host_pod(node.name).namespace, node.name, PORT)
    serve(lab, stack, lab.switch, "outside", PORT)
    sources: dict[Side, Pod | LabNode | Host] = {
        Side.POD: client,
        Side.POD_OVER_THERE: far_client,
        Side.NODE: east,
        # Outside of its node's cgroup, so that what it sends to a VIP no socket hook translates.
        Side.OTHER_NODE: Host(west.namespace, lab.cgroup),
        Side.OUTSIDE: Host(lab.switch, lab.cgroup),
    }
    askers = {side: asking(stack, who) for side, who in sources.items()}
    wefts = tuple(stack.enter_context(daemon(str(node.api_socket))) for node in lab.nodes)
    stage = Stage(kind, lab, client, here, there, far_client, askers, wefts)
    publish(stage)
    return stage


def asking(stack: ExitStack, who: Pod | LabNode | Host) -> Asker:
    asker = Asker(who)
    stack.callback(asker.close)
    return asker


# --- Services -------------------------------------------------------------------------------------
def publish(stage: Stage) -> None:
    families = stage.lab.families
    endpoints: dict[Side, list[str]] = {
        Side.VIP_HERE: [str(a) for a in stage.here.addresses],
        Side.VIP_THERE: [str(a) for a in stage.there.addresses],
        Side.VIP_NODE: [underlay(stage.east, version) for version in families],
        Side.VIP_OTHER_NODE: [underlay(stage.west, version) for version in families],
        Side.ITSELF: [str(a) for a in stage.client.addresses],
    }
    for number, (side, addresses) in enumerate(endpoints.items()):
        node_port = NODE_PORT_OF.get(NODE_PORTS.get(side, side), 0)
        put_service(stage.lab, f"service-{number}", VIPS[side], addresses, node_port)
    put_service(stage.lab, "nobody", NOBODY, [])
    vip = VIPS[Side.ITSELF][families[-1]]
    wait_for("the services", lambda: ask(stage.client, vip, VIP_PORT, udp=True) is not None)


def put_service(
    lab: Lab, name: str, vips: dict[int, str], addresses: list[str], node_port: int = 0
) -> None:
    """node_port: 0 for a Service without."""
    ports = [("tcp", "TCP", VIP_PORT), ("udp", "UDP", VIP_PORT)]
    targets = [("tcp", "TCP", PORT), ("udp", "UDP", PORT)]
    service = dict(
        manifests.service(name, "default", [vips[version] for version in lab.families], ports)
    )
    if node_port:
        listed = [{**one, "nodePort": node_port} for one in service["spec"]["ports"]]
        service["spec"] = {**service["spec"], "type": "NodePort", "ports": listed}
    lab.manifests.put(service)
    for version in lab.families if addresses else ():
        found = [ip_address(a) for a in addresses]
        words = (f"{name}-{version}", "default", name, found, targets, version)
        lab.manifests.put(manifests.endpoint_slice(*words))


# --- Policies -------------------------------------------------------------------------------------
def is_denied(weft: WeftStub, what: Denied) -> bool:
    """Whether that policy alone judges every pod of a node, as its kernel has it."""
    pods = items(weft.ListWorkloads(pb.ListRequest()))
    judges = {(*pod.ingress.policies, *pod.egress.policies) for pod in pods}
    return judges == {() if what is Denied.NOTHING else (f"default/{what}",)}


def denying(what: Denied, nodes: Iterable[LabNode]) -> manifests.Manifest:
    hosts = [ip_interface(text).ip for node in nodes for text in node.underlay]
    blocks = [{"ipBlock": {"cidr": f"{host}/{host.max_prefixlen}"}} for host in hosts]
    spec: dict[str, object] = {"podSelector": {}, "policyTypes": [what.value.capitalize()]}
    if what is Denied.STRANGERS:
        spec |= {"policyTypes": ["Ingress"], "ingress": [{"from": blocks}]}
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": what.value, "namespace": "default"},
        "spec": spec,
    }
