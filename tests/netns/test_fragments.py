"""Fragments in every order, between nodes, to a VIP, from outside: what was cut arrives whole."""

import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from ipaddress import ip_interface
from itertools import permutations
from pathlib import Path
from subprocess import DEVNULL, PIPE, Popen

import pytest

from deploy.netlab import Lab, LabNode, Pod, manifests
from deploy.netlab.shell import in_namespace, stop, wait_for
from tests.netns.ask import Host
from weft.cli.client import daemon
from weft.proxy.api import weft_pb2 as pb

FRAGMENTED = Path(__file__).with_name("fragmented.py")
ORDERS = ["".join(order) for order in permutations("012")]
VIPS = {4: "10.96.2.1", 6: "fd00:10:96::2:1"}
# A server for each order of its answers.
PORTS = {order: 9000 + number for number, order in enumerate(ORDERS)}
INJECTED = 9100
VNI = "4242"
TUNNELLED = ("vxlan", "bridge")


@dataclass(frozen=True, slots=True)
class Stage:
    """A pod that asks on east; servers in a pod on west, behind a VIP, and outside."""

    lab: Lab
    client: Pod
    there: Pod

    def address(self, target: str, version: int) -> str:
        if target == "outside":
            return self.lab.outside[version == 6]
        return VIPS[version] if target == "vip" else str(self.there.address(version))


@pytest.fixture(scope="module")
def stage(lab: Lab) -> Iterator[Stage]:
    east, west = lab.nodes
    made = Stage(lab, east.add_pod("client"), west.add_pod("there"))
    publish(made)
    with ExitStack() as stack:
        for order, port in PORTS.items():
            serve(stack, lab, made.there.namespace, port, order)
            serve(stack, lab, lab.switch, port, order)
        serve(stack, lab, made.client.namespace, INJECTED, "012")
        orders = ORDERS[:1]
        wait_for("the VIP", lambda: ask(made.client, VIPS[6], PORTS["012"], orders) == orders)
        yield made


def serve(stack: ExitStack, lab: Lab, namespace: str, port: int, order: str) -> None:
    ready = lab.folder / f"{namespace}.{port}.ready"
    command = (sys.executable, FRAGMENTED, "serve", str(port), order, ready)
    argv = in_namespace(namespace, lab.cgroup, command)
    stack.callback(stop, Popen(argv, stdout=DEVNULL, stderr=DEVNULL))
    wait_for(f"{namespace} serves", ready.exists)


def publish(stage: Stage) -> None:
    ports = [(f"from-{order}", "UDP", port) for order, port in PORTS.items()]
    stage.lab.manifests.put(manifests.service("cut", "default", list(VIPS.values()), ports))
    for version in VIPS:
        addresses = stage.there.addresses
        slice_of = manifests.endpoint_slice(
            f"cut-{version}", "default", "cut", addresses, ports, version
        )
        stage.lab.manifests.put(slice_of)


def ask(who: Pod | LabNode, address: str, port: int, orders: list[str]) -> list[str]:
    """The orders in which a question was sent whose answer came back whole."""
    return who.run(sys.executable, FRAGMENTED, "ask", address, str(port), *orders).split()


def counted(node: LabNode, reason: str) -> int:
    with daemon(str(node.api_socket)) as weft:
        items = weft.ListCounters(pb.ListCountersRequest()).items
    return sum(one.packets for one in items if one.reason == reason)


@pytest.mark.parametrize("version", [4, 6], ids=["ipv4", "ipv6"])
@pytest.mark.parametrize("target", ["there", "vip", "outside"])
def test_datagrams_arrive_whole_both_ways(stage: Stage, target: str, version: int) -> None:
    east = stage.lab.nodes[0]
    before = counted(east, "held")
    for order, port in PORTS.items():
        whole = ask(stage.client, stage.address(target, version), port, ORDERS)
        assert whole == ORDERS, (order, east.weft("drops"))
    assert counted(east, "held") > before


@pytest.mark.parametrize("version", [4, 6], ids=["ipv4", "ipv6"])
@pytest.mark.parametrize("target", ["there", "outside"])
def test_echo_requests_arrive_whole(stage: Stage, target: str, version: int) -> None:
    address = stage.address(target, version)
    said = stage.client.run(sys.executable, FRAGMENTED, "ping", address, *ORDERS)
    assert said.split() == ORDERS


@pytest.mark.parametrize("version", [4, 6], ids=["ipv4", "ipv6"])
def test_fragments_that_the_wire_disorders_arrive_whole(
    stage: Stage, mode: str, version: int
) -> None:
    """Sent to east as west would; what comes of them is echoed to west's pod."""
    east, west = stage.lab.nodes
    switch = Host(stage.lab.switch, stage.lab.cgroup)
    via = [str(ip_interface(node.underlay[version == 6]).ip) for node in (west, east)]
    switch.run("ip", "route", "replace", str(stage.client.address(version)), "via", via[1])
    ends = [str(ip_interface(node.underlay[0]).ip) for node in (west, east)]
    tunnel = [*ends, VNI] if mode in TUNNELLED else []
    ready = stage.lab.folder / f"catch.{version}.ready"
    words = ("catch", str(INJECTED), str(len(ORDERS)), ready)
    command = stage.there.command(sys.executable, FRAGMENTED, *words)
    before = counted(east, "held")
    with Popen(command, stdout=PIPE) as catcher:
        wait_for("the catcher", ready.exists)
        pods = str(stage.there.address(version)), str(stage.client.address(version))
        inject = ("inject", *pods, str(INJECTED), ",".join(ORDERS), *tunnel)
        switch.run(sys.executable, FRAGMENTED, *inject)
        caught = catcher.communicate()[0]
    assert int(caught) == len(ORDERS), east.weft("drops")
    assert counted(east, "held") > before


@pytest.mark.parametrize("version", [4, 6], ids=["ipv4", "ipv6"])
def test_the_nodes_own_fragments_are_its_own_in_any_order(stage: Stage, version: int) -> None:
    address = stage.address("outside", version)
    for port in PORTS.values():
        assert ask(stage.lab.nodes[0], address, port, ORDERS) == ORDERS


@pytest.mark.parametrize("version", [4, 6], ids=["ipv4", "ipv6"])
def test_a_fragment_whose_first_never_comes_is_dropped_within_a_second(
    stage: Stage, version: int
) -> None:
    east = stage.lab.nodes[0]
    before = counted(east, "fragment-unknown")
    address = stage.address("there", version)
    stage.client.run(sys.executable, FRAGMENTED, "later", address, str(INJECTED))
    after = before + 1
    wait_for("the drop", lambda: counted(east, "fragment-unknown") == after, timeout_s=1)
