"""Clients from outside whose backend is another node's pod: through the overlay, and back."""

from dataclasses import replace

import pytest

from tests.packet.packets import ACK, TCP, UDP, Packet, read, unreachable
from tests.packet.runner import Action, Outcome
from tests.packet.scene import HOST_MAC, MAC_A, MAC_B, OTHER_LINK, UPLINK, Scene, answer
from tests.packet.wire import Wire
from weft.bpf.layout import Direction, FlowPath, PrefixFlag, Reason, SettingFlag

UPLINK_MAC = bytes(6)
BOTH = pytest.mark.parametrize("proto", [TCP, UDP], ids=["tcp", "udp"])


@pytest.fixture(params=["tunnel", "direct"])
def entry(scene: Scene, request: pytest.FixtureRequest) -> Scene:
    """The VIP leads to this node; its backend is c, a pod of the node at peer_node, whose pods are
    reached by a tunnel or without."""
    scene.uplink()
    scene.local_range()
    if request.param == "direct":
        scene.direct_range()
    else:
        scene.remote_range()
    node_address(scene)
    return scene


@pytest.fixture
def far(scene: Scene) -> Scene:
    """a is a pod here; the client enters at the other node."""
    scene.uplink()
    scene.local_range()
    scene.direct_range()
    node_address(scene)
    scene.pod(scene.at.a, ifindex=OTHER_LINK)
    return scene


def node_address(scene: Scene) -> None:
    scene.prefix(scene.network_of(scene.at.peer_node, 32), PrefixFlag.NODE)


def from_client(scene: Scene, proto: int, dst: str = "vip") -> Packet:
    make = scene.tcp if proto == TCP else scene.udp
    one = make(scene.at.outside, getattr(scene.at, dst), dport=80 if dst == "vip" else 8080)
    return replace(one, eth_src=HOST_MAC, eth_dst=UPLINK_MAC)


def arrive(scene: Scene, packet: Packet) -> Outcome:
    return scene.node.run("from_uplink", packet.frame, ifindex=UPLINK, received_on=UPLINK)


@BOTH
def test_a_client_reaches_a_pod_of_another_node_with_its_own_address(
    entry: Scene, proto: int
) -> None:
    entry.service(proto, entry.at.c)
    outcome = arrive(entry, from_client(entry, proto))
    assert outcome.action is Action.REDIRECT
    assert outcome.counted == {(Reason.TUNNELLED, Direction.FROM_UPLINK): 1}
    got = read(outcome.packet)
    assert (got.src, got.dst, got.dport) == (entry.at.outside, entry.at.c, 8080)
    assert got.checksums_hold
    assert entry.flow(got).path == FlowPath.UPLINK
    outcome = entry.node.run("to_overlay", outcome.packet, received_on=OTHER_LINK)
    assert outcome.counted == {(Reason.TUNNELLED, Direction.TO_OVERLAY): 1}


def test_a_node_that_is_a_client_is_masqueraded_on_its_way_to_another_nodes_pod(
    entry: Scene,
) -> None:
    entry.settings(overlay_ifindex=OTHER_LINK)
    entry.service(UDP, entry.at.c)
    sent = replace(from_client(entry, UDP), src=entry.at.peer_node)
    outcome = arrive(entry, sent)
    assert (outcome.action, outcome.reason) == (Action.NEXT, Reason.STACK)
    outcome = entry.node.run("to_overlay", outcome.packet, received_on=UPLINK)
    assert outcome.reason is Reason.TUNNELLED
    masked = read(outcome.packet)
    assert (masked.src, masked.dst, masked.checksums_hold) == (entry.at.gateway, entry.at.c, True)


@BOTH
def test_without_an_overlay_the_entry_node_stands_for_the_client(scene: Scene, proto: int) -> None:
    scene.settings(overlay_ifindex=0, flags=SettingFlag.MASQUERADE)
    scene.uplink()
    scene.direct_range(OTHER_LINK)
    scene.service(proto, scene.at.c)
    outcome = arrive(scene, from_client(scene, proto))
    assert (outcome.action, outcome.reason) == (Action.NEXT, Reason.STACK)
    outcome = scene.node.run("to_uplink", outcome.packet, received_on=OTHER_LINK)
    assert outcome.reason is Reason.MASQUERADED
    assert read(outcome.packet).src == scene.at.uplink


def test_a_connection_that_is_masqueraded_stays_so_when_there_is_an_overlay(scene: Scene) -> None:
    """Its backend knows it by the entry node's address."""
    scene.settings(overlay_ifindex=0, flags=SettingFlag.MASQUERADE)
    scene.uplink()
    scene.direct_range(OTHER_LINK)
    scene.service(TCP, scene.at.c)
    sent = from_client(scene, TCP)
    arrive(scene, sent)
    scene.settings()
    outcome = arrive(scene, replace(sent, flags=ACK))
    assert (outcome.action, outcome.reason) == (Action.NEXT, Reason.STACK)
    assert arrive(scene, replace(sent, sport=4001)).reason is Reason.TUNNELLED


