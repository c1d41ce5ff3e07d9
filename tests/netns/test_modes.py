"""How nodes reach each other's pods, decided anew for each node and family whenever it changes."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from ipaddress import ip_interface

import pytest

from deploy.netlab import Lab, LabNode, Pod
from deploy.netlab.shell import run, wait_for
from tests.netns.ask import ask
from tests.netns.conftest import assert_dump_equals_plan, lab_name
from weft.cli.client import daemon
from weft.proxy.api import weft_pb2 as pb

pytestmark = pytest.mark.long

PORT = 8080
# Of each node of the lab: its own families, and whether it is behind the router.
NODES = {"east": ((4, 6), False), "west": ((4, 6), False), "far": ((4, 6), True),
         "four": ((4,), False), "six": ((6,), False)}  # fmt: skip

# One connection on which a line goes and comes until standard input ends; prints how many did.
TALKING = """
import select, socket, sys
with socket.create_connection((sys.argv[1], int(sys.argv[2])), 5) as s:
    s.settimeout(20)
    lines = s.makefile("rw", buffering=1)
    lines.readline()
    print("talking", flush=True)
    told = 0
    while not select.select([sys.stdin], [], [], 0.01)[0]:
        print("x", file=lines)
        assert lines.readline() == "x\\n"
        told += 1
    print(told)
