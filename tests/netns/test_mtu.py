"""Sizes: pods of one node use their wire whole, packets to others fit the tunnel from the first,
and a path that narrows on its way says so, whatever the sizes of the wires.
"""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from deploy.netlab import Lab, LabNode, Pod
from deploy.netlab.shell import run, stop, wait_for
from tests.netns.conftest import lab_name

pytestmark = pytest.mark.long

BULK = Path(__file__).with_name("bulk.py")
PORT = 8080
STREAM_BYTES, DATAGRAM_BYTES = 3_000_000, 9_000
OVERHEAD_BYTES = {4: 50, 6: 70}
HEADERS_BYTES = {4: 28, 6: 48}
"""Of an echo or a datagram, IP's and its own."""


@dataclass
class Scene:
    """A lab whose pods all serve bulk."""

    lab: Lab
    stack: ExitStack
    pods: dict[str, Pod] = field(default_factory=dict)

    def node(self, name: str) -> LabNode:
        return next(node for node in self.lab.nodes if node.name == name)

    def start(self, name: str, *, far: bool = False) -> LabNode:
        node = self.lab.add_node(name, far=far)
        node.start()
        return node

    def pod(self, name: str, on: str) -> Pod:
        node = self.node(on)
        pod = self.pods[name] = node.add_pod(name)
        ready = node.folder / "run" / f"{name}.bulk"
        words = pod.command(sys.executable, BULK, "serve", str(PORT), ready)
        self.stack.callback(stop, subprocess.Popen(words))
        wait_for(f"{name} serves", ready.exists)
        return pod

    def bulk(self, what: str, source: str, target: str, version: int, size: int) -> str:
        """The client's word; "ok" and the peer when all came."""
        address = str(self.pods[target].address(version))
        words = (sys.executable, BULK, what, address, str(PORT), str(size))
        done = self.pods[source].attempt(*words)
        return done.stdout.strip() or done.stderr

    def flows(self, source: str, target: str, version: int) -> None:
        """A stream and a datagram larger than any packet both pass."""
        wanted = f"ok {self.pods[target].address(version)}"
        assert self.bulk("tcp", source, target, version, STREAM_BYTES) == wanted
        # The first may be what tells the sender of a narrow path: it asks again, as resolvers do.
        wait_for(
            f"a datagram from {source} to {target}",
            lambda: self.bulk("udp", source, target, version, DATAGRAM_BYTES) == wanted,
        )

    def echoes(self, source: str, target: str, version: int, packet_bytes: int) -> bool:
        """Whether one packet of this size, never to be fragmented, is answered."""
        address = self.pods[target].address(version)
        size = str(packet_bytes - HEADERS_BYTES[version])
        words = ("ping", "-c1", "-W2", "-M", "do", "-s", size, str(address))
        return " 1 received" in self.pods[source].attempt(*words).stdout

    def widest(self, source: str, target: str, version: int, packet_bytes: int) -> None:
        """Packets of this size pass at the first try, and none larger."""
        assert self.echoes(source, target, version, packet_bytes)
        assert not self.echoes(source, target, version, packet_bytes + 1)


@contextmanager
def scene(mode: str, families: tuple[int, ...] = (4, 6), mtu_bytes: int = 1500) -> Iterator[Scene]:
    with ExitStack() as stack:
        lab = Lab(lab_name(), mode=mode, families=families, mtu_bytes=mtu_bytes)
        yield Scene(stack.enter_context(lab), stack)


def route_mtu(pod: Pod, version: int, to: str = "default") -> int | None:
    (route,) = json.loads(pod.run("ip", "-j", f"-{version}", "route", "show", to))
    metrics = route.get("metrics") or [{}]
    return int(metrics[0]["mtu"]) if "mtu" in metrics[0] else None


def resize(scene: Scene, mtu_bytes: int) -> None:
    """Every wire between nodes becomes narrower or wider, as by a change of the network."""
    switch = scene.lab.switch
    for link in json.loads(run("ip", "-n", switch, "-j", "link")):
        if link["ifname"] != "lo":
            run("ip", "-n", switch, "link", "set", link["ifname"], "mtu", str(mtu_bytes))
    for node in scene.lab.nodes:
        node.run("ip", "link", "set", "eth0", "mtu", str(mtu_bytes))


# --- One neighbour without a tunnel, one behind a router by a tunnel -----------------------------
MIXES = [(mtu, families) for families in ((4, 6), (6,)) for mtu in (1450, 1500, 9001)]


