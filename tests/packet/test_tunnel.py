"""What the overlay believes of packets that came through a tunnel."""

from dataclasses import replace

import pytest

from tests.packet.packets import ACK, arp, unreachable
from tests.packet.scene import (
    ADDRESSES,
    INGRESS,
    MAC_A,
    MAC_B,
    OTHER_LINK,
    Scene,
    answer,
)
from tests.packet.wire import VNI, Wire
from weft.bpf.layout import FlowFlag, FlowPath, Reason, WorkloadFlag


@pytest.fixture
def peers(scene: Scene, wire: Wire) -> Scene:
    """A pod here, a node there; `wire` is up."""
    scene.pod(scene.at.a, ifindex=OTHER_LINK)
    scene.local_range()
    scene.remote_range()
    return scene


def from_c(scene: Scene, **changes: object) -> bytes:
    sent = replace(scene.tcp(scene.at.c, scene.at.a), eth_src=MAC_B, eth_dst=MAC_A)
    return replace(sent, **changes).frame  # type: ignore[arg-type]


def test_a_pod_is_reached_from_the_node_that_has_the_sender(peers: Scene, wire: Wire) -> None:
    assert wire.carry(from_c(peers), sender=peers.at.peer_node) is Reason.DELIVERED
    assert peers.flow(peers.tcp(peers.at.c, peers.at.a)).path == FlowPath.OVERLAY


def test_ipv4_pods_are_reached_over_an_ipv6_underlay(scene4: Scene, wire: Wire) -> None:
    scene4.pod(scene4.at.a)
    far_node = ADDRESSES[6].peer_node
    scene4.remote_range(node=far_node)
    assert wire.carry(from_c(scene4), sender=far_node) is Reason.DELIVERED


def test_a_peer_on_our_link_is_believed_through_the_tunnel_too(peers: Scene, wire: Wire) -> None:
    peers.direct_range()
    assert wire.carry(from_c(peers), sender=peers.at.peer_node) is Reason.DELIVERED
    stranger = peers.at.peer_node + 60
    assert wire.carry(from_c(peers), sender=stranger) is Reason.OVERLAY_SOURCE


def test_a_sender_that_is_no_node_is_not_believed(peers: Scene, wire: Wire) -> None:
    stranger = peers.at.peer_node + 60
    assert wire.carry(from_c(peers), sender=stranger) is Reason.OVERLAY_SOURCE


@pytest.mark.parametrize("whose", ["b", "outside", "vip", "gateway"])
def test_a_node_speaks_for_its_own_range_only(peers: Scene, wire: Wire, whose: str) -> None:
    inner = from_c(peers, src=getattr(peers.at, whose))
    assert wire.carry(inner, sender=peers.at.peer_node) is Reason.OVERLAY_SOURCE


def test_another_network_of_tunnels_is_not_ours(peers: Scene, wire: Wire) -> None:
    inner = from_c(peers)
    assert wire.carry(inner, sender=peers.at.peer_node, vni=VNI + 1) is Reason.OVERLAY_SOURCE


def test_arp_does_not_cross_the_overlay(scene4: Scene, wire: Wire) -> None:
    scene4.pod(scene4.at.a)
    scene4.remote_range()
    inner = arp(MAC_B, scene4.at.c, scene4.at.a)
    assert wire.carry(inner, sender=scene4.at.peer_node) is Reason.OVERLAY_SOURCE


def test_an_isolated_pod_is_not_reached(peers: Scene, wire: Wire) -> None:
    peers.pod(peers.at.a, ifindex=OTHER_LINK, ingress=(INGRESS, 1))
    assert wire.carry(from_c(peers), sender=peers.at.peer_node) is Reason.POLICY_INGRESS
    peers.rule_set(INGRESS, {0xF: 1})
    peers.peer(peers.at.c, 0xF)
    assert wire.carry(from_c(peers), sender=peers.at.peer_node) is Reason.DELIVERED


def test_an_address_without_a_pod_is_dropped(peers: Scene, wire: Wire) -> None:
    inner = from_c(peers, dst=peers.at.b)
    assert wire.carry(inner, sender=peers.at.peer_node) is Reason.NO_WORKLOAD


def test_the_nodes_own_address_is_the_stacks(peers: Scene, wire: Wire) -> None:
    inner = from_c(peers, dst=peers.at.gateway)
    assert wire.carry(inner, sender=peers.at.peer_node) is Reason.STACK


def test_a_pod_that_must_not_be_redirected_to_takes_the_stack(peers: Scene, wire: Wire) -> None:
    peers.pod(peers.at.a, ifindex=OTHER_LINK, flags=WorkloadFlag.NO_REDIRECT)
    assert wire.carry(from_c(peers), sender=peers.at.peer_node) is Reason.STACK


def test_answers_and_errors_to_what_an_isolated_pod_asked_pass(peers: Scene, wire: Wire) -> None:
    peers.pod(peers.at.a, ingress=(INGRESS, 1))
    asked = peers.udp(peers.at.a, peers.at.c)
    assert peers.send(asked).reason is Reason.TUNNELLED
    assert wire.carry(answer(asked).frame, sender=peers.at.peer_node) is Reason.DELIVERED
    assert peers.flow(asked).flags & FlowFlag.REPLIED
    error = unreachable(peers.at.c, peers.at.a, asked.network)
    assert wire.carry(error.frame, sender=peers.at.peer_node) is Reason.DELIVERED
    other = unreachable(peers.at.c, peers.at.a, replace(asked, sport=9).network)
    assert wire.carry(other.frame, sender=peers.at.peer_node) is Reason.POLICY_INGRESS


def test_the_reply_of_a_pod_goes_back_through_the_overlay(peers: Scene, wire: Wire) -> None:
    peers.pod(peers.at.a)
    wire.carry(from_c(peers), sender=peers.at.peer_node)
    back = replace(answer(peers.tcp(peers.at.c, peers.at.a)), eth_src=MAC_A)
    assert peers.send(replace(back, flags=ACK)).reason is Reason.TUNNELLED