"""


@pytest.fixture(scope="module")
def auto() -> Iterator[Lab]:
    with Lab(lab_name(), mode="auto") as made:
        for name, (families, far) in NODES.items():
            made.add_node(name, families=families, far=far).start()
        for node in made.nodes:
            node.serve(node.add_pod(node.name), PORT)
        yield made


@pytest.fixture(autouse=True)
def _law(request: pytest.FixtureRequest) -> Iterator[None]:
    yield
    if "auto" in request.fixturenames:
        for node in request.getfixturevalue("auto").nodes:
            assert_dump_equals_plan(node)


def node_of(lab: Lab, name: str) -> LabNode:
    return next(node for node in lab.nodes if node.name == name)


def pod_of(lab: Lab, name: str) -> Pod:
    return node_of(lab, name).pods[name]


def ways(node: LabNode) -> dict[str, dict[int, str]]:
    """Of every other node, how each family of its pods is reached, as `weft nodes` says it."""
    said = json.loads(node.weft("nodes", "-o", "json"))["items"]
    return {
        one["name"]: {6 if ":" in r["cidr"] else 4: _way(r) for r in one["podRanges"]}
        for one in said
        if not one.get("own")
    }


def _way(said: dict[str, str]) -> str:
    to = f" {said['via']}" if said["way"] == "tunnel" else ""
    return said["way"] + to


def address(lab: Lab, name: str, version: int) -> str:
    texts = node_of(lab, name).underlay
    return next(str(ip_interface(t).ip) for t in texts if (":" in t) == (version == 6))


def test_each_node_is_reached_as_its_addresses_say(auto: Lab) -> None:
    far4, four, six = address(auto, "far", 4), address(auto, "four", 4), address(auto, "six", 6)
    assert ways(node_of(auto, "east")) == {
        "west": {4: "direct", 6: "direct"},
        "far": {4: f"tunnel {far4}", 6: f"tunnel {far4}"},
        "four": {4: "direct", 6: f"tunnel {four}"},
        "six": {4: f"tunnel {six}", 6: "direct"},
    }


# A node with IPv4 alone and one with IPv6 alone have no way to each other.
PAIRS = [(a, b) for a in NODES for b in NODES if a != b and {a, b} != {"four", "six"}]


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize(("source", "target"), PAIRS)
def test_pods_reach_each_other_and_are_seen_as_they_are(
    auto: Lab, source: str, target: str, version: int
) -> None:
    client, server = pod_of(auto, source), pod_of(auto, target)
    for udp in (False, True):
        answer = ask(client, server.address(version), PORT, udp=udp)
        assert answer is not None, node_of(auto, source).weft("drops")
        assert answer.seen == str(client.address(version))


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("target", ["west", "far"])
def test_a_node_is_seen_with_the_address_of_its_way(auto: Lab, target: str, version: int) -> None:
    server = pod_of(auto, target)
    answer = ask(node_of(auto, "east"), server.address(version), PORT)
    assert answer is not None
    gateway = "10.244.1.1" if version == 4 else "fd00:10:244:1::1"
    assert answer.seen == (address(auto, "east", version) if target == "west" else gateway)


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize(("target", "reason"), [("west", "direct"), ("far", "tunnelled")])
def test_packets_are_counted_by_the_way_they_took(
    auto: Lab, target: str, reason: str, version: int
) -> None:
    east, server = node_of(auto, "east"), pod_of(auto, target)
    before = sent(east)
    assert ask(pod_of(auto, "east"), server.address(version), PORT) is not None
    after = sent(east)
    grown = {name for name in after if after[name] > before.get(name, 0)}
    assert grown == {reason}


def sent(node: LabNode) -> dict[str, int]:
    """Packets that pods sent to other nodes, by reason."""
    with daemon(str(node.api_socket)) as weft:
        return {
            one.reason: one.packets
            for one in weft.ListCounters(pb.ListCountersRequest()).items
            if one.direction == "from-pod" and one.reason in ("direct", "tunnelled")
        }


def test_status_has_nothing_to_say_of_nodes_that_are_reached(auto: Lab) -> None:
    assert not re.search(r"^reach +warning", node_of(auto, "east").weft("status"), re.MULTILINE)


# --- What changes --------------------------------------------------------------------------------
@pytest.fixture
def pair() -> Iterator[Lab]:
    with Lab(lab_name(), mode="auto") as made:
        for name in ("east", "west"):
            node = made.add_node(name)
            node.start()
            node.serve(node.add_pod(name), PORT)
        yield made


@pytest.mark.parametrize("far", [False, True], ids=["near", "far"])
def test_a_node_that_is_replaced_under_its_name_is_found_where_it_is(pair: Lab, far: bool) -> None:
    east, west = pair.nodes
    client, gone = pod_of(pair, "east"), pod_of(pair, "west").addresses
    pair.manifests.remove("Pod", "west", "default")
    pair.remove_node(west)
    fresh = pair.add_node("west", far=far)
    fresh.start()
    server = fresh.add_pod("west")
    fresh.serve(server, PORT)
    assert not set(gone) & set(server.addresses)
    way = f"tunnel {address(pair, 'west', 4)}" if far else "direct"
    wait_for("the new node", lambda: ways(east) == {"west": {4: way, 6: way}})
    for version in (4, 6):
        assert ask(client, server.address(version), PORT) is not None
        assert ask(server, client.address(version), PORT) is not None
        routes = east.run("ip", f"-{version}", "route", "show", "proto", "88")
        assert len(routes.splitlines()) == 1, routes
    for node in pair.nodes:
        assert_dump_equals_plan(node)


@pytest.mark.parametrize("version", [4, 6])
def test_a_flow_survives_the_change_from_direct_to_a_tunnel_and_back(
    pair: Lab, version: int
) -> None:
    server = pod_of(pair, "west")
    words = (sys.executable, "-c", TALKING, str(server.address(version)), str(PORT))
    talking = subprocess.Popen(
        pod_of(pair, "east").command(*words),
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert talking.stdout is not None
    assert talking.stdout.readline() == "talking\n"
    for alone, way in ((True, "tunnel"), (False, "direct")):
        for node in pair.nodes:
            set_on_link(node, version, alone=alone)
        await_way(pair, version, way)
        assert ask(pod_of(pair, "east"), server.address(version), PORT, timeout_s=5) is not None
    told, _ = talking.communicate("enough\n", timeout=30)
    assert int(told) > 0
    assert talking.returncode == 0
    for node in pair.nodes:
        assert_dump_equals_plan(node)


def await_way(lab: Lab, version: int, way: str) -> None:
    def leads() -> bool:
        found = [other for node in lab.nodes for other in ways(node).values()]
        return all(other[version].startswith(way) for other in found)

    wait_for(f"{way} both ways", leads)


def set_on_link(node: LabNode, version: int, *, alone: bool) -> None:
    """The node's address with the prefix of its network, or of itself alone and a route instead."""
    text = next(t for t in node.underlay if (":" in t) == (version == 6))
    network = str(ip_interface(text).network)
    single = f"{ip_interface(text).ip}/{32 if version == 4 else 128}"
    new, old = (single, text) if alone else (text, single)
    nodad = ("nodad",) if version == 6 else ()
    if version == 6:
        node.run("ip", "addr", "del", old, "dev", "eth0")
    node.run("ip", "addr", "add", new, "dev", "eth0", *nodad)
    if version == 4:
        node.run("ip", "addr", "del", old, "dev", "eth0")
    if alone:
        node.run("ip", "route", "replace", network, "dev", "eth0")
    else:
        node.attempt("ip", "route", "del", network, "dev", "eth0", "proto", "boot")


# --- Behind a router without a tunnel ------------------------------------------------------------
def test_in_mode_direct_a_node_behind_a_router_is_left_to_the_network() -> None:
    with Lab(lab_name(), mode="direct") as lab:
        for name in ("east", "far"):
            node = lab.add_node(name, far=name == "far")
            node.start()
            node.serve(node.add_pod(name), PORT)
        east, far = lab.nodes
        assert ways(east) == {"far": {4: "nowhere", 6: "nowhere"}}
        assert re.search(r"^reach +warning .*share no network", east.weft("status"), re.MULTILINE)
        client, server = pod_of(lab, "east"), pod_of(lab, "far")
        assert ask(client, server.address(4), PORT, timeout_s=0.3) is None
        for node in lab.nodes:
            for text, cidr in zip(node.underlay, node.pod_cidrs, strict=True):
                via = text.split("/")[0]
                run("ip", "-n", lab.switch, "route", "add", cidr, "via", via)
        for version in (4, 6):
            for udp in (False, True):
                answer = ask(client, server.address(version), PORT, udp=udp)
                assert answer is not None, far.weft("drops")
                assert answer.seen == str(client.address(version))
        for node in lab.nodes:
            assert_dump_equals_plan(node)
