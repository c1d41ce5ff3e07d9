"""Pods' way out of a node that others use too: its own sockets, a foreign masquerade, errors."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from deploy.netlab import Lab, LabNode, Pod
from deploy.netlab.shell import run, wait_for
from tests.netns.ask import Host, ask, error_of
from tests.netns.conftest import lab_name
from tests.netns.outside import (
    Talk,
    default_route,
    forward,
    join,
    make_host,
    serve,
    set_up,
)

PORT, CLOSED_PORT = 8080, 9
FIRST_PORT, LAST_PORT = 61_000, 61_599
FLOWS = 100
SERVED_IN_RANGE = 61_590
FAR = {4: "198.51.100.7", 6: "2001:db8:f::7"}
ROUTER = {4: "198.51.100.1", 6: "2001:db8:f::1"}
KEEPS = {4: "198.51.101.7", 6: "2001:db8:e::7"}
"""The far host's addresses that must see pods' own."""
SMALL_MTU_BYTES = 1300

BOTH = pytest.mark.parametrize("version", [4, 6], ids=["ipv4", "ipv6"])
KINDS = pytest.mark.parametrize("kind", ["udp", "tcp"])


@dataclass(frozen=True, slots=True)
class Stage:
    """A pod on a node, a far host behind a router, and a host behind the node that is no pod."""

    lab: Lab
    pod: Pod
    far: Host
    guest: Host

    @property
    def node(self) -> LabNode:
        return self.lab.nodes[0]

    def own(self, version: int) -> str:
        return next(a.split("/")[0] for a in self.node.underlay if (":" in a) == (version == 6))


@pytest.fixture(scope="module", params=["vxlan", "auto", "bridge"])
def mode(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def lab(mode: str) -> Iterator[Lab]:
    """One node with a small range of ports."""
    with Lab(lab_name(), mode=mode) as made:
        node = made.add_node("east")
        node.flags = (
            "--snat-port-min", str(FIRST_PORT), "--snat-port-max", str(LAST_PORT),
            "--never-masquerade", f"{KEEPS[4]}/32,{KEEPS[6]}/128",
        )  # fmt: skip
        node.start()
        yield made


@pytest.fixture(scope="module")
def stage(lab: Lab) -> Iterator[Stage]:
    node = lab.nodes[0]
    with ExitStack() as stack:
        far, guest = make_host(lab, stack, "far"), make_host(lab, stack, "guest")
        routers = (f"{ROUTER[4]}/24", f"{ROUTER[6]}/64")
        join(lab.switch, "far0", routers, far.namespace, "eth0",
             (f"{FAR[4]}/24", f"{FAR[6]}/64"))  # fmt: skip
        default_route(far.namespace, routers)
        forward(lab.switch)
        keep_addresses(node, lab.switch, far)
        inside = ("172.29.0.1/24", "fd00:29::1/64")
        join(node.namespace, "guest0", inside, guest.namespace, "eth0",
             ("172.29.0.2/24", "fd00:29::2/64"))  # fmt: skip
        default_route(guest.namespace, inside)
        serve(lab, stack, far.namespace, "far", PORT)
        serve(lab, stack, node.namespace, "east", SERVED_IN_RANGE)
        yield Stage(lab, node.add_pod("client"), far, guest)


def keep_addresses(node: LabNode, switch: str, far: Host) -> None:
    """Where the far host keeps pods' addresses the operator's network routes them."""
    set_up(far.namespace, "lo", (f"{KEEPS[4]}/32", f"{KEEPS[6]}/128"))
    for version, inside, outside in zip((4, 6), node.pod_cidrs, node.underlay, strict=True):
        router = outside.split("/")[0]
        run("ip", "-n", switch, "route", "add", inside, "via", router)
        run("ip", "-n", switch, "route", "add", KEEPS[version], "via", FAR[version])


@BOTH
@KINDS
def test_the_outside_sees_the_node_but_where_pods_keep_their_address(
    stage: Stage, version: int, kind: str
) -> None:
    answer = ask(stage.pod, FAR[version], PORT, udp=kind == "udp")
    assert answer is not None, stage.node.weft("drops")
    assert (answer.server, answer.seen) == ("far", stage.own(version))
    answer = ask(stage.pod, KEEPS[version], PORT, udp=kind == "udp")
    assert answer is not None, stage.node.weft("drops")
    assert answer.seen == str(stage.pod.address(version))


@BOTH
@KINDS
def test_the_nodes_own_sockets_in_the_range_work_beside_pods(
    stage: Stage, version: int, kind: str
) -> None:
    with ExitStack() as stack:
        pods = Talk(stack, stage.pod, FAR[version], PORT, FLOWS, kind=kind)
        own = Talk(stack, stage.node, FAR[version], PORT, FLOWS, first_port=FIRST_PORT, kind=kind)
        assert (pods.connected, own.connected) == (FLOWS, FLOWS)
        for _ in range(3):
            assert (pods.round(), own.round()) == (FLOWS, FLOWS), stage.node.weft("drops")
            served = ask(stage.far, stage.own(version), SERVED_IN_RANGE, udp=kind == "udp")
            assert served is not None
            assert served.server == "east"


@BOTH
@KINDS
def test_a_foreign_masquerade_on_the_same_address_works_beside_pods(
    stage: Stage, version: int, kind: str
) -> None:
    with ExitStack() as stack, foreign_masquerade(stage.node):
        guests = Talk(stack, stage.guest, FAR[version], PORT, FLOWS, kind=kind)
        pods = Talk(stack, stage.pod, FAR[version], PORT, FLOWS, kind=kind)
        assert (guests.connected, pods.connected) == (FLOWS, FLOWS)
        for _ in range(3):
            assert (pods.round(), guests.round()) == (FLOWS, FLOWS), stage.node.weft("drops")


class foreign_masquerade:
    """As a container engine on the node has it, here into the very range that pods' flows use."""

    def __init__(self, node: LabNode) -> None:
        self._node = node

    def __enter__(self) -> None:
        rules = "\n".join(
            f'oifname "eth0" {family} saddr {network} meta l4proto {{ tcp, udp }} '
            f"masquerade to :{FIRST_PORT}-{LAST_PORT}"
            for family, network in (("ip", "172.29.0.0/24"), ("ip6", "fd00:29::/64"))
        )
        chain = f"chain post {{\ntype nat hook postrouting priority 100\n{rules}\n}}"
        self._node.run("nft", f"table inet guests {{\n{chain}\n}}")

    def __exit__(self, *_: object) -> None:
        self._node.run("nft", "delete table inet guests")


