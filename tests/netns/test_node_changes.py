"""Nodes that are replaced, move, or change their addresses and families, in every mode."""

import re
from collections.abc import Iterator
from ipaddress import ip_interface

import pytest

from deploy.netlab import Lab, LabNode, manifests
from deploy.netlab.shell import wait_for
from tests.netns.ask import ask
from tests.netns.conftest import lab_name
from tests.netns.test_modes import PORT, address, node_of, pod_of, ways
from weft.proxy.plan.node import BRIDGE

pytestmark = pytest.mark.long

NEW_HOST = 77
"""Last part of an address that a node gets in place of its own."""


def start(lab: Lab, name: str, families: tuple[int, ...] = (), *, far: bool = False) -> LabNode:
    node = lab.add_node(name, families=families, far=far)
    node.start()
    node.serve(node.add_pod(name), PORT)
    return node


@pytest.fixture
def lab(mode: str) -> Iterator[Lab]:
    """Two nodes that each have a pod that serves, in the module's mode."""
    with Lab(lab_name(), mode=mode) as made:
        for name in ("east", "west"):
            start(made, name)
        yield made


def await_talk(lab: Lab, versions: tuple[int, ...] = (4, 6)) -> None:
    """The pods of all nodes reach each other, as they are."""

    def silent() -> list[tuple[str, str, int]]:
        return [
            (source.name, target.name, version)
            for source in lab.nodes
            for target in lab.nodes
            for version in versions
            if source is not target and not are_heard(lab, source.name, target.name, version)
        ]

    found: list[tuple[str, str, int]] = []

    def all_talk() -> bool:
        found[:] = silent()
        return not found

    try:
        wait_for("all pods to talk", all_talk, timeout_s=20)
    except TimeoutError:
        pytest.fail(f"silent: {found}\n{lab.nodes[0].weft('nodes')}")


def are_heard(lab: Lab, source: str, target: str, version: int) -> bool:
    client, server = pod_of(lab, source), pod_of(lab, target).address(version)
    answers = [ask(client, server, PORT, udp=udp, timeout_s=1) for udp in (False, True)]
    return all(one is not None and one.seen == str(client.address(version)) for one in answers)


def way(lab: Lab, name: str, version: int) -> str:
    """How the mode leads to a node of the same network that has both families."""
    if lab.mode in ("direct", "auto"):
        return "direct"
    return f"tunnel {address(lab, name, 4)}"


def await_ways(lab: Lab, wanted: dict[int, str], name: str = "west") -> None:
    east = node_of(lab, "east")
    said: list[object] = []

    def known() -> bool:
        said[:] = [ways(east).get(name)]
        return said == [wanted]

    try:
        wait_for(f"the way to {name}", known)
    except TimeoutError:
        pytest.fail(f"{said[0]} instead of {wanted}")


@pytest.mark.parametrize("mode", ["vxlan", "direct", "bridge"], scope="module")
def test_a_node_that_is_replaced_under_its_name_is_found_where_it_is(lab: Lab) -> None:
    east, west = lab.nodes
    gone = pod_of(lab, "west").addresses
    lab.manifests.remove("Pod", "west", "default")
    lab.remove_node(west)
    start(lab, "west")
    assert not set(gone) & set(pod_of(lab, "west").addresses)
    await_ways(lab, {version: way(lab, "west", version) for version in (4, 6)})
    await_talk(lab)
    for version in (4, 6):
        routes = east.run("ip", f"-{version}", "route", "show", "proto", "88")
        to_peers = [route for route in routes.splitlines() if BRIDGE not in route]
        assert len(to_peers) == 1, routes


@pytest.mark.parametrize("mode", ["vxlan", "direct", "bridge"], scope="module")
def test_peers_with_one_family_are_reached_by_what_both_have(lab: Lab) -> None:
    """Without a tunnel the other family of their pods leads nowhere, and status says so."""
    lab.remove_node(lab.nodes[1])
    lab.manifests.remove("Node", "west")
    lab.manifests.remove("Pod", "west", "default")
    for name, version in (("four", 4), ("six", 6)):
        start(lab, name, (version,))
        other = 10 - version
        tunnel = f"tunnel {address(lab, name, version)}"
        direct = {version: "direct", other: "nowhere"}
        await_ways(lab, direct if lab.mode == "direct" else {4: tunnel, 6: tunnel}, name)
        for family in (4, 6):
            talks = family == version or lab.mode != "direct"
            assert are_heard(lab, "east", name, family) == talks
            assert are_heard(lab, name, "east", family) == talks
    warned = re.search(r"^reach +warning", lab.nodes[0].weft("status", check=False), re.MULTILINE)
    assert (warned is not None) == (lab.mode == "direct")


def says(lab: Lab, node: LabNode, hosts: tuple[str, ...]) -> None:
    """The API has the node's addresses anew."""
    bare = [str(ip_interface(text).ip) for text in hosts]
    lab.manifests.put(manifests.node(node.name, bare, node.pod_cidrs))


def with_host(text: str) -> str:
    """The address with another host in its network."""
    network = ip_interface(text).network
    return f"{network[NEW_HOST]}/{network.prefixlen}"


def give(node: LabNode, text: str) -> None:
    extra = ("nodad",) if ":" in text else ()
    node.run("ip", "addr", "add", text, "dev", "eth0", *extra)


def take(node: LabNode, text: str) -> None:
    node.run("ip", "addr", "del", text, "dev", "eth0")


def routers(lab: Lab, node: LabNode) -> None:
    """The default routes, which go with an address."""
    for router in lab.outside:
        node.attempt("ip", "route", "replace", "default", "via", router)


@pytest.mark.parametrize("mode", ["auto", "vxlan", "direct", "bridge"], scope="module")
def test_a_node_whose_addresses_change_is_reached_at_the_new_ones(lab: Lab) -> None:
    """First the link has both, then the API says the new, then the old are gone: and back."""
    west = lab.nodes[1]
    first, second = west.underlay, tuple(map(with_host, west.underlay))
    # Else an address takes all that came after it on its network along.
    west.run("sysctl", "-qw", "net.ipv4.conf.eth0.promote_secondaries=1")
    for old, new in ((first, second), (second, first)):
        for text in new:
            give(west, text)
        says(lab, west, new)
        west.underlay = new
        for text in old:
            take(west, text)
        routers(lab, west)
        await_ways(lab, {version: way(lab, "west", version) for version in (4, 6)})
        await_talk(lab)


@pytest.mark.parametrize("lost", [4, 6])
@pytest.mark.parametrize("mode", ["auto", "vxlan", "direct", "bridge"], scope="module")
def test_a_node_that_loses_a_family_and_gains_it_again_is_reached_by_what_it_has(
    lab: Lab, lost: int
) -> None:
    west, kept = lab.nodes[1], 10 - lost
    both = west.underlay
    (left,) = (text for text in both if (":" in text) == (kept == 6))
    (gone,) = (text for text in both if text != left)
    says(lab, west, (left,))
    take(west, gone)
    west.underlay = (left,)
    by_tunnel = f"tunnel {ip_interface(left).ip}"
    if lab.mode == "direct":
        await_ways(lab, {kept: "direct", lost: "nowhere"})
        await_talk(lab, (kept,))
    else:
        direct = by_tunnel if lab.mode != "auto" else "direct"
        await_ways(lab, {kept: direct, lost: by_tunnel})
        await_talk(lab)
    give(west, gone)
    says(lab, west, both)
    west.underlay = both
    routers(lab, west)
    await_ways(lab, {version: way(lab, "west", version) for version in (4, 6)})
    await_talk(lab)
