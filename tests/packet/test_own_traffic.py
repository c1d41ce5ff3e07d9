"""What the node itself sends to Services past its sockets' hooks, where it would leave."""

from dataclasses import replace

import pytest

from tests.packet.packets import ACK, RST, SYN, TCP, Packet, read
from tests.packet.runner import Action, Outcome
from tests.packet.scene import (
    HOST_MAC,
    MAC_A,
    OTHER_LINK,
    OVERLAY_PORT,
    UPLINK,
    Scene,
    answer,
)
from weft.bpf.layout import (
    Direction,
    Frontend,
    FrontendFlag,
    FrontendKey,
    PrefixFlag,
    Reason,
)

ROUTER_MAC = bytes.fromhex("0200000000ee")


@pytest.fixture
def own(scene: Scene) -> Scene:
    """The VIP serves TCP port 80, in a range of Services."""
    scene.pod(scene.at.a)
    scene.uplink()
    scene.prefix(scene.at.services, PrefixFlag.SERVICE)
    scene.service(TCP, scene.at.a)
    return scene


def leave(scene: Scene, packet: Packet, received_on: int = 0) -> Outcome:
    packet = replace(packet, eth_src=HOST_MAC, eth_dst=ROUTER_MAC)
    return scene.node.run("to_uplink", packet.frame, ifindex=UPLINK, received_on=received_on)


def whole(scene: Scene, flags: FrontendFlag) -> None:
    key = FrontendKey(scene.at.vip, 0, 0)
    scene.node.put("frontends", key, Frontend(0, 0, 0, 0, 0, flags, 0))


def test_an_address_of_a_service_range_without_service_goes_no_further(own: Scene) -> None:
    for sent in (
        own.tcp(own.at.uplink, own.at.vip + 1),
        own.udp(own.at.uplink, own.at.vip + 1),
        own.ping(own.at.uplink, own.at.vip + 1),
    ):
        outcome = leave(own, sent)
        assert outcome.action is Action.DROP
        assert outcome.counted == {(Reason.NO_SERVICE, Direction.TO_UPLINK): 1}


def test_an_unserved_port_of_a_vip_is_refused_to_the_node(own: Scene) -> None:
    sent = own.tcp(own.at.uplink, own.at.vip, dport=81)
    outcome = leave(own, sent)
    assert outcome.action is Action.REDIRECT
    assert outcome.counted == {(Reason.NO_BACKEND, Direction.TO_UPLINK): 1}
    reset = read(outcome.packet)
    assert (reset.src, reset.dst, reset.sport, reset.dport) == (
        own.at.vip, own.at.uplink, 81, 4000,
    )  # fmt: skip
    assert (reset.flags, reset.checksums_hold) == (RST | ACK, True)
    # As the router would have answered.
    assert (reset.eth_src, reset.eth_dst) == (ROUTER_MAC, HOST_MAC)
    refusal = read(leave(own, own.udp(own.at.uplink, own.at.vip)).packet)
    assert (refusal.src, refusal.checksums_hold) == (own.at.vip, True)


def test_the_nodes_echo_of_a_vip_is_answered(own: Scene) -> None:
    outcome = leave(own, own.ping(own.at.uplink, own.at.vip))
    assert outcome.action is Action.REDIRECT
    assert outcome.counted == {(Reason.ANSWERED, Direction.TO_UPLINK): 1}
    got = read(outcome.packet)
    assert (got.src, got.dst, got.checksums_hold) == (own.at.vip, own.at.uplink, True)
    assert (got.eth_src, got.eth_dst) == (ROUTER_MAC, HOST_MAC)


def test_an_exposed_address_answers_echoes_and_leaves_the_rest(own: Scene) -> None:
    whole(own, FrontendFlag.OPEN)
    assert leave(own, own.ping(own.at.uplink, own.at.vip)).reason is Reason.ANSWERED
    unserved = own.tcp(own.at.uplink, own.at.vip, dport=81)
    assert leave(own, unserved).reason is Reason.NOT_OURS


def test_a_served_port_is_the_routes_to_bring_elsewhere(own: Scene) -> None:
    sent = own.tcp(own.at.uplink, own.at.vip)
    outcome = leave(own, sent)
    assert (outcome.action, outcome.reason) == (Action.NEXT, Reason.NOT_OURS)


@pytest.mark.parametrize("flags", [ACK, SYN | ACK, RST])
def test_of_a_connection_only_its_beginning_is_asked_about(own: Scene, flags: int) -> None:
    sent = own.tcp(own.at.uplink, own.at.vip + 1, flags=flags)
    assert leave(own, sent).reason is Reason.NOT_OURS


def test_tunnels_are_not_asked_about(own: Scene) -> None:
    sent = own.udp(own.at.uplink, own.at.vip, dport=OVERLAY_PORT)
    assert leave(own, sent).reason is Reason.NOT_OURS


def test_what_others_send_is_theirs(own: Scene) -> None:
    sent = own.tcp(own.at.outside, own.at.vip + 1)
    assert leave(own, sent, received_on=OTHER_LINK).reason is Reason.NOT_OURS


def test_another_proxys_service_is_left_to_it_and_leaves_no_node(own: Scene) -> None:
    whole(own, FrontendFlag.OTHER_PROXY)
    sent = own.tcp(own.at.a, own.at.vip, dport=443)
    outcome = own.send(sent)
    assert (outcome.action, outcome.reason) == (Action.NEXT, Reason.STACK)
    replied = replace(answer(sent), eth_src=HOST_MAC, eth_dst=MAC_A)
    assert own.node.run("to_pod", replied.frame, received_on=OTHER_LINK).reason is Reason.STACK
    assert leave(own, sent, received_on=1).reason is Reason.NO_SERVICE
    from_node = own.tcp(own.at.uplink, own.at.vip, dport=443)
    assert leave(own, from_node).reason is Reason.NO_SERVICE


def test_another_proxys_service_is_left_to_it_from_outside(own: Scene) -> None:
    whole(own, FrontendFlag.OTHER_PROXY)
    sent = replace(own.tcp(own.at.outside, own.at.vip, dport=443), eth_dst=bytes(6))
    outcome = own.node.run("from_uplink", sent.frame, ifindex=UPLINK, received_on=UPLINK)
    assert outcome.reason is Reason.NOT_OURS