@pytest.fixture(scope="module", params=MIXES, ids=lambda mix: f"{mix[0]}-{mix[1]}")
def mixed(request: pytest.FixtureRequest) -> Iterator[Scene]:
    mtu_bytes, underlay = request.param
    with scene("auto", mtu_bytes=mtu_bytes) as made:
        for name in ("east", "west", "far"):
            made.lab.add_node(name, families=underlay, far=name == "far").start()
        for name in ("east", "west", "far"):
            made.pod(name, name)
        made.pod("beside", "east")
        yield made


def sizes(scene: Scene) -> tuple[int, int]:
    """Of the wires, and of what fits the tunnels."""
    of_wire = scene.lab.mtu_bytes
    over4 = "." in scene.lab.nodes[0].underlay[0]
    return of_wire, of_wire - OVERHEAD_BYTES[4 if over4 else 6]


@pytest.mark.parametrize("version", [4, 6])
def test_pods_of_one_node_use_their_wire_whole(mixed: Scene, version: int) -> None:
    of_wire, _ = sizes(mixed)
    mixed.widest("east", "beside", version, of_wire)
    mixed.flows("east", "beside", version)


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("peer", ["west", "far"])
def test_what_fits_the_tunnel_passes_whole_and_streams_both_ways(
    mixed: Scene, peer: str, version: int
) -> None:
    _, in_tunnel = sizes(mixed)
    for source, target in (("east", peer), (peer, "east")):
        mixed.widest(source, target, version, in_tunnel)
        mixed.flows(source, target, version)


@pytest.mark.parametrize("version", [4, 6])
def test_a_pods_default_route_knows_the_tunnel_and_its_nodes_range_does_not(
    mixed: Scene, version: int
) -> None:
    of_wire, in_tunnel = sizes(mixed)
    pod = mixed.pods["east"]
    cidrs = [cidr for cidr in mixed.node("east").pod_cidrs if (":" in cidr) == (version == 6)]
    assert (route_mtu(pod, version), route_mtu(pod, version, cidrs[0])) == (in_tunnel, None)
    assert json.loads(pod.run("ip", "-j", "link", "show", "eth0"))[0]["mtu"] == of_wire


# --- Without a tunnel ----------------------------------------------------------------------------
@pytest.fixture(scope="module", params=[1500, 9001])
def direct(request: pytest.FixtureRequest) -> Iterator[Scene]:
    with scene("direct", mtu_bytes=request.param) as made:
        for name in ("east", "west"):
            made.start(name)
            made.pod(name, name)
        yield made


@pytest.mark.parametrize("version", [4, 6])
def test_neighbours_without_a_tunnel_use_the_wire_whole(direct: Scene, version: int) -> None:
    of_wire = direct.lab.mtu_bytes
    direct.widest("east", "west", version, of_wire)
    direct.flows("east", "west", version)
    assert route_mtu(direct.pods["east"], version) is None


# --- Tunnels between all nodes, pods of one node on a bridge or not -------------------------------
@pytest.fixture(
    scope="module",
    params=[(mode, mtu) for mode in ("vxlan", "bridge") for mtu in (1450, 9001)],
    ids=lambda one: f"{one[0]}-{one[1]}",
)
def tunnelled(request: pytest.FixtureRequest) -> Iterator[Scene]:
    mode, mtu_bytes = request.param
    with scene(mode, mtu_bytes=mtu_bytes) as made:
        for name in ("east", "west"):
            made.start(name)
            made.pod(name, name)
        made.pod("beside", "east")
        yield made


@pytest.mark.parametrize("version", [4, 6])
def test_with_tunnels_alone_pods_of_one_node_use_their_wire_whole_too(
    tunnelled: Scene, version: int
) -> None:
    of_wire, in_tunnel = sizes(tunnelled)
    tunnelled.widest("east", "beside", version, of_wire)
    tunnelled.flows("east", "beside", version)
    for source, target in (("east", "west"), ("west", "east")):
        tunnelled.widest(source, target, version, in_tunnel)
        tunnelled.flows(source, target, version)


