"""What a link carries: packets by their length, those still to be segmented by their segments.

A test run knows no transport header in what is to be segmented, so those come from a real socket.
"""

import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace

import pytest

from tests.netns.hook_scene import inside, namespace, run, wait_for
from tests.packet.packets import ACK, UDP
from tests.packet.runner import Action, Node
from tests.packet.scene import MAC_A, MAC_B, Addresses, Scene
from weft.bpf.clsact import LinkDirection, set_filter
from weft.bpf.layout import Event, Reason
from weft.bpf.rtnl import Rtnl

MTU_BYTES, WIDE_BYTES = 1500, 9000
_UDP_SEGMENT = 103  # linux/udp.h
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
    wait_for(lambda: bool(new_udp_flows(scene, told)), "the pod's packet to be told of")
    (event,) = new_udp_flows(scene, told)
    assert event.reason == (SENT[way] if fits else Reason.STACK)
    assert event.bytes > 3 * segment_bytes


def new_udp_flows(scene: Scene, told: list[Event]) -> list[Event]:
    told += scene.node.told()
    return [event for event in told if event.tuple.proto == UDP]


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
