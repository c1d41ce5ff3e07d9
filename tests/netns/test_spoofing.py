"""What a pod, or a host beside the cluster, may pretend: each is tried on the wire and counted."""

import json
import struct
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from ipaddress import IPv6Address, ip_address, ip_interface, ip_network
from pathlib import Path

import pytest

from deploy.netlab import Lab, LabNode, Pod
from deploy.netlab.shell import run, wait_for
from tests.packet.packets import ICMP6, UDP, Address, Packet, arp, ethernet
from weft.cli.client import daemon
from weft.proxy.api import weft_pb2 as pb

RAW_SEND = Path(__file__).with_name("rawsend.py")
TIMES = 3
VNI, OVERLAY_PORT, ASK_PORT = 4242, 8472, 8474
NEIGHBOUR_ADVERT, ROUTER_ADVERT, REDIRECT = 136, 134, 137
OUTSIDE = {4: ip_address("198.51.100.9"), 6: ip_address("2001:db8:9::9")}
ALL_NODES = {4: ip_address("224.0.0.1"), 6: ip_address("ff02::1")}
LINK_LOCAL = IPv6Address("fe80::bad")
OTHER_MAC = bytes.fromhex("020000000bad")
LOOSE_SOURCE_ROUTE = bytes([131, 7, 4, 10, 0, 0, 1, 0])
ROUTING = 43


@pytest.fixture(scope="module", params=["vxlan", "bridge"])
def mode(request: pytest.FixtureRequest) -> str:
    """How a pod's link meets its node; both have the overlay."""
    return str(request.param)


@dataclass(frozen=True)
class Stage:
    """a: the pod that pretends; b: its neighbour; c: a pod of the other node."""

    lab: Lab
    a: Pod
    b: Pod
    c: Pod
    macs: Mapping[str, bytes]

    def node(self, name: str, version: int) -> Address:
        number = [node.name for node in self.lab.nodes].index(name)
        return ip_address(self.lab.nodes[number].underlay[version == 6].split("/")[0])

    def gateway(self, version: int) -> Address:
        return ip_network(self.lab.nodes[0].pod_cidrs[version == 6])[1]

    def packet(self, version: int, **changes: object) -> Packet:
        """a's datagram to b, honest but for `changes`."""
        honest = Packet(
            src=self.a.address(version), dst=self.b.address(version), proto=UDP, sport=4000,
            dport=4001, data=b"?", eth_src=self.macs["a"], eth_dst=self.macs["gateway"],
        )  # fmt: skip
        return replace(honest, **changes)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def stage(lab: Lab) -> Stage:
    east, west = lab.nodes
    a, b, c = east.add_pod("a"), east.add_pod("b"), west.add_pod("c")
    a.run("ping", "-c1", "-W2", str(b.address(4)))
    a.run("ping", "-c1", "-W2", str(ip_interface(east.underlay[0]).ip))
    (route,) = json.loads(a.run("ip", "-j", "route", "show", "default"))
    (hop,) = json.loads(a.run("ip", "-j", "neigh", "show", route["gateway"]))
    macs = {
        "a": mac_of(a),
        "b": mac_of(b),
        "gateway": bytes.fromhex(hop["lladdr"].replace(":", "")),
    }
    return Stage(lab, a, b, c, macs)


def mac_of(pod: Pod) -> bytes:
    (link,) = json.loads(pod.run("ip", "-j", "link", "show", "eth0"))
    return bytes.fromhex(link["address"].replace(":", ""))


def dropped(node: LabNode) -> Mapping[tuple[str, str], int]:
    with daemon(str(node.api_socket)) as weft:
        counters = weft.ListCounters(pb.ListCountersRequest(drops_only=True)).items
    return {(one.reason, one.direction): one.packets for one in counters}


def send(namespace: str, link: str, frame: bytes) -> None:
    enter = ["nsenter", f"--net=/run/netns/{namespace}", sys.executable, str(RAW_SEND)]
    subprocess.run([*enter, link, *[frame.hex()] * TIMES], check=True, timeout=30)


def assert_counted(node: LabNode, reason: str, direction: str, attempt: Callable[[], None]) -> None:
    place = (reason, direction)
    before = dropped(node).get(place, 0)
    attempt()
    wait_for(f"{place} to be counted", lambda: dropped(node).get(place, 0) >= before + TIMES)


