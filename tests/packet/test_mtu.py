"""What a link carries: packets by their length, those still to be segmented by their segments.

A test run knows no transport header in what is to be segmented, so those come from a real socket.
"""

import fcntl
import json
import os
import socket
import struct
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import BinaryIO

import pytest

from tests.netns.hook_scene import inside, namespace, run, wait_for
from tests.netns.tunnel import TUNSETIFF
from tests.packet.packets import ACK, TCP, UDP, Packet, read
from tests.packet.runner import Action, Node, await_tick
from tests.packet.scene import ADDRESSES, MAC_A, MAC_B, Addresses, Scene, answer
from weft.bpf.clsact import LinkDirection, set_filter
from weft.bpf.layout import Event, Reason, Uplink
from weft.bpf.rtnl import Rtnl

MTU_BYTES, WIDE_BYTES = 1500, 9000
ETH_BYTES, TCP_BYTES = 14, 20
_UDP_SEGMENT = 103  # linux/udp.h
# linux/if_tun.h: IFF_TAP, IFF_NO_PI, IFF_VNET_HDR; linux/virtio_net.h.
_TAP, _NO_INFO, _SIZES = 0x2, 0x1000, 0x4000
_NEEDS_CHECKSUM, _GSO_TCP, _CHECKSUM_AT = 1, {4: 1, 6: 4}, 16
WAYS = ("redirect", "overlay", "direct")
SENT = {"redirect": Reason.DELIVERED, "overlay": Reason.TUNNELLED, "direct": Reason.DIRECT}


@dataclass(frozen=True, slots=True)
class Links:
    """Of the namespace `here`: a pod's, whose other end is in `there`, and a narrower one."""

    here: str
    there: str
    pod: int
    narrow: int


@pytest.fixture(scope="module")
def links(node: Node) -> Iterator[Links]:
    name = f"dp-mtu-{os.getpid()}"
    with ExitStack() as stack:
        here = stack.enter_context(namespace(name))
        there = stack.enter_context(namespace(f"{name}-pod"))
        run("ip", "-n", here, "link", "add", "narrow", "mtu", str(MTU_BYTES), "type", "veth")
        run("ip", "-n", here, "link", "add", "pod", "mtu", str(WIDE_BYTES), "type", "veth",
            "peer", "name", "eth0", "mtu", str(WIDE_BYTES), "address", MAC_A.hex(":"),
            "netns", there)  # fmt: skip
        run("ip", "-n", here, "link", "set", "pod", "up")
        run("ip", "-n", there, "link", "set", "eth0", "up")
        with inside(here), Rtnl() as rtnl:
            made = Links(here, there, *map(socket.if_nametoindex, ("pod", "narrow")))
            place = (made.pod, LinkDirection.INGRESS)
            attached = set_filter(rtnl, *place, "from_pod", node.programs["from_pod"].fd)
            assert not attached.error, attached
        yield made


@dataclass(frozen=True, slots=True)
class Tap:
    """A pod's link whose other end is this process: what is sent is as a pod's socket makes it."""

    device: BinaryIO
    ifindex: int

    def send_segments(self, first: Packet) -> None:
        """One packet of three segments as long as `first`, checksums left to who cuts it."""
        headers_bytes = len(first.network) - len(first.data)
        whole = replace(first, data=3 * first.data).frame
        kind = _GSO_TCP[first.version]
        start = ETH_BYTES + headers_bytes - TCP_BYTES
        sizes = (ETH_BYTES + headers_bytes, len(first.data), start, _CHECKSUM_AT)
        self.device.write(struct.pack("=BBHHHH", _NEEDS_CHECKSUM, kind, *sizes) + whole)


@pytest.fixture(scope="module")
def tap(node: Node, links: Links) -> Iterator[Tap]:
    with inside(links.here), open("/dev/net/tun", "r+b", buffering=0) as device, Rtnl() as rtnl:
        fcntl.ioctl(device, TUNSETIFF, struct.pack("16sH22x", b"tap", _TAP | _NO_INFO | _SIZES))
        run("ip", "-n", links.here, "link", "set", "tap", "mtu", str(WIDE_BYTES), "up")
        made = Tap(device, socket.if_nametoindex("tap"))
        place = (made.ifindex, LinkDirection.INGRESS)
        attached = set_filter(rtnl, *place, "from_pod", node.programs["from_pod"].fd)
        assert not attached.error, attached
        yield made


