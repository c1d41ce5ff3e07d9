"""Fragments: the first one leaves its ports, later ones find them, strays are dropped."""

from dataclasses import replace

from tests.packet.packets import UDP, Packet, read
from tests.packet.runner import Action
from tests.packet.scene import MAC_B, Scene, answer
from weft.bpf.layout import Direction, Reason


def fragments(packet: Packet) -> tuple[Packet, Packet]:
    """Of 1,000 bytes; the checksum covers the whole."""
    whole = replace(packet, data=bytes(range(250)) * 4, ident=0x1234)
    body = whole.transport
    # 992 bytes of it, then the rest; the first one's own header is built anew over all its data.
    first = replace(whole, data=whole.data[:984], more=True)
    return first, replace(whole, data=body[992:], offset=992)


def test_both_fragments_of_a_datagram_are_delivered(scene: Scene) -> None:
    scene.two_pods()
    for fragment in fragments(scene.udp(scene.at.a, scene.at.b)):
        outcome = scene.send(fragment)
        assert outcome.counted == {(Reason.DELIVERED, Direction.FROM_POD): 1}
        assert read(outcome.packet).data == fragment.data
    assert len(scene.node.rows("flows")) == 1


def test_a_fragment_without_its_first_is_dropped(scene: Scene) -> None:
    scene.two_pods()
    _, later = fragments(scene.udp(scene.at.a, scene.at.b))
    outcome = scene.send(later)
    assert (outcome.action, outcome.reason) == (Action.DROP, Reason.FRAGMENT_UNKNOWN)


def test_fragments_to_a_vip_and_back_are_translated(scene: Scene) -> None:
    scene.two_pods()
    scene.service(UDP, scene.at.b)
    first, later = fragments(scene.udp(scene.at.a, scene.at.vip))
    got = read(scene.send(first).packet)
    assert (got.dst, got.dport) == (scene.at.b, 8080)
    rest = read(scene.send(later).packet)
    assert (rest.dst, rest.data, rest.checksums_hold) == (scene.at.b, later.data, True)
    back = replace(answer(scene.udp(scene.at.a, scene.at.b, dport=8080)), eth_src=MAC_B)
    for fragment in fragments(back):
        assert read(scene.send(fragment).packet).src == scene.at.vip


def test_a_spoofed_first_fragment_leaves_no_ports(scene: Scene) -> None:
    scene.two_pods()
    first, _ = fragments(scene.udp(scene.at.a, scene.at.b))
    scene.send(replace(first, eth_src=MAC_B))
    assert not scene.node.rows("fragments")


def test_fragments_leave_an_uplink_and_come_back_whole(scene: Scene) -> None:
    scene.pod(scene.at.a)
    scene.uplink()
    sent = fragments(scene.udp(scene.at.a, scene.at.outside))
    left = [read(scene.node.run("to_uplink", one.frame).packet) for one in sent]
    assert [one.src for one in left] == [scene.at.uplink] * 2
    assert all(one.checksums_hold for one in left)
    whole = replace(answer(scene.udp(scene.at.uplink, scene.at.outside)), dport=left[0].sport)
    for fragment in fragments(whole):
        outcome = scene.node.run("from_uplink", fragment.frame)
        assert outcome.reason is Reason.RESTORED
        assert read(outcome.packet).dst == scene.at.a


def test_a_stray_fragment_at_the_uplink_is_the_nodes_own(scene: Scene) -> None:
    scene.uplink()
    _, later = fragments(scene.udp(scene.at.outside, scene.at.uplink))
    outcome = scene.node.run("from_uplink", later.frame)
    assert (outcome.action, outcome.reason) == (Action.NEXT, Reason.NOT_OURS)
