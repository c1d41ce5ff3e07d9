"""Fragments in every order, between nodes, to a VIP, from outside: what was cut arrives whole."""

import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
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
VIPS = {
    "vip": {4: "10.96.2.1", 6: "fd00:10:96::2:1"},
    "vip here": {4: "10.96.2.2", 6: "fd00:10:96::2:2"},
}
# A server for each order of its answers.
PORTS = {order: 9000 + number for number, order in enumerate(ORDERS)}
# Node ports lie above their Service's ports by so much.
NODE_PORTS = {"node port": 21_000, "node port here": 22_000}
INJECTED = 9100
WALKS = [
    ("client", "there"), ("client", "vip"), ("client", "outside"),
    ("outside", "here"), ("outside", "vip"),
]  # fmt: skip
MORE_WALKS = [
    ("client", "here"), ("client", "vip here"), ("outside", "vip here"), ("outside", "node port"),
    ("outside", "node port here"), ("east", "here"), ("west", "here"),
]  # fmt: skip
VNI = "4242"
TUNNELLED = ("vxlan", "bridge")


@dataclass(frozen=True, slots=True)
class Stage:
    """A pod that asks on east; servers in a pod on each node, behind VIPs, and outside."""

    lab: Lab
    client: Pod
    here: Pod
    there: Pod

    def who(self, name: str) -> Pod | LabNode | Host:
        if name == "client":
            return self.client
        nodes = {node.name: node for node in self.lab.nodes}
        return nodes.get(name) or Host(self.lab.switch, self.lab.cgroup)

    def address(self, target: str, version: int) -> str:
        if target == "outside":
            return self.lab.outside[version == 6]
        if target in NODE_PORTS:
            return str(ip_interface(self.lab.nodes[0].underlay[version == 6]).ip)
        pods = {"here": self.here, "there": self.there}
        return VIPS[target][version] if target in VIPS else str(pods[target].address(version))


@pytest.fixture(scope="module")
def stage(lab: Lab) -> Iterator[Stage]:
    east, west = lab.nodes
    made = Stage(lab, east.add_pod("client"), east.add_pod("here"), west.add_pod("there"))
    publish(made, "cut", "vip", made.there, NODE_PORTS["node port"])
    publish(made, "cut-here", "vip here", made.here, NODE_PORTS["node port here"])
    lead_outside(made)
    with ExitStack() as stack:
        for order, port in PORTS.items():
            for namespace in (made.there.namespace, made.here.namespace, lab.switch):
                serve(stack, lab, namespace, port, order)
        serve(stack, lab, made.client.namespace, INJECTED, "012")
        orders = ORDERS[:1]
        for vips in VIPS.values():
            asked = made.client, vips[6], PORTS["012"], orders
            wait_for("the VIP", partial(is_whole, *asked))
        yield made


def serve(stack: ExitStack, lab: Lab, namespace: str, port: int, order: str) -> None:
    ready = lab.folder / f"{namespace}.{port}.ready"
    command = (sys.executable, FRAGMENTED, "serve", str(port), order, ready)
    argv = in_namespace(namespace, lab.cgroup, command)
    stack.callback(stop, Popen(argv, stdout=DEVNULL, stderr=DEVNULL))
    wait_for(f"{namespace} serves", ready.exists)


def publish(stage: Stage, name: str, vip: str, pod: Pod, above: int) -> None:
    """A Service of one pod, at a VIP and at node ports."""
    ports = [(f"from-{order}", "UDP", port) for order, port in PORTS.items()]
    service = dict(manifests.service(name, "default", list(VIPS[vip].values()), ports))
    listed = [{**one, "nodePort": above + one["port"]} for one in service["spec"]["ports"]]
    service["spec"] = {**service["spec"], "type": "NodePort", "ports": listed}
    stage.lab.manifests.put(service)
    for version in VIPS[vip]:
        slice_of = manifests.endpoint_slice(
            f"{name}-{version}", "default", name, pod.addresses, ports, version
        )
        stage.lab.manifests.put(slice_of)


def lead_outside(stage: Stage) -> None:
    """The way from outside to east's pods and to VIPs."""
    switch = Host(stage.lab.switch, stage.lab.cgroup)
    for version in (4, 6):
        via = stage.address("node port", version)
        for target in ("here", *VIPS):
            to = stage.address(target, version)
            switch.run("ip", "route", "replace", to, "via", via)


def is_whole(who: Pod, address: str, port: int, orders: list[str]) -> bool:
    return ask(who, address, port, orders) == orders


def ask(who: Pod | LabNode | Host, address: str, port: int, orders: list[str]) -> list[str]:
    """The orders in which a question was sent whose answer came back whole."""
    return who.run(sys.executable, FRAGMENTED, "ask", address, str(port), *orders).split()


def counted(node: LabNode, reason: str) -> int:
    with daemon(str(node.api_socket)) as weft:
        items = weft.ListCounters(pb.ListCountersRequest()).items
    return sum(one.packets for one in items if one.reason == reason)


@pytest.mark.parametrize("version", [4, 6], ids=["ipv4", "ipv6"])
@pytest.mark.parametrize(
    ("source", "target"),
    [*WALKS, *(pytest.param(*walk, marks=pytest.mark.long) for walk in MORE_WALKS)],
)
def test_datagrams_arrive_whole_both_ways(
    stage: Stage, source: str, target: str, version: int
) -> None:
    east = stage.lab.nodes[0]
    before = counted(east, "held")
    for order, port in PORTS.items():
        address, at = stage.address(target, version), port + NODE_PORTS.get(target, 0)
        whole = ask(stage.who(source), address, at, ORDERS)
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