def stage(scene: Scene, links: Links, way: str) -> None:
    """From a the narrow link leads to b, or to c's node."""
    scene.settings(overlay_ifindex=links.narrow, event_sample=1)
    scene.pod(scene.at.a, ifindex=links.pod)
    scene.pod(scene.at.b, mac=MAC_B, ifindex=links.narrow)
    if way == "direct":
        scene.direct_range(ifindex=links.narrow)
    else:
        scene.remote_range()


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("data_bytes", "fits"), [(1_000, True), (1_430, True), (1_480, False)])
def test_a_packet_is_measured_by_its_length(
    scene: Scene, links: Links, way: str, data_bytes: int, fits: bool
) -> None:
    stage(scene, links, way)
    sent = scene.tcp(scene.at.a, scene.at.b if way == "redirect" else scene.at.c, flags=ACK)
    frame = replace(sent, data=bytes(data_bytes)).frame
    with inside(links.here):
        done = scene.node.repeat("from_pod", frame, 1, ifindex=links.pod)
    assert done.verdict == (Action.REDIRECT if fits else Action.NEXT & 0xFFFFFFFF)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("segment_bytes", "fits"), [(1_000, True), (1_430, True), (1_480, False)])
def test_what_is_still_to_be_segmented_is_measured_by_its_segments(
    scene: Scene, links: Links, way: str, segment_bytes: int, fits: bool
) -> None:
    stage(scene, links, way)
    address_of_pod(scene.at, links)
    told: list[Event] = []
    send_segments(scene, links, scene.at.b if way == "redirect" else scene.at.c, segment_bytes)
    wait_for(lambda: bool(new_flows(scene, told)), "the pod's packet to be told of")
    (event,) = new_flows(scene, told)
    assert event.reason == (SENT[way] if fits else Reason.STACK)
    assert event.bytes > 3 * segment_bytes


def new_flows(scene: Scene, told: list[Event], proto: int = UDP) -> list[Event]:
    told += scene.node.told()
    return [event for event in told if event.tuple.proto == proto]


def address_of_pod(at: Addresses, links: Links) -> None:
    nodad = ["nodad"] if at.a.version == 6 else []
    family = f"-{at.a.version}"
    run("ip", "-n", links.there, "address", "replace", str(at.a), "dev", "eth0", *nodad)
    for address in (at.b, at.c):
        run("ip", "-n", links.there, family, "route", "replace", str(address), "dev", "eth0",
            "src", str(at.a))  # fmt: skip
        run("ip", "-n", links.there, "neighbour", "replace", str(address), "dev", "eth0",
            "lladdr", MAC_B.hex(":"), "nud", "permanent")  # fmt: skip


def send_segments(scene: Scene, links: Links, to: object, segment_bytes: int) -> None:
    """One packet of three datagrams."""
    family = socket.AF_INET if scene.version == 4 else socket.AF_INET6
    with inside(links.there), socket.socket(family, socket.SOCK_DGRAM) as pod:
        pod.setsockopt(socket.IPPROTO_UDP, _UDP_SEGMENT, segment_bytes)
        pod.sendto(bytes(3 * segment_bytes), (str(to), 80))


# --- A tunnel whose path is narrower than the overlay's link -------------------------------------
TUNNEL_BYTES = 1350


def narrow_tunnel(scene: Scene, links: Links) -> None:
    stage(scene, links, "overlay")
    scene.remote_range(mtu=TUNNEL_BYTES)


def to_peer(scene: Scene, packet_bytes: int) -> Packet:
    """Of this length from the network header on."""
    sent = replace(scene.tcp(scene.at.a, scene.at.c, flags=ACK), data=b"")
    return replace(sent, data=bytes(packet_bytes - len(sent.network)))


@pytest.mark.parametrize(
    ("packet_bytes", "fits"), [(1_210, True), (1_211, True), (1_350, True), (1_351, False)]
)
def test_what_is_longer_than_a_tunnels_path_takes_the_stack(
    scene: Scene, links: Links, packet_bytes: int, fits: bool
) -> None:
    narrow_tunnel(scene, links)
    with inside(links.here):
        frame = to_peer(scene, packet_bytes).frame
        done = scene.node.repeat("from_pod", frame, 1, ifindex=links.pod)
    assert done.verdict == (Action.REDIRECT if fits else Action.NEXT & 0xFFFFFFFF)