# --- a pod's packets ----------------------------------------------------------------------------
def discovery(stage: Stage, kind: int, target: Address, source: Address = LINK_LOCAL) -> bytes:
    data = bytes(4) + target.packed
    words = {"proto": ICMP6, "sport": kind, "dport": 0, "data": data, "hops": 255}
    return stage.packet(6, src=source, dst=ALL_NODES[6], eth_dst=b"\x33\x33\0\0\0\1", **words).frame


def tagged(packet: Packet) -> bytes:
    inside = struct.pack("!HH", 5, 0x0800 if packet.version == 4 else 0x86DD) + packet.network
    return ethernet(packet.eth_dst, packet.eth_src, 0x8100, inside)


def routed(stage: Stage, version: int) -> bytes:
    """Source-routed: the header names a router that is still to come."""
    if version == 4:
        return stage.packet(4, options=LOOSE_SOURCE_ROUTE).frame
    body = bytes([UDP, 2, 4, 1]) + bytes(4) + stage.c.address(6).packed
    body += stage.packet(6).transport
    return stage.packet(6, proto=ROUTING, data=body).frame


Frame = Callable[[Stage, int], bytes]
FORGERIES: Mapping[str, tuple[str, tuple[int, ...], Frame]] = {
    "another pod's address": (
        "source-spoofed", (4, 6), lambda s, v: s.packet(v, src=s.b.address(v)).frame),
    "another node's pod's address": (
        "source-spoofed", (4, 6), lambda s, v: s.packet(v, src=s.c.address(v)).frame),
    "its node's address": (
        "source-spoofed", (4, 6), lambda s, v: s.packet(v, src=s.node("east", v)).frame),
    "the gateway's address": (
        "source-spoofed", (4, 6), lambda s, v: s.packet(v, src=s.gateway(v)).frame),
    "an address from outside": (
        "source-spoofed", (4, 6), lambda s, v: s.packet(v, src=OUTSIDE[v]).frame),
    "another's MAC": (
        "source-spoofed", (4, 6), lambda s, v: s.packet(v, eth_src=s.macs["b"]).frame),
    "a DHCP client's no address": (
        "source-spoofed", (4,), lambda s, v: s.packet(
            v, src=ip_address("0.0.0.0"), dst=ip_address("255.255.255.255"),
            sport=68, dport=67, eth_dst=b"\xff" * 6).frame),
    "gratuitous ARP for the gateway": (
        "neighbour-spoofed", (4,), lambda s, v: arp(s.macs["a"], s.gateway(4), s.gateway(4))),
    "an ARP reply for another pod": (
        "neighbour-spoofed", (4,), lambda s, v: reply(s)),
    "ARP with another's MAC inside": (
        "neighbour-spoofed", (4,), lambda s, v: arp(
            OTHER_MAC, s.a.address(4), s.gateway(4), frame_mac=s.macs["a"])),
    "an advertisement of another pod": (
        "neighbour-spoofed", (6,),
        lambda s, v: discovery(s, NEIGHBOUR_ADVERT, s.b.address(6))),
    "an advertisement of the gateway": (
        "neighbour-spoofed", (6,), lambda s, v: discovery(s, NEIGHBOUR_ADVERT, s.gateway(6))),
    "an advertisement from another pod": (
        "neighbour-spoofed", (6,),
        lambda s, v: discovery(s, NEIGHBOUR_ADVERT, s.a.address(6), s.b.address(6))),
    "a router's advertisement": (
        "router-advert-spoofed", (6,), lambda s, v: discovery(s, ROUTER_ADVERT, LINK_LOCAL)),
    "a router's redirect": (
        "router-advert-spoofed", (6,), lambda s, v: discovery(s, REDIRECT, LINK_LOCAL)),
    "a tunnel to its own node": (
        "tunnel-forged", (4, 6),
        lambda s, v: s.packet(v, dst=s.node("east", v), dport=OVERLAY_PORT).frame),
    "a tunnel to another node": (
        "tunnel-forged", (4, 6),
        lambda s, v: s.packet(v, dst=s.node("west", v), dport=OVERLAY_PORT).frame),
    "a node's question to another node": (
        "tunnel-forged", (4, 6),
        lambda s, v: s.packet(v, dst=s.node("west", v), dport=ASK_PORT).frame),
    "mapped source": (
        "mapped-address", (6,),
        lambda s, v: s.packet(6, src=IPv6Address(f"::ffff:{s.a.address(4)}")).frame),
    "mapped destination": (
        "mapped-address", (6,),
        lambda s, v: s.packet(6, dst=IPv6Address(f"::ffff:{s.b.address(4)}")).frame),
    "a source route": ("source-routed", (4, 6), routed),
    "a VLAN's tag": ("protocol-unknown", (4, 6), lambda s, v: tagged(s.packet(v))),
}  # fmt: skip


