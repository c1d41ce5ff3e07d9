"""Every cell of the table of paths, walked over TCP and UDP in every mode and family: who answers,
whom it saw, and what both nodes' programs counted.
"""

import sys
from collections.abc import Callable, Iterator, Mapping, Set
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from ipaddress import ip_address, ip_interface, ip_network
from subprocess import DEVNULL, Popen

import pytest

from deploy.netlab import Lab, LabNode, Pod, manifests
from deploy.netlab.node import ANSWER
from deploy.netlab.shell import in_namespace, stop, wait_for
from tests.netns.ask import Answer, Asker, Host, ask, error_of
from tests.netns.conftest import lab_name
from tests.netns.paths import CELLS, Cell, Reach, Seen, Side
from weft.cli.client import daemon
from weft.proxy.api import weft_pb2 as pb

PORT = 8080
VIPS = {
    Side.VIP_HERE: {4: "10.96.1.1", 6: "fd00:10:96::1:1"},
    Side.VIP_THERE: {4: "10.96.1.2", 6: "fd00:10:96::1:2"},
    Side.VIP_NODE: {4: "10.96.1.4", 6: "fd00:10:96::1:4"},
    Side.VIP_OTHER_NODE: {4: "10.96.1.5", 6: "fd00:10:96::1:5"},
}
NOBODY = {4: "10.96.1.3", 6: "fd00:10:96::1:3"}
VIP_PORT = 80
REACHES = {
    "vxlan": {Reach.ANY, Reach.TUNNEL, Reach.OVERLAY},
    "bridge": {Reach.ANY, Reach.TUNNEL, Reach.OVERLAY},
    "direct": {Reach.ANY, Reach.DIRECT, Reach.NO_OVERLAY},
    "auto": {Reach.ANY, Reach.DIRECT, Reach.OVERLAY},
}
FAMILIES = {"dual": (4, 6), "ipv4-only": (4,), "ipv6-only": (6,)}
# The programs that a flow between pods and nodes meets; uplinks see the lab's other traffic too.
# Neighbours' and routers' discovery counts beside a flow now and then.
WATCHED = ("from_pod", "to_pod", "from_overlay", "to_overlay")


# (mode, families) of a lab, and the version and cell that are walked in it.
CASES = [
    ((mode, name), version, cell)
    for mode in REACHES
    for name, families in FAMILIES.items()
    for version in families
    for cell in CELLS
    if cell.reach in REACHES[mode]
]


@dataclass(frozen=True, slots=True)
class Stage:
    """The lab's actors: a client and a server pod on east, both on west too, a VIP for each kind
    of endpoint, a server on each node and outside.
    """

    lab: Lab
    client: Pod
    here: Pod
    there: Pod
    far_client: Pod
    askers: Mapping[Side, Asker]

    @property
    def east(self) -> LabNode:
        return self.lab.nodes[0]

    def target(self, side: Side, version: int) -> tuple[str, int, str]:
        """Address, port and name of the server that a target side stands for."""
        east, west = self.lab.nodes
        if side in VIPS:
            server = {
                Side.VIP_HERE: "here",
                Side.VIP_THERE: "there",
                Side.VIP_NODE: "east",
                Side.VIP_OTHER_NODE: "west",
            }
            return VIPS[side][version], VIP_PORT, server[side]
        own: dict[Side, Callable[[], tuple[str, int, str]]] = {
            Side.POD_HERE: lambda: (str(self.here.address(version)), PORT, "here"),
            Side.POD_THERE: lambda: (str(self.there.address(version)), PORT, "there"),
            Side.NODE: lambda: (underlay(east, version), PORT, "east"),
            Side.OTHER_NODE: lambda: (underlay(west, version), PORT, "west"),
            Side.OUTSIDE: lambda: (outside(self.lab, version), PORT, "outside"),
        }
        return own[side]()

    def seen(self, cell: Cell, version: int) -> str:
        """The source address that the table names."""
        if cell.seen is Seen.ENTRY:
            return underlay(self.east, version)
        if cell.source is Side.OUTSIDE:
            return outside(self.lab, version)
        far = cell.source in (Side.POD_OVER_THERE, Side.OTHER_NODE)
        node, pod = self.lab.nodes[far], self.far_client if far else self.client
        if cell.seen is Seen.GATEWAY:
            return gateway(node, version)
        is_pod = cell.source in (Side.POD, Side.POD_OVER_THERE)
        return (
            str(pod.address(version))
            if is_pod and cell.seen is Seen.SENDER
            else underlay(node, version)
        )


