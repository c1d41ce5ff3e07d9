"""A busy flow: packets of one tick are recalled, and still counted, proven and followed."""

from dataclasses import replace

import pytest

from tests.packet.packets import ACK, FIN, RST, TCP, UDP, Packet, read
from tests.packet.runner import Action, await_tick
from tests.packet.scene import HOST_MAC, MAC_B, OTHER_LINK, Scene, answer
from weft.bpf.layout import Direction, FlowFlag, Reason

BUSY = 1_000


def busy(scene: Scene, sent: Packet) -> Packet:
    """An established flow whose packets come all the time. Delivery leaves them good for another
    run, as the sender's MAC is what it writes."""
    scene.pod(scene.at.a, mac=HOST_MAC)
    sent = replace(sent, eth_src=HOST_MAC)
    scene.send(sent)
    await_tick()
    scene.node.repeat("from_pod", replace(sent, flags=ACK).frame, BUSY)
    return sent


def test_every_packet_is_delivered_and_counted(scene: Scene) -> None:
    scene.pod(scene.at.b, mac=MAC_B)
    delivered = (Reason.DELIVERED, Direction.FROM_POD)
    before = scene.node.counts().get(delivered, 0)
    sent = busy(scene, scene.tcp(scene.at.a, scene.at.b))
    assert scene.node.counts()[delivered] == before + 1 + BUSY
    run = scene.node.repeat("from_pod", replace(sent, flags=ACK).frame, 2)
    assert run.verdict == Action.REDIRECT
    assert (read(run.packet).eth_dst, read(run.packet).eth_src) == (MAC_B, HOST_MAC)
    assert run.context[8:12] == bytes(4)


def test_every_packet_to_another_node_takes_the_overlay(scene: Scene) -> None:
    scene.remote_range()
    tunnelled = (Reason.TUNNELLED, Direction.FROM_POD)
    before = scene.node.counts().get(tunnelled, 0)
    busy(scene, scene.udp(scene.at.a, scene.at.c))
    assert scene.node.counts()[tunnelled] == before + 1 + BUSY


def test_every_packet_to_a_node_on_the_same_link_goes_there(scene: Scene) -> None:
    scene.direct_range()
    direct = (Reason.DIRECT, Direction.FROM_POD)
    before = scene.node.counts().get(direct, 0)
    busy(scene, scene.udp(scene.at.a, scene.at.c))
    assert scene.node.counts()[direct] == before + 1 + BUSY


def test_another_mac_and_another_link_are_not_taken_for_the_sender(scene: Scene) -> None:
    scene.pod(scene.at.b, mac=MAC_B)
    sent = replace(busy(scene, scene.tcp(scene.at.a, scene.at.b)), flags=ACK)
    forged = replace(sent, eth_src=MAC_B)
    assert scene.node.repeat("from_pod", forged.frame, 1).verdict == Action.DROP
    scene.node.repeat("from_pod", sent.frame, 2)
    scene.pod(scene.at.a, mac=HOST_MAC, ifindex=OTHER_LINK)
    outcome = scene.send(sent)
    assert (outcome.action, outcome.reason) == (Action.DROP, Reason.SOURCE_SPOOFED)


@pytest.mark.parametrize(
    ("flags", "leaves"), [(FIN | ACK, FlowFlag.FIN_INITIATOR), (RST, FlowFlag.CLOSING)]
)
def test_the_end_of_a_connection_is_seen(scene: Scene, flags: int, leaves: FlowFlag) -> None:
    scene.pod(scene.at.b, mac=MAC_B)
    sent = busy(scene, scene.tcp(scene.at.a, scene.at.b))
    scene.node.repeat("from_pod", replace(sent, flags=flags).frame, 1)
    assert scene.flow(sent).flags & leaves


def test_both_directions_are_kept_apart(scene: Scene) -> None:
    scene.pod(scene.at.b, mac=MAC_B)
    sent = busy(scene, scene.udp(scene.at.a, scene.at.b))
    back = replace(answer(sent), eth_src=MAC_B)
    run = scene.node.repeat("from_pod", back.frame, 1)
    assert run.verdict == Action.REDIRECT
    assert read(run.packet).eth_dst == HOST_MAC
    assert scene.flow(sent).flags & FlowFlag.REPLIED


@pytest.mark.parametrize("proto", [TCP, UDP])
def test_packets_to_a_vip_are_translated_every_time(scene: Scene, proto: int) -> None:
    scene.two_pods()
    scene.service(proto, scene.at.b)
    make = scene.tcp if proto == TCP else scene.udp
    sent = make(scene.at.a, scene.at.vip)
    scene.send(sent)
    for _ in range(3):
        got = read(scene.node.repeat("from_pod", replace(sent, flags=ACK).frame, 1).packet)
        assert (got.dst, got.dport, got.checksums_hold) == (scene.at.b, 8080, True)


def test_what_is_too_long_is_left_to_the_stack_all_the_same(scene: Scene) -> None:
    scene.pod(scene.at.b, mac=MAC_B, ifindex=OTHER_LINK)
    sent = busy(scene, scene.udp(scene.at.a, scene.at.b))
    long = replace(sent, data=bytes(1400))
    run = scene.node.repeat("from_pod", long.frame, 1)
    assert run.verdict == Action.NEXT & 0xFFFFFFFF