def reply(stage: Stage) -> bytes:
    """b is said to be at a's MAC."""
    frame = bytearray(arp(stage.macs["a"], stage.b.address(4), stage.gateway(4)))
    frame[21] = 2
    return bytes(frame)


@pytest.mark.parametrize(
    ("name", "version"),
    [(name, version) for name, (_, versions, _) in FORGERIES.items() for version in versions],
)
def test_what_a_pod_pretends_does_not_leave_its_link(stage: Stage, name: str, version: int) -> None:
    reason, _, frame = FORGERIES[name]
    assert_counted(
        stage.lab.nodes[0], reason, "from-pod",
        lambda: send(stage.a.namespace, "eth0", frame(stage, version)),
    )  # fmt: skip


def test_the_same_frames_without_a_lie_arrive(stage: Stage) -> None:
    """Else the tests above would count whatever the builder gets wrong."""
    before = dropped(stage.lab.nodes[0])
    for version in (4, 6):
        send(stage.a.namespace, "eth0", stage.packet(version).frame)
    link = stage.b.run("ip", "-j", "-s", "link", "show", "eth0")
    assert int(json.loads(link)[0]["stats64"]["rx"]["packets"]) >= 2 * TIMES
    fresh = {
        place: n for place, n in dropped(stage.lab.nodes[0]).items() if n > before.get(place, 0)
    }
    assert not [place for place in fresh if place[1] == "from-pod"], fresh


# --- tunnels from beside the cluster ------------------------------------------------------------
def wrapped(inner: Packet) -> bytes:
    return struct.pack("!BBHI", 8, 0, 0, VNI << 8) + inner.frame


def send_datagram(namespace: str, to: Address, data: bytes) -> None:
    """From a socket of the namespace: what a host there may do without any forgery below UDP."""
    family = "AF_INET6" if to.version == 6 else "AF_INET"
    script = (
        f"import socket, sys\none = socket.socket(socket.{family}, socket.SOCK_DGRAM)\n"
        f"for _ in range({TIMES}):\n"
        f"    one.sendto(bytes.fromhex(sys.argv[1]), ({str(to)!r}, {OVERLAY_PORT}))"
    )
    run("nsenter", f"--net=/run/netns/{namespace}", sys.executable, "-c", script, data.hex())


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("inner", [4, 6])
def test_a_tunnel_from_no_node_is_refused(stage: Stage, version: int, inner: int) -> None:
    data = wrapped(stage.packet(inner, src=stage.c.address(inner)))
    assert_counted(
        stage.lab.nodes[0], "overlay-source", "from-overlay",
        lambda: send_datagram(stage.lab.switch, stage.node("east", version), data),
    )  # fmt: skip


@pytest.mark.parametrize("source", ["a", "east"])
@pytest.mark.parametrize("inner", [4, 6])
def test_a_nodes_tunnel_with_anothers_source_inside_is_refused(
    stage: Stage, source: str, inner: int
) -> None:
    """An outside client's is none: nodes bring those in (tests/netns/test_north_south.py)."""
    sources = {"a": stage.a.address(inner), "east": stage.node("east", inner)}
    data = wrapped(stage.packet(inner, src=sources[source]))
    west = stage.lab.nodes[1].namespace
    assert_counted(
        stage.lab.nodes[0], "overlay-source", "from-overlay",
        lambda: send_datagram(west, stage.node("east", 4), data),
    )  # fmt: skip
