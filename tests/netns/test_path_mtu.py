"""A tunnel through a router whose link is narrower than the nodes' own: what the kernel learns of
it reaches pods, so that nothing is lost for long and nothing is cut in pieces for ever.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from deploy.netlab import LabNode
from deploy.netlab.shell import wait_for
from tests.netns.conftest import assert_dump_equals_plan
from tests.netns.test_mtu import OVERHEAD_BYTES, STREAM_BYTES, Scene, narrow, scene
from weft.proxy.plan.node import OVERLAY

pytestmark = pytest.mark.long

MIDDLE_BYTES = 1400
VERSIONS = (4, 6)
ENDS = ("east", "far")


@contextmanager
def routed(underlay: int, middle_bytes: int = 0, mode: str = "auto") -> Iterator[Scene]:
    """Two nodes with a router between, each with a pod. middle_bytes: what it carries at first."""
    with scene(mode) as made:
        for name in ENDS:
            made.lab.add_node(name, families=(underlay,), far=name == "far")
        if middle_bytes:
            narrow(made, middle_bytes)
        for node in made.lab.nodes:
            node.start()
        for name in ENDS:
            made.pod(name, name)
        yield made


def tunnel_mtus(node: LabNode) -> list[int]:
    """What the routes to the other node's pods say, IPv4's first; 0: nothing."""
    found = []
    for version in VERSIONS:
        words = ("ip", "-j", f"-{version}", "route", "show", "dev", OVERLAY, "proto", "88")
        routes = json.loads(node.run(*words))
        metrics = [route.get("metrics", [{}])[0] for route in routes]
        found += [int(one.get("mtu", 0)) for one in metrics]
    return found


def learned(made: Scene, inner_bytes: int) -> None:
    wanted = [[inner_bytes] * len(VERSIONS)] * len(ENDS)
    wait_for("nodes to learn", lambda: [tunnel_mtus(n) for n in made.lab.nodes] == wanted)


def fragments(made: Scene) -> int:
    """Made by the nodes, not by pods, since their start."""
    return sum(_fragments(node) for node in made.lab.nodes)


def _fragments(node: LabNode) -> int:
    said = node.run("nstat", "-asjz", "IpFragCreates", "Ip6FragCreates")
    return sum(json.loads(said)["kernel"].values())


@pytest.mark.parametrize("underlay", VERSIONS)
@pytest.mark.parametrize("mode", ["auto", "vxlan", "bridge"])
def test_pods_are_told_from_the_first_packet_on_what_a_router_carries(
    underlay: int, mode: str
) -> None:
    inner_bytes = MIDDLE_BYTES - OVERHEAD_BYTES[underlay]
    with routed(underlay, MIDDLE_BYTES, mode) as made:
        learned(made, inner_bytes)
        for version in VERSIONS:
            for source, target in (ENDS, ENDS[::-1]):
                assert not made.echoes(source, target, version, inner_bytes + 1)
                made.widest(source, target, version, inner_bytes)
                made.flows(source, target, version)
        for node in made.lab.nodes:
            assert_dump_equals_plan(node)


@pytest.mark.parametrize("underlay", VERSIONS)
def test_streams_through_a_known_narrow_path_are_not_cut_in_pieces(underlay: int) -> None:
    with routed(underlay, MIDDLE_BYTES) as made:
        learned(made, MIDDLE_BYTES - OVERHEAD_BYTES[underlay])
        already = fragments(made)
        for version in VERSIONS:
            for source, target in (ENDS, ENDS[::-1]):
                said = made.bulk("tcp", source, target, version, STREAM_BYTES)
                assert said == f"ok {made.pods[target].address(version)}"
        assert fragments(made) == already


@pytest.mark.parametrize("version", VERSIONS)
def test_a_path_that_narrows_under_ipv6_loses_packets_for_a_moment_only(version: int) -> None:
    """What is lost first has the kernel learn; a new probe is not waited for."""
    with routed(6) as made:
        made.flows("east", "far", version)
        narrow(made, MIDDLE_BYTES)
        made.flows("east", "far", version)
        made.flows("far", "east", version)
        learned(made, MIDDLE_BYTES - OVERHEAD_BYTES[6])


@pytest.mark.parametrize("underlay", VERSIONS)
def test_what_the_kernel_has_forgotten_limits_nobody(underlay: int) -> None:
    with routed(underlay, MIDDLE_BYTES) as made:
        learned(made, MIDDLE_BYTES - OVERHEAD_BYTES[underlay])
        narrow(made, made.lab.mtu_bytes)
        for node in made.lab.nodes:
            node.run("ip", f"-{underlay}", "route", "flush", "cache")
        learned(made, 0)
        for version in VERSIONS:
            assert fresh_pods_reach(made, version)
        for node in made.lab.nodes:
            assert_dump_equals_plan(node)


def fresh_pods_reach(made: Scene, version: int) -> bool:
    """A pod of before keeps what it was told for as long as its own kernel does."""
    young = f"young{version}"
    made.pod(young, "east")
    underlay = 4 if "." in made.lab.nodes[0].underlay[0] else 6
    return made.echoes(young, "far", version, made.lab.mtu_bytes - OVERHEAD_BYTES[underlay])
