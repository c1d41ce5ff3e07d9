"""A direct path on real links: the kernel finds the next hop, and the peer's packet enters the pod.

A test run reports a redirect and carries nothing.
"""

import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace

import pytest

from tests.netns.hook_scene import inside, namespace, run, wait_until_carrying
from tests.packet.packets import Packet, read
from tests.packet.runner import Node
from tests.packet.scene import ADDRESSES, HOST_MAC, MAC_A, Scene
from weft.bpf.clsact import LinkDirection, set_filter
from weft.bpf.rtnl import Rtnl

UPLINK_MAC, PEER_MAC = bytes.fromhex("02000000aa01"), bytes.fromhex("02000000aa02")
_ALL_PROTOCOLS = 3  # linux/if_ether.h
_WAIT_S = 5


@dataclass(frozen=True, slots=True)
class Wires:
    """A pod's end of its link, and the far end of the node's; both as raw sockets."""

    pod: socket.socket
    far: socket.socket
    pod_link: int
    uplink: int


def raw(name: str) -> socket.socket:
    made = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ALL_PROTOCOLS))
    made.bind((name, 0))
    made.settimeout(_WAIT_S)
    return made


def link(here: str, name: str, mac: bytes, there: str, far: str, far_mac: bytes) -> None:
    run("ip", "-n", here, "link", "add", name, "address", mac.hex(":"), "type", "veth",
        "peer", "name", far, "address", far_mac.hex(":"), "netns", there)  # fmt: skip
    run("ip", "-n", here, "link", "set", name, "up")
    run("ip", "-n", there, "link", "set", far, "up")
    wait_until_carrying(name, namespace=here)


@pytest.fixture(scope="module")
def wires(node: Node) -> Iterator[Wires]:
    with ExitStack() as stack:
        here, pod, peer = (
            stack.enter_context(namespace(f"dp-wire-{end}-{os.getpid()}"))
            for end in ("node", "pod", "peer")
        )
        link(here, "pod", HOST_MAC, pod, "eth0", MAC_A)
        link(here, "under", UPLINK_MAC, peer, "far", PEER_MAC)
        for at in ADDRESSES.values():
            run("ip", "-n", here, "neighbour", "add", str(at.peer_node), "dev", "under",
                "lladdr", PEER_MAC.hex(":"), "nud", "permanent")  # fmt: skip
        run("ip", "-n", here, "address", "add", f"{ADDRESSES[4].uplink}/24", "dev", "under")
        with inside(here), Rtnl() as rtnl:
            links = [socket.if_nametoindex(name) for name in ("pod", "under")]
            for ifindex, program in zip(links, ("from_pod", "from_uplink"), strict=True):
                fd = node.programs[program].fd
                attached = set_filter(rtnl, ifindex, LinkDirection.INGRESS, program, fd)
                assert not attached.error, attached
        with inside(pod):
            pods = stack.enter_context(raw("eth0"))
        with inside(peer):
            fars = stack.enter_context(raw("far"))
        yield Wires(pods, fars, *links)


@pytest.fixture
def peers(scene: Scene, wires: Wires) -> Scene:
    scene.pod(scene.at.a, ifindex=wires.pod_link)
    scene.direct_range(ifindex=wires.uplink)
    return scene


def received(at: socket.socket, sent: Packet) -> Packet:
    """What came of `sent`, among what the kernel says of its own."""
    while True:
        frame = at.recv(2048)
        if frame[12:14] == sent.frame[12:14] and sent.data in frame:
            return read(frame)


def test_what_a_pod_sends_goes_to_its_peers_node(peers: Scene, wires: Wires) -> None:
    sent = peers.udp(peers.at.a, peers.at.c)
    wires.pod.send(sent.frame)
    got = received(wires.far, sent)
    assert got == replace(sent, eth_src=UPLINK_MAC, eth_dst=PEER_MAC)


def test_what_a_peer_sends_comes_into_the_pod(peers: Scene, wires: Wires) -> None:
    sent = replace(peers.udp(peers.at.c, peers.at.a), eth_src=PEER_MAC, eth_dst=UPLINK_MAC)
    wires.far.send(sent.frame)
    got = received(wires.pod, sent)
    assert got == replace(sent, eth_src=HOST_MAC, eth_dst=MAC_A)