@pytest.mark.parametrize("usual_bytes", [100, 1_300])
def test_the_longer_packets_of_a_busy_flow_are_measured_too(
    scene: Scene, links: Links, usual_bytes: int
) -> None:
    narrow_tunnel(scene, links)
    with inside(links.here):
        scene.node.repeat("from_pod", to_peer(scene, usual_bytes).frame, 1, ifindex=links.pod)
        await_tick()
        scene.node.repeat("from_pod", to_peer(scene, usual_bytes).frame, 2, ifindex=links.pod)
        too_long = to_peer(scene, TUNNEL_BYTES + 1).frame
        done = scene.node.repeat("from_pod", too_long, 1, ifindex=links.pod)
    assert done.verdict == Action.NEXT & 0xFFFFFFFF


@pytest.mark.parametrize(("segment_bytes", "fits"), [(1_000, True), (1_330, False)])
def test_datagrams_to_be_segmented_are_measured_against_the_tunnels_path(
    scene: Scene, links: Links, segment_bytes: int, fits: bool
) -> None:
    narrow_tunnel(scene, links)
    address_of_pod(scene.at, links)
    told: list[Event] = []
    send_segments(scene, links, scene.at.c, segment_bytes)
    wait_for(lambda: bool(new_flows(scene, told)), "the pod's packet to be told of")
    (event,) = new_flows(scene, told)
    assert event.reason == (Reason.TUNNELLED if fits else Reason.STACK)


@pytest.mark.parametrize(("segment_bytes", "fits"), [(1_000, True), (1_350, True), (1_351, False)])
def test_a_stream_to_be_segmented_is_measured_against_the_tunnels_path(
    scene: Scene, links: Links, tap: Tap, segment_bytes: int, fits: bool
) -> None:
    narrow_tunnel(scene, links)
    scene.pod(scene.at.a, ifindex=tap.ifindex)
    told: list[Event] = []
    tap.send_segments(to_peer(scene, segment_bytes))
    wait_for(lambda: bool(new_flows(scene, told, TCP)), "the pod's packet to be told of")
    (event,) = new_flows(scene, told, TCP)
    assert event.reason == (Reason.TUNNELLED if fits else Reason.STACK)
    assert event.bytes > 2 * segment_bytes


# --- An answer that is longer than what its client's uplink carries -------------------------------
def test_an_answer_too_long_for_its_clients_uplink_gets_its_vip_behind_the_stack(
    scene: Scene, links: Links
) -> None:
    """The first of its kind on the node, too: to_uplink looks nothing up before one was seen."""
    scene.settings(overlay_ifindex=links.narrow)
    scene.pod(scene.at.a, ifindex=links.pod)
    scene.service(UDP, scene.at.a)
    ends = ADDRESSES[4].uplink, ADDRESSES[6].uplink
    scene.node.put("uplinks", links.narrow, Uplink(*ends, 0))
    (link,) = json.loads(run("ip", "-n", links.here, "-j", "link", "show", "narrow"))
    sent = replace(
        scene.udp(scene.at.outside, scene.at.vip),
        eth_dst=bytes.fromhex(link["address"].replace(":", "")),
    )
    with inside(links.here):
        scene.node.repeat("from_uplink", sent.frame, 1, ifindex=links.narrow,
                          received_on=links.narrow)  # fmt: skip
        reply = replace(answer(replace(sent, dst=scene.at.a, dport=8080)), eth_src=MAC_A)
        assert scene.flow(reply).ifindex == links.narrow
        long = replace(reply, data=bytes(1_600))
        done = scene.node.repeat("from_pod", long.frame, 1, ifindex=links.pod)
        assert done.verdict == Action.NEXT & 0xFFFFFFFF
        assert read(done.packet).src == scene.at.a
        piece = replace(reply, data=bytes(1_000)).frame
        outcome = scene.node.run("to_uplink", piece, ifindex=links.narrow, received_on=links.pod)
    assert outcome.reason is Reason.ANSWERED
    assert read(outcome.packet).src == scene.at.vip