def _of_family(texts: tuple[str, ...], version: int) -> str:
    return next(text for text in texts if (":" in text) == (version == 6))


def underlay(node: LabNode, version: int) -> str:
    return str(ip_interface(_of_family(node.underlay, version)).ip)


def gateway(node: LabNode, version: int) -> str:
    return str(ip_network(_of_family(node.pod_cidrs, version))[1])


def outside(lab: Lab, version: int) -> str:
    return _of_family(lab.outside, version)


Opened = Callable[[str, str], Stage]


@pytest.fixture(scope="module")
def opened() -> Iterator[Opened]:
    """Every lab that a test asked for, until the last test: what walks in one is not in order."""
    with ExitStack() as stack:
        found: dict[tuple[str, str], Stage] = {}

        def open_stage(mode: str, families: str) -> Stage:
            if (mode, families) not in found:
                lab = stack.enter_context(started(mode, FAMILIES[families]))
                found[mode, families] = stack.enter_context(staged(lab))
            return found[mode, families]

        yield open_stage


@contextmanager
def started(mode: str, families: tuple[int, ...]) -> Iterator[Lab]:
    """Two started nodes."""
    with Lab(lab_name(), mode=mode, families=families) as made:
        for name in ("east", "west"):
            made.add_node(name)
        for node in made.nodes:
            node.start()
        yield made


@pytest.fixture
def stage(opened: Opened, request: pytest.FixtureRequest) -> Stage:
    return opened(*request.param)


@pytest.fixture
def lab(stage: Stage) -> Lab:
    return stage.lab


@contextmanager
def staged(lab: Lab) -> Iterator[Stage]:
    """Pods and servers of a lab, its services in force."""
    east, west = lab.nodes
    pods = east.add_pod("client"), east.add_pod("here"), west.add_pod("there")
    east.serve(pods[1], PORT)
    west.serve(pods[2], PORT)
    lengths = {4: 24, 6: 112}
    services = [ip_network((NOBODY[v], lengths[v]), strict=False) for v in lab.families]
    for cidr in (*map(ip_network, east.pod_cidrs), *services):
        via = underlay(east, cidr.version)
        Host(lab.switch, lab.cgroup).run("ip", "route", "replace", str(cidr), "via", via)
    hosts = [host_server(lab, n.namespace, n.name) for n in lab.nodes]
    hosts.append(host_server(lab, lab.switch, "outside"))
    far_client = west.add_pod("far-client")
    sources: dict[Side, Pod | LabNode | Host] = {
        Side.POD: pods[0],
        Side.POD_OVER_THERE: far_client,
        Side.NODE: east,
        Side.OTHER_NODE: west,
        Side.OUTSIDE: Host(lab.switch, lab.cgroup),
    }
    stage = Stage(lab, *pods, far_client, {side: Asker(who) for side, who in sources.items()})
    publish(stage)
    yield stage
    for asker in stage.askers.values():
        asker.close()
    for host in hosts:
        stop(host)


def host_server(lab: Lab, namespace: str, name: str) -> "Popen[bytes]":
    ready = lab.folder / f"{name}.ready"
    argv = (sys.executable, ANSWER, name, str(PORT), ready)
    process = Popen(in_namespace(namespace, lab.cgroup, argv), stdout=DEVNULL, stderr=DEVNULL)
    wait_for(f"{name} serves", ready.exists)
    return process


