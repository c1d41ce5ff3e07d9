"""ICMP errors made of packets whose checksum was still to be filled in, as a neighbouring guest's
are, or what a link has joined to one: they arrive with checksums that hold.

A test run's packets have theirs; so these come by a tap, and what goes back is read there, where
the kernel fills in what it thinks is missing.
"""

import fcntl
import os
import socket
import struct
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from select import select
from typing import BinaryIO

import pytest

from tests.netns.hook_scene import inside, namespace, run
from tests.netns.tunnel import TUNSETIFF
from tests.packet.packets import (
    ACK,
    PORT_UNREACHABLE,
    TCP,
    TOO_BIG,
    UDP,
    UNREACHABLE,
    Packet,
    checksum,
    read,
)
from tests.packet.runner import Node
from tests.packet.scene import ADDRESSES, HOST_MAC, SERVICE, Scene
from weft.bpf.clsact import LinkDirection, set_filter
from weft.bpf.layout import Frontend, FrontendFlag, FrontendKey, PrefixFlag
from weft.bpf.rtnl import Rtnl

TUNNEL_BYTES, ETH_BYTES, LIMIT_S = 1350, 14, 5
CLIENT_MAC = bytes.fromhex("02000000cc01")
CHECKSUM_AT = {TCP: 16, UDP: 6}
# linux/if_tun.h: IFF_TAP, IFF_NO_PI, IFF_VNET_HDR; linux/virtio_net.h.
_TAP, _NO_INFO, _SIZES, _SIZES_BYTES = 0x2, 0x1000, 0x4000, 10
_NEEDS_CHECKSUM, _GSO_TCP = 1, {4: 1, 6: 4}


@dataclass(frozen=True, slots=True)
class Tap:
    """An uplink whose other end is this process: a client on the same network."""

    device: BinaryIO
    ifindex: int

    def send(self, packet: Packet, segments: int = 1) -> None:
        """Its checksum covers the pseudo header only. segments: as many, as long as the packet."""
        frame, at = bytearray(replace(packet, data=segments * packet.data).frame), ETH_BYTES
        start = at + len(packet.network) - len(packet.transport)
        pseudo = checksum(packet.pseudo(len(frame) - start)) ^ 0xFFFF
        struct.pack_into("!H", frame, start + CHECKSUM_AT[packet.proto], pseudo)
        kind = _GSO_TCP[packet.version] if segments > 1 else 0
        head = at + len(packet.network) - len(packet.data)
        size = len(packet.data) if segments > 1 else 0
        sizes = (head, size, start, CHECKSUM_AT[packet.proto])
        self.device.write(struct.pack("=BBHHHH", _NEEDS_CHECKSUM, kind, *sizes) + bytes(frame))

    def answer(self, error: tuple[int, int]) -> Packet:
        """The next ICMP error of that type and code which comes back."""
        while select([self.device], [], [], LIMIT_S)[0]:
            said = self.device.read(1 << 16)
            assert not said[0] & _NEEDS_CHECKSUM
            frame = said[_SIZES_BYTES:]
            if frame[12:14] in (b"\x08\x00", b"\x86\xdd"):
                packet = read(frame)
                if (packet.sport, packet.dport) == error:
                    return packet
        raise AssertionError(f"no error {error} within {LIMIT_S} s")


@pytest.fixture(scope="module")
def tap(node: Node) -> Iterator[Tap]:
    with ExitStack() as stack:
        here = stack.enter_context(namespace(f"dp-partial-{os.getpid()}"))
        stack.enter_context(inside(here))
        device = stack.enter_context(open("/dev/net/tun", "r+b", buffering=0))
        fcntl.ioctl(device, TUNSETIFF, struct.pack("16sH22x", b"up0", _TAP | _NO_INFO | _SIZES))
        run("ip", "link", "set", "up0", "address", HOST_MAC.hex(":"), "up")
        for version, bits in ((4, "32"), (6, "128")):
            family, outside = f"-{version}", str(ADDRESSES[version].outside)
            nodad = ["nodad"] if version == 6 else []
            run("ip", "address", "add", f"{ADDRESSES[version].uplink}/{bits}", "dev", "up0", *nodad)
            run("ip", family, "route", "add", outside, "dev", "up0")
            run("ip", family, "neighbour", "add", outside, "dev", "up0",
                "lladdr", CLIENT_MAC.hex(":"), "nud", "permanent")  # fmt: skip
        rtnl = stack.enter_context(Rtnl())
        made = Tap(device, socket.if_nametoindex("up0"))
        place = (made.ifindex, LinkDirection.INGRESS)
        attached = set_filter(rtnl, *place, "from_uplink", node.programs["from_uplink"].fd)
        assert not attached.error, attached
        yield made


def dialled(scene: Scene, proto: int, data_bytes: int) -> Packet:
    make = scene.tcp if proto == TCP else scene.udp
    sent = replace(make(scene.at.outside, scene.at.vip), whole=scene.version == 4)
    sent = replace(sent, eth_src=CLIENT_MAC, eth_dst=HOST_MAC, flags=ACK if proto == TCP else 0)
    return replace(sent, data=bytes(at % 251 for at in range(data_bytes)))


@pytest.mark.parametrize(
    ("proto", "segments"), [(TCP, 1), (TCP, 3), (UDP, 1)], ids=["tcp", "joined tcp", "udp"]
)
def test_too_big_is_said_with_checksums_that_hold(
    scene: Scene, tap: Tap, proto: int, segments: int
) -> None:
    scene.settings(overlay_ifindex=tap.ifindex)
    scene.prefix(scene.at.peer_range, PrefixFlag.REMOTE, scene.at.peer_node, mtu=TUNNEL_BYTES)
    scene.service(proto, scene.at.c)
    # In the middle of a connection only the ring knows the backend: here the one there is.
    row = Frontend(SERVICE, 0, 1, 0, 0, FrontendFlag.EXTERNAL, 1)
    scene.node.put("frontends", FrontendKey(scene.at.vip, 80, proto), row)
    sent = dialled(scene, proto, 1_400)
    tap.send(sent, segments)
    error = tap.answer(TOO_BIG[scene.version])
    assert error.checksums_hold
    assert (error.src, error.dst) == (scene.at.vip, scene.at.outside)
    assert scene.embedded(error).packet_ends == sent.packet_ends


@pytest.mark.parametrize("data_bytes", [0, 250, 1_250])
def test_nobody_there_is_said_with_checksums_that_hold(
    scene: Scene, tap: Tap, data_bytes: int
) -> None:
    scene.service(UDP)
    sent = dialled(scene, UDP, data_bytes)
    tap.send(sent)
    error = tap.answer((UNREACHABLE[scene.version], PORT_UNREACHABLE[scene.version]))
    assert error.checksums_hold
    assert (error.src, error.dst) == (scene.at.vip, scene.at.outside)
    assert scene.embedded(error).packet_ends == sent.packet_ends