RAW_ECHO = Path(__file__).with_name("rawecho.py")
# The first bytes of a packet, SCTP's with ports; 3,000 bytes go in pieces.
BARE = {"gre": (47, "00000800"), "esp": (50, "0000100100000001"), "sctp": (132, "0fa0960c")}


@BOTH
@pytest.mark.parametrize("proto", BARE)
def test_protocols_without_ports_of_ours_go_out_as_the_node_and_come_back(
    stage: Stage, version: int, proto: str
) -> None:
    number, head = BARE[proto]
    with ExitStack() as stack:
        ready = stage.lab.folder / f"{proto}{version}.ready"
        argv = ("serve", str(version), str(number), ready)
        command = stage.far.command(sys.executable, RAW_ECHO, *argv)
        server = stack.enter_context(subprocess.Popen(command))
        stack.callback(server.kill)
        wait_for("the server", ready.exists)
        for data in (head + "00" * 20, head + "00" * 3000):
            asked = ("ask", FAR[version], str(number), data)
            said = stage.pod.run(sys.executable, RAW_ECHO, *asked).strip()
            assert said == stage.own(version), stage.node.weft("drops")


@BOTH
def test_echo_goes_out_and_comes_back(stage: Stage, version: int) -> None:
    stage.pod.run("ping", "-c", "2", "-i", "0.1", "-W", "2", FAR[version])


@BOTH
def test_a_closed_port_refuses(stage: Stage, version: int) -> None:
    for udp in (False, True):
        said = error_of(stage.pod, FAR[version], CLOSED_PORT, udp=udp)
        assert "ConnectionRefusedError" in said


