"""Owns what the programs' bench sends through each program: one crossing for each path of the table
of paths, as a packet of a flow that is known and as the first one of a new flow.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from ipaddress import IPv4Address

from tests.bench.preamble import Given, Numbering, Tunnel
from tests.packet.packets import ACK, Packet, read
from tests.packet.scene import HOST_MAC, LINK, UPLINK, Scene, answer
from tests.packet.test_fragments import fragments
from weft.bpf.layout import Direction, Reason

VNI, HELD_MARK = 7, 0x68656C64
# In an Ethernet frame with an IPv4 header.
IDENT, SPORT, DPORT = Numbering(18), Numbering(34), Numbering(36)
FLOWS = 4096
# The loopback's, which test runs take for the uplink: frames for it are this host's.
UPLINK_MAC = bytes(6)


@dataclass(frozen=True, slots=True)
class Crossing:
    """One way through one program. known: a flow's packet, once `prepare` has made the flow; new:
    what differs from the known one in its first packet, numbered so that each is another flow's.
    many: known packets of many flows too, where a single flow's are recalled. burst: so many new
    ones in a row.
    """

    name: str
    program: str
    reason: Reason
    known: Given | None = None
    new: Given | None = None
    many: bool = False
    prepare: Callable[[Scene], object] = lambda scene: None
    burst: int = 4_000

    @property
    def exit(self) -> tuple[Reason, Direction]:
        name = "held" if self.program.startswith("held") else self.program
        return self.reason, Direction[name.upper()]


def crossings(scene: Scene) -> list[Crossing]:
    return [
        *from_pods(scene),
        *to_pods(scene),
        *between_nodes(scene),
        *at_uplinks(scene),
        *in_pieces(scene),
        *on_hold(scene),
    ]


def from_pods(scene: Scene) -> list[Crossing]:
    at = scene.at
    calls = scene.tcp(at.a, at.b, dport=8080)
    here = Given(replace(calls, flags=ACK).frame)
    vip, far, out = (Given(scene.udp(at.a, to, dport=port).frame) for to, port in
                     ((at.vip, 80), (at.c, 8080), (at.outside, 8080)))  # fmt: skip
    return [
        Crossing("from_pod, pod here", "from_pod", Reason.DELIVERED, here,
                 Given(calls.frame, numbering=SPORT), True, lambda s: s.send(calls)),
        Crossing("from_pod, VIP with its endpoint here", "from_pod", Reason.DELIVERED, vip,
                 numbered(vip)),
        Crossing("from_pod, pod there by tunnel", "from_pod", Reason.TUNNELLED, far,
                 numbered(far), True, Scene.remote_range),
        Crossing("from_pod, pod there direct", "from_pod", Reason.DIRECT, far, numbered(far), True,
                 Scene.direct_range),
        Crossing("from_pod, to outside", "from_pod", Reason.STACK, out, numbered(out), False,
                 answered_from_outside),
    ]  # fmt: skip


def to_pods(scene: Scene) -> list[Crossing]:
    at = scene.at
    came = to_pod(scene.udp(at.outside, at.b, dport=8080), UPLINK)
    own = to_pod(scene.udp(at.uplink, at.b, dport=8080), 0)
    return [
        Crossing("to_pod, from outside", "to_pod", Reason.STACK, came, numbered(came)),
        Crossing("to_pod, from its own node", "to_pod", Reason.STACK, own, numbered(own)),
    ]


def between_nodes(scene: Scene) -> list[Crossing]:
    at = scene.at
    came = scene.udp(at.c, at.b, dport=8080)
    assert isinstance(at.peer_node, IPv4Address)
    tunnelled = Given(came.frame, LINK, tunnel=Tunnel(VNI, at.peer_node))
    direct = Given(replace(came, eth_dst=UPLINK_MAC).frame, UPLINK)
    leaves = Given(scene.udp(at.gateway, at.c).frame)
    return [
        Crossing("from_overlay", "from_overlay", Reason.DELIVERED, tunnelled,
                 numbered(tunnelled), True, Scene.remote_range),
        Crossing("to_overlay", "to_overlay", Reason.TUNNELLED, leaves,
                 prepare=Scene.remote_range),
        Crossing("from_uplink, direct", "from_uplink", Reason.DELIVERED, direct,
                 numbered(direct), True, Scene.direct_range),
    ]  # fmt: skip


def at_uplinks(scene: Scene) -> list[Crossing]:
    at = scene.at
    sent = scene.udp(at.a, at.outside)
    out = Given(sent.frame, LINK)
    left = read(scene.node.run("to_uplink", sent.frame, received_on=LINK).packet)
    row = dict(scene.node.rows("snat"))
    own = Given(scene.udp(at.uplink, at.outside).frame)
    comes = Given(scene.udp(at.outside, at.uplink).frame, UPLINK)
    return [
        Crossing("to_uplink, masqueraded", "to_uplink", Reason.MASQUERADED, out,
                 replace(out, numbering=DPORT)),
        Crossing("to_uplink, the node's own", "to_uplink", Reason.NOT_OURS, own),
        Crossing("from_uplink, reply to a masqueraded flow", "from_uplink", Reason.RESTORED,
                 Given(answer(left).frame, UPLINK),
                 prepare=lambda s: s.node.tables["snat"].update(row)),
        Crossing("from_uplink, for the node itself", "from_uplink", Reason.NOT_OURS, comes),
    ]  # fmt: skip


def in_pieces(scene: Scene) -> list[Crossing]:
    """new: a first fragment, which leaves its ports for the rest."""
    first, later = fragments(scene.udp(scene.at.a, scene.at.b, dport=8080))
    return [
        Crossing("from_pod, fragments", "from_pod", Reason.DELIVERED, Given(later.frame),
                 Given(first.frame, numbering=IDENT), False, lambda s: s.send(first)),
    ]  # fmt: skip


def on_hold(scene: Scene) -> list[Crossing]:
    """A fragment's first is not known. Jiffies in a second: none, so that the second in which a
    sender may hold 256 packets is a tick; very many, so that no packet waited for too long."""
    _, later = fragments(scene.udp(scene.at.a, scene.at.c, dport=8080))
    waits, back = Given(later.frame, numbering=IDENT), Given(later.frame, mark=HELD_MARK)
    return [
        Crossing("from_pod, held", "from_pod", Reason.HELD, new=waits, burst=200,
                 prepare=partial(with_hold_link, hz=0)),
        Crossing("from_pod, held once more", "from_pod", Reason.HELD, back,
                 prepare=partial(with_hold_link, hz=100_000)),
        Crossing("held_from_pod, back to its link", "held_from_pod", Reason.HELD, back,
                 prepare=partial(with_hold_link, hz=100_000)),
    ]  # fmt: skip


def with_hold_link(scene: Scene, hz: int) -> None:
    scene.remote_range()
    scene.settings(hold_from_pod=LINK, hold_to_pod=LINK, hz=hz)


def numbered(given: Given) -> Given:
    return replace(given, numbering=SPORT)


def to_pod(packet: Packet, received_on: int) -> Given:
    return Given(replace(packet, eth_src=HOST_MAC).frame, received_on)


def answered_from_outside(scene: Scene) -> None:
    sent = scene.udp(scene.at.a, scene.at.outside, dport=8080)
    scene.send(sent)
    scene.node.run("to_pod", to_pod(answer(sent), 0).frame, received_on=UPLINK)