# --- Nodes with links of different sizes, a router between them -----------------------------------
@pytest.mark.parametrize(("near_bytes", "far_bytes"), [(1500, 9001), (9001, 1450)])
@pytest.mark.parametrize("mode", ["auto", "direct"])
def test_nodes_with_links_of_different_sizes_talk_both_ways(
    mode: str, near_bytes: int, far_bytes: int
) -> None:
    with scene(mode, mtu_bytes=near_bytes) as made:
        made.pod("east", made.start("east").name)
        made.lab.add_node("far", far=True, mtu_bytes=far_bytes).start()
        made.pod("far", "far")
        if mode == "direct":
            route_pods(made)
        for version in (4, 6):
            made.flows("east", "far", version)
            made.flows("far", "east", version)


# --- What comes later than the pod ---------------------------------------------------------------
def test_a_pod_that_is_older_than_the_first_tunnel_learns_its_size_from_errors() -> None:
    with scene("auto") as made:
        for name in ("east", "west"):
            made.start(name)
            made.pod(name, name)
        for version in (4, 6):
            made.widest("east", "west", version, 1500)
        made.start("far", far=True)
        made.pod("far", "far")
        for version in (4, 6):
            assert not made.echoes("east", "far", version, 1500), "the first one is the lesson"
            made.widest("east", "far", version, 1450)
            made.flows("east", "far", version)
            made.flows("far", "east", version)
        assert route_mtu(made.pod("young", "east"), 4) == 1450


@pytest.mark.parametrize("to", [1400, 9001])
def test_flows_outlive_a_network_that_changes_its_size(to: int) -> None:
    with scene("auto") as made:
        for name in ("east", "west", "far"):
            made.start(name, far=name == "far")
            made.pod(name, name)
        resize(made, to)
        wait_for("the tunnel's size", lambda: overlay_mtu(made.node("east")) == to - 50)
        young = made.pod("young", "east")
        assert (route_mtu(young, 4), route_mtu(young, 6)) == (to - 50, to - 50)
        for version in (4, 6):
            for source in ("east", "young"):
                for peer in ("west", "far"):
                    made.flows(source, peer, version)
                    made.flows(peer, source, version)
            made.flows("east", "young", version)
            made.flows("young", "east", version)


def overlay_mtu(node: LabNode) -> int:
    return int(json.loads(node.run("ip", "-j", "link", "show", "weft.vx"))[0]["mtu"])


# --- A narrow link in the middle -----------------------------------------------------------------
@pytest.mark.parametrize("middle_bytes", [1300, 1400])
def test_tunnels_over_ipv4_pass_a_router_with_a_narrow_link(middle_bytes: int) -> None:
    with scene("auto") as made:
        for name in ("east", "far"):
            made.pod(name, made.start(name, far=name == "far").name)
        narrow(made, middle_bytes)
        for version in (4, 6):
            made.flows("east", "far", version)
            made.flows("far", "east", version)


def test_tunnels_over_ipv6_pass_a_narrow_link_that_the_operator_named() -> None:
    """The kernel fragments no tunnel packet over IPv6 and has no inner sender to tell."""
    with scene("auto") as made:
        for name in ("east", "far"):
            node = made.lab.add_node(name, families=(6,), far=name == "far")
            node.flags = ("--path-mtu", "1400")
            node.start()
            made.pod(name, name)
        narrow(made, 1400)
        for version in (4, 6):
            made.widest("east", "far", version, 1400 - OVERHEAD_BYTES[6])
            made.flows("east", "far", version)
            made.flows("far", "east", version)


@pytest.mark.parametrize("middle_bytes", [1300, 1400])
def test_routed_pods_are_told_of_a_narrow_link(middle_bytes: int) -> None:
    with scene("direct") as made:
        for name in ("east", "far"):
            made.pod(name, made.start(name, far=name == "far").name)
        narrow(made, middle_bytes)
        route_pods(made)
        for version in (4, 6):
            assert not made.echoes("east", "far", version, 1500), "the first one is the lesson"
            made.widest("east", "far", version, middle_bytes)
            made.flows("east", "far", version)
            made.flows("far", "east", version)


def narrow(scene: Scene, mtu_bytes: int) -> None:
    """The router's own ends shrink; the nodes' wires stay and know nothing of it."""
    for bridge in ("br0", "br1"):
        run("ip", "-n", scene.lab.switch, "link", "set", bridge, "mtu", str(mtu_bytes))


def route_pods(scene: Scene) -> None:
    """What an operator's network does in mode direct: the router knows whose the podCIDRs are."""
    for node in scene.lab.nodes:
        for address, cidr in zip(node.underlay, node.pod_cidrs, strict=True):
            via = address.split("/")[0]
            run("ip", "-n", scene.lab.switch, "route", "add", cidr, "via", via)
