"""A wire to a real VXLAN device whose packets come to from_overlay: a test run cannot give a packet
its tunnel."""

import os
import socket
import struct
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace

from tests.netns.hook_scene import inside, namespace, run, wait_for, wait_until_carrying
from tests.packet.packets import UDP, Address, Packet
from tests.packet.runner import Node
from tests.packet.scene import ADDRESSES, MAC_B
from weft.bpf.clsact import LinkDirection, set_filter
from weft.bpf.layout import Direction, Reason
from weft.bpf.rtnl import Rtnl

VXLAN_PORT, VNI = 8472, 7
NODE_MAC = bytes.fromhex("02000000aa01")


@dataclass(frozen=True, slots=True)
class Wire:
    """The other end of the node's underlay link."""

    node: Node
    far: socket.socket

    def believed(self) -> dict[Reason, int]:
        counts = self.node.counts()
        return {why: n for (why, way), n in counts.items() if way is Direction.FROM_OVERLAY}

    def carry(self, inner: bytes, *, sender: Address, vni: int = VNI) -> Reason:
        """An inner frame from the node `sender` to this one; what from_overlay made of it."""
        data = struct.pack("!II", 0x08000000, vni << 8) + inner
        to = ADDRESSES[sender.version].uplink
        outer = Packet(src=sender, dst=to, proto=UDP, sport=50_000, dport=VXLAN_PORT, data=data)
        before = self.believed()
        self.far.send(replace(outer, eth_src=MAC_B, eth_dst=NODE_MAC).frame)
        wait_for(lambda: self.believed() != before, "the packet to leave its tunnel")
        (reason,) = (why for why, n in self.believed().items() if n != before.get(why, 0))
        return reason


@contextmanager
def wired(node: Node) -> Iterator[Wire]:
    """A node's underlay link and overlay, in a namespace, with from_overlay on it."""
    name = f"wt-tunnel-{os.getpid()}"
    with ExitStack() as stack:
        here = stack.enter_context(namespace(name))
        there = stack.enter_context(namespace(f"{name}-far"))
        run("ip", "-n", here, "link", "add", "under", "address", NODE_MAC.hex(":"), "type", "veth",
            "peer", "name", "far", "netns", there)  # fmt: skip
        run("ip", "-n", there, "link", "set", "far", "up")
        run("ip", "-n", here, "link", "set", "under", "up")
        wait_until_carrying("far", namespace=there)
        for version, bits in ((4, "24"), (6, "64")):
            address = f"{ADDRESSES[version].uplink}/{bits}"
            nodad = ["nodad"] if version == 6 else []
            run("ip", "-n", here, "address", "add", address, "dev", "under", *nodad)
        run("ip", "-n", here, "link", "add", "vx", "type", "vxlan", "external", "dstport",
            str(VXLAN_PORT), "udp6zerocsumrx")  # fmt: skip
        run("ip", "-n", here, "link", "set", "vx", "up")
        with inside(here), Rtnl() as rtnl:
            place = (socket.if_nametoindex("vx"), LinkDirection.INGRESS)
            attached = set_filter(rtnl, *place, "from_overlay", node.programs["from_overlay"].fd)
            assert not attached.error, attached
        with inside(there):
            far = stack.enter_context(socket.socket(socket.AF_PACKET, socket.SOCK_RAW))
            far.bind(("far", 0))
        yield Wire(node, far)