@BOTH
def test_a_nodes_word_of_a_client_is_believed_and_answered_through_it(
    far: Scene, wire: Wire, proto: int
) -> None:
    sent = from_client(far, proto, "a")
    assert wire.carry(sent.frame, sender=far.at.peer_node) is Reason.DELIVERED
    flow = far.flow(sent)
    assert (flow.path, flow.vip) == (FlowPath.ENTRY, far.at.peer_node)
    far.pod(far.at.a)
    replied = replace(answer(sent, flags=ACK), eth_src=MAC_A)
    outcome = far.send(replied)
    assert outcome.counted == {(Reason.TUNNELLED, Direction.FROM_POD): 1}
    assert outcome.packet == replied.frame
    outcome = far.node.run("to_overlay", outcome.packet, received_on=UPLINK)
    assert outcome.counted == {(Reason.TUNNELLED, Direction.TO_OVERLAY): 1}


def test_a_pods_error_goes_back_through_the_entry_node(far: Scene, wire: Wire) -> None:
    sent = from_client(far, UDP, "a")
    wire.carry(sent.frame, sender=far.at.peer_node)
    far.pod(far.at.a)
    error = unreachable(far.at.a, far.at.outside, sent.network)
    outcome = far.send(replace(error, eth_src=MAC_A, eth_dst=HOST_MAC))
    assert outcome.reason is Reason.TUNNELLED
    outcome = far.node.run("to_overlay", outcome.packet, received_on=UPLINK)
    assert outcome.reason is Reason.TUNNELLED


def test_an_answer_follows_its_client_to_another_entry_node(far: Scene, wire: Wire) -> None:
    other = far.at.peer_node + 1
    far.prefix(far.network_of(other, 32), PrefixFlag.NODE)
    sent = from_client(far, UDP, "a")
    for node in (far.at.peer_node, other):
        assert wire.carry(sent.frame, sender=node) is Reason.DELIVERED
        assert far.flow(sent).vip == node


@pytest.mark.parametrize("whose", ["b", "vip", "gateway", "peer_node"])
def test_no_node_brings_a_client_that_the_cluster_knows(far: Scene, wire: Wire, whose: str) -> None:
    far.prefix(far.at.services, PrefixFlag.SERVICE)
    inner = replace(from_client(far, UDP, "a"), src=getattr(far.at, whose))
    assert wire.carry(inner.frame, sender=far.at.peer_node) is Reason.OVERLAY_SOURCE


def test_who_is_no_node_brings_nobody(far: Scene, wire: Wire) -> None:
    stranger = far.at.peer_node + 60
    inner = from_client(far, UDP, "a").frame
    assert wire.carry(inner, sender=stranger) is Reason.OVERLAY_SOURCE


@BOTH
def test_the_entry_node_puts_the_vip_back_and_sends_out(
    entry: Scene, wire: Wire, proto: int
) -> None:
    entry.service(proto, entry.at.c)
    got = read(arrive(entry, from_client(entry, proto)).packet)
    back = replace(answer(got, flags=ACK), eth_src=MAC_B)
    assert wire.carry(back.frame, sender=entry.at.peer_node) is Reason.ANSWERED
    unasked = replace(back, dport=4001)
    assert wire.carry(unasked.frame, sender=entry.at.peer_node) is Reason.NO_WORKLOAD


@BOTH
def test_the_stack_brings_a_client_back_what_it_sent_to_another_nodes_pod(
    entry: Scene, wire: Wire, proto: int
) -> None:
    sent = from_client(entry, proto, "c")
    outcome = entry.node.run("to_overlay", sent.frame, received_on=OTHER_LINK)
    assert outcome.reason is Reason.TUNNELLED
    assert read(outcome.packet).src == entry.at.outside
    assert entry.flow(sent).path == FlowPath.STACK
    back = replace(answer(sent, flags=ACK), eth_src=MAC_B)
    assert wire.carry(back.frame, sender=entry.at.peer_node) is Reason.STACK
    unasked = replace(back, dport=4001)
    assert wire.carry(unasked.frame, sender=entry.at.peer_node) is Reason.NO_WORKLOAD


def test_whom_the_cluster_knows_is_no_client_that_the_stack_brings_back(
    entry: Scene, wire: Wire
) -> None:
    sent = replace(from_client(entry, UDP, "c"), src=entry.at.peer_node)
    outcome = entry.node.run("to_overlay", sent.frame, received_on=OTHER_LINK)
    assert outcome.reason is Reason.TUNNELLED
    back = replace(answer(sent, flags=ACK), eth_src=MAC_B)
    assert wire.carry(back.frame, sender=entry.at.peer_node) is Reason.NO_WORKLOAD