def publish(stage: Stage) -> None:
    east, west = stage.lab.nodes
    families = stage.lab.families
    endpoints: dict[Side, list[str]] = {
        Side.VIP_HERE: [str(a) for a in stage.here.addresses],
        Side.VIP_THERE: [str(a) for a in stage.there.addresses],
        Side.VIP_NODE: [underlay(east, version) for version in families],
        Side.VIP_OTHER_NODE: [underlay(west, version) for version in families],
    }
    for number, (side, addresses) in enumerate(endpoints.items()):
        put_service(stage.lab, f"service-{number}", VIPS[side], addresses)
    put_service(stage.lab, "nobody", NOBODY, [])
    vip = VIPS[Side.VIP_THERE][families[-1]]
    wait_for("the services", lambda: ask(stage.client, vip, VIP_PORT, udp=True) is not None)


def put_service(lab: Lab, name: str, vips: dict[int, str], addresses: list[str]) -> None:
    ports = [("tcp", "TCP", VIP_PORT), ("udp", "UDP", VIP_PORT)]
    targets = [("tcp", "TCP", PORT), ("udp", "UDP", PORT)]
    own = [vips[version] for version in lab.families]
    lab.manifests.put(manifests.service(name, "default", own, ports))
    for version in lab.families if addresses else ():
        found = [ip_address(a) for a in addresses]
        slice_name = f"{name}-{version}"
        lab.manifests.put(
            manifests.endpoint_slice(slice_name, "default", name, found, targets, version)
        )


Step = tuple[str, str, str]


def counted(lab: Lab) -> dict[Step, int]:
    """Packets by (place, program, reason) on both nodes."""
    found: dict[Step, int] = {}
    for place, node in zip(("here", "there"), lab.nodes, strict=True):
        with daemon(str(node.api_socket)) as weft:
            for one in weft.ListCounters(pb.ListCountersRequest()).items:
                name = (place, one.direction.replace("-", "_"), one.reason.replace("-", "_"))
                found[name] = one.packets
    return found


def walk(
    stage: Stage, cell: Cell, version: int, *, udp: bool
) -> tuple[Answer | None, frozenset[Step]]:
    """One question, its answer, and what was counted meanwhile."""
    address, port, _ = stage.target(cell.target, version)
    before = counted(stage.lab)
    answer = stage.askers[cell.source].ask(address, port, udp=udp)
    after = counted(stage.lab)
    return answer, frozenset(at for at, packets in after.items() if packets != before.get(at, 0))


def _case_name(part: object) -> str:
    if isinstance(part, Cell):
        return f"{part.source} to {part.target} {part.reach}".strip().replace(" ", "-")
    return "-".join(part) if isinstance(part, tuple) else f"ipv{part}"


@pytest.mark.parametrize("udp", [False, True], ids=["tcp", "udp"])
@pytest.mark.parametrize(("stage", "version", "cell"), CASES, indirect=["stage"], ids=_case_name)
@pytest.mark.usefixtures("lab")
def test_a_flow_takes_its_path_and_its_reply_comes_back(
    stage: Stage, version: int, cell: Cell, udp: bool
) -> None:
    address, _, server = stage.target(cell.target, version)
    expected = Answer(server, stage.seen(cell, version), address)
    wanted = _of_pods(cell.counted())

    def walks_alone() -> bool:
        answer, steps = walk(stage, cell, version, udp=udp)
        assert answer == expected, steps
        assert cell.counted() <= steps
        return _of_pods(steps) == wanted

    wait_for("a walk with nothing counted beside it", walks_alone)


def _of_pods(steps: Set[Step]) -> frozenset[Step]:
    return frozenset(step for step in steps if step[1] in WATCHED)


REFUSALS = sorted({(lab, version) for lab, version, _ in CASES})


@pytest.mark.parametrize("udp", [False, True], ids=["tcp", "udp"])
@pytest.mark.parametrize("source", [Side.POD, Side.NODE])
@pytest.mark.parametrize(("stage", "version"), REFUSALS, indirect=["stage"], ids=_case_name)
@pytest.mark.usefixtures("lab")
def test_a_service_with_nothing_behind_it_refuses_at_once(
    stage: Stage, source: Side, version: int, udp: bool
) -> None:
    who = stage.client if source is Side.POD else stage.east
    assert "ConnectionRefusedError" in error_of(who, NOBODY[version], VIP_PORT, udp=udp)