TRACE = """
import socket, sys
address, hops = sys.argv[1], int(sys.argv[2])
six = ":" in address
with socket.socket(socket.AF_INET6 if six else socket.AF_INET, socket.SOCK_DGRAM) as s:
    s.settimeout(2)
    if six:
        s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS, hops)
        s.setsockopt(socket.IPPROTO_IPV6, 25, 1)  # IPV6_RECVERR
    else:
        s.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, hops)
        s.setsockopt(socket.IPPROTO_IP, 11, 1)  # IP_RECVERR
    s.connect((address, 33434))
    s.send(b"?")
    try:
        s.recv(100)
    except OSError:
        pass
    _, control, _, _ = s.recvmsg(512, 512, socket.MSG_ERRQUEUE)
    # struct sock_extended_err, 16 bytes, then the sockaddr of who sent the error
    (_, _, data), = [c for c in control if c[0] in (socket.IPPROTO_IP, socket.IPPROTO_IPV6)][:1]
    where = data[24:40] if six else data[20:24]
    print(socket.inet_ntop(s.family, where))
"""


@BOTH
def test_a_trace_names_every_hop(stage: Stage, version: int) -> None:
    switch = stage.lab.outside[version == 6]
    said = [
        stage.pod.run(sys.executable, "-c", TRACE, FAR[version], str(hops)).strip()
        for hops in (2, 3)
    ]
    assert said == [switch, FAR[version]]


PATH_MTU = """
import socket, sys
address, size = sys.argv[1], int(sys.argv[2])
six = ":" in address
level, discover, mtu = (socket.IPPROTO_IPV6, 23, 24) if six else (socket.IPPROTO_IP, 10, 14)
with socket.socket(socket.AF_INET6 if six else socket.AF_INET, socket.SOCK_DGRAM) as s:
    s.setsockopt(level, discover, 2)  # DO: never in pieces
    s.connect((address, int(sys.argv[3])))
    s.settimeout(0.2)
    for _ in range(20):
        try:
            s.send(bytes(size))
            s.recv(512)
        except OSError:
            pass
    print(s.getsockopt(level, mtu))
"""


@BOTH
def test_a_narrow_link_behind_a_router_lowers_the_pods_path_mtu(stage: Stage, version: int) -> None:
    with narrow(stage):
        said = stage.pod.run(sys.executable, "-c", PATH_MTU, FAR[version], "1350", str(PORT))
        assert int(said) == SMALL_MTU_BYTES


class narrow:
    """The link between the router and the far host carries less."""

    def __init__(self, stage: Stage) -> None:
        self._links = ((stage.lab.switch, "far0"), (stage.far.namespace, "eth0"))

    def __enter__(self) -> None:
        self._set(SMALL_MTU_BYTES)

    def __exit__(self, *_: object) -> None:
        self._set(1500)

    def _set(self, mtu_bytes: int) -> None:
        for namespace, link in self._links:
            run("ip", "-n", namespace, "link", "set", link, "mtu", str(mtu_bytes))


FORGE = """
import socket, sys
six = ":" in sys.argv[1]
with socket.socket(socket.AF_INET6 if six else socket.AF_INET, socket.SOCK_DGRAM) as s:
    s.bind((sys.argv[1], 4444))
    for _ in range(5):
        s.sendto(b"?", (sys.argv[2], 8080))
"""


@BOTH
def test_who_is_no_pod_gets_nowhere_with_a_pods_address(stage: Stage, version: int) -> None:
    address, link = str(stage.pod.address(version)), stage.guest.namespace
    bits = 32 if version == 4 else 128
    for name in ("all", "guest0"):
        stage.node.run("sysctl", "-qw", f"net.ipv4.conf.{name}.rp_filter=0")
    set_up(link, "lo", (f"{address}/{bits}",))
    before = spoofed(stage.node)
    stage.guest.run(sys.executable, "-c", FORGE, address, FAR[version])
    run("ip", "-n", link, "addr", "del", f"{address}/{bits}", "dev", "lo")
    wait_for("the drops", lambda: spoofed(stage.node) >= before + 5)
    assert ask(stage.pod, FAR[version], PORT, udp=True) is not None


def spoofed(node: LabNode) -> int:
    """Packets that were dropped on their way out for a source that is not their sender's."""
    listed = json.loads(node.weft("drops", "-o", "json"))["items"]
    return sum(
        int(row["packets"])
        for row in listed
        if re.search("spoof", row["reason"], re.I) and "uplink" in row["direction"].lower()
    )
