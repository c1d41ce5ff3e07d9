"""Who a pod says it is: whatever is not its own never leaves its link."""

import struct
from dataclasses import replace
from ipaddress import IPv6Address

import pytest

from tests.packet.packets import ICMP, ICMP6, TCP, UDP, Address, Packet, arp, ethernet
from tests.packet.runner import Action, Outcome
from tests.packet.scene import (
    ASK_PORT,
    HOST_MAC,
    MAC_A,
    MAC_B,
    OTHER_LINK,
    OVERLAY_PORT,
    Scene,
)
from weft.bpf.layout import Direction, Reason, SettingFlag

LINK_LOCAL = IPv6Address("fe80::a")
ALL_NODES = IPv6Address("ff02::1")
SOLICIT, ADVERT, ROUTER_SOLICIT, ROUTER_ADVERT, REDIRECT, MLD2 = 135, 136, 133, 134, 137, 143
PRIVATE = 253  # RFC 3692
ROUTER_ALERT = bytes([0, 0, 5, 2, 0, 0, 1, 0])


def assert_dropped(outcome: Outcome, reason: Reason) -> None:
    assert outcome.action is Action.DROP
    assert outcome.counted == {(reason, Direction.FROM_POD): 1}
    assert [event.reason for event in outcome.events] == [reason]


def test_an_address_of_no_pod_is_dropped(scene: Scene) -> None:
    scene.pod(scene.at.b, mac=MAC_B)
    outcome = scene.send(scene.tcp(scene.at.a, scene.at.b))
    assert_dropped(outcome, Reason.SOURCE_SPOOFED)


def test_another_pods_address_is_dropped_even_with_its_mac(scene: Scene) -> None:
    scene.two_pods(ifindex=OTHER_LINK)
    outcome = scene.send(scene.tcp(scene.at.b, scene.at.a))
    assert_dropped(outcome, Reason.SOURCE_SPOOFED)


def test_its_own_address_with_another_mac_is_dropped(scene: Scene) -> None:
    scene.two_pods()
    sent = replace(scene.tcp(scene.at.a, scene.at.b), eth_src=MAC_B)
    assert_dropped(scene.send(sent), Reason.SOURCE_SPOOFED)


def test_an_address_from_outside_is_dropped(scene: Scene) -> None:
    scene.two_pods()
    sent = replace(scene.udp(scene.at.outside, scene.at.b), eth_src=MAC_A)
    assert_dropped(scene.send(sent), Reason.SOURCE_SPOOFED)


def test_arp_of_a_pod_for_itself_passes(scene4: Scene) -> None:
    scene4.two_pods()
    frame = arp(MAC_A, scene4.at.a, scene4.at.gateway)
    outcome = scene4.node.run("from_pod", frame)
    assert (outcome.action, outcome.reason) == (Action.NEXT, Reason.STACK)


@pytest.mark.parametrize(
    ("mac", "frame_mac", "whose"),
    [(MAC_A, MAC_A, "b"), (MAC_B, MAC_A, "a"), (MAC_B, MAC_B, "a"), (MAC_A, MAC_A, "gateway")],
    ids=["another's address", "another's MAC inside", "another's MAC", "the gateway's address"],
)
def test_arp_for_another_is_dropped(
    scene4: Scene, mac: bytes, frame_mac: bytes, whose: str
) -> None:
    scene4.two_pods()
    frame = arp(mac, getattr(scene4.at, whose), scene4.at.outside, frame_mac=frame_mac)
    assert_dropped(scene4.node.run("from_pod", frame), Reason.NEIGHBOUR_SPOOFED)


def neighbour(src: Address, kind: int, target: Address, options: bytes = b"") -> Packet:
    data = bytes(4) + target.packed
    one = Packet(src=src, dst=ALL_NODES, proto=ICMP6, sport=kind, data=data, hops=255)
    return replace(one, eth_src=MAC_A, eth_dst=HOST_MAC, options=options)


@pytest.mark.parametrize("kind", [SOLICIT, ADVERT, ROUTER_SOLICIT])
@pytest.mark.parametrize("source", ["own", "link-local"])
def test_neighbour_discovery_of_a_pod_for_itself_passes(
    scene6: Scene, kind: int, source: str
) -> None:
    scene6.two_pods()
    src = scene6.at.a if source == "own" else LINK_LOCAL
    assert scene6.send(neighbour(src, kind, scene6.at.a)).reason is Reason.STACK


def test_duplicate_address_detection_and_listener_reports_pass(scene6: Scene) -> None:
    scene6.two_pods()
    probe = neighbour(IPv6Address("::"), SOLICIT, LINK_LOCAL)
    assert scene6.send(probe).reason is Reason.STACK
    report = neighbour(LINK_LOCAL, MLD2, ALL_NODES, options=ROUTER_ALERT)
    assert scene6.send(report).reason is Reason.STACK


def test_a_pod_without_an_ipv6_address_speaks_from_its_link_local_one(scene4: Scene) -> None:
    scene4.two_pods()
    probe = neighbour(IPv6Address("::"), SOLICIT, LINK_LOCAL)
    assert scene4.send(probe).reason is Reason.STACK
    report = neighbour(LINK_LOCAL, MLD2, ALL_NODES, options=ROUTER_ALERT)
    assert scene4.send(report).reason is Reason.STACK
    assert_dropped(scene4.send(replace(probe, eth_src=MAC_B)), Reason.NEIGHBOUR_SPOOFED)


@pytest.mark.parametrize("whose", ["b", "gateway", "c"])
def test_an_advertisement_of_anothers_address_is_dropped(scene6: Scene, whose: str) -> None:
    scene6.two_pods(ifindex=OTHER_LINK)
    sent = neighbour(LINK_LOCAL, ADVERT, getattr(scene6.at, whose))
    assert_dropped(scene6.send(sent), Reason.NEIGHBOUR_SPOOFED)


def test_a_solicitation_from_anothers_address_is_dropped(scene6: Scene) -> None:
    scene6.two_pods(ifindex=OTHER_LINK)
    sent = neighbour(scene6.at.b, SOLICIT, scene6.at.a)
    assert_dropped(scene6.send(sent), Reason.NEIGHBOUR_SPOOFED)


@pytest.mark.parametrize("source", ["own", "link-local", "none"])
def test_neighbour_discovery_with_anothers_mac_is_dropped(scene6: Scene, source: str) -> None:
    scene6.two_pods(ifindex=OTHER_LINK)
    sources = {"own": scene6.at.a, "link-local": LINK_LOCAL, "none": IPv6Address("::")}
    sent = replace(neighbour(sources[source], SOLICIT, scene6.at.gateway), eth_src=MAC_B)
    assert_dropped(scene6.send(sent), Reason.NEIGHBOUR_SPOOFED)


@pytest.mark.parametrize("kind", [SOLICIT, ADVERT, ROUTER_SOLICIT, MLD2])
def test_neighbour_discovery_goes_no_further_than_the_link(scene6: Scene, kind: int) -> None:
    """Its hop limit would pass as a neighbour's: no way between pods counts it down."""
    scene6.pod(scene6.at.a)
    scene6.pod(scene6.at.b, mac=MAC_B, ifindex=OTHER_LINK)
    scene6.local_range()
    scene6.remote_range()
    for target in (scene6.at.outside, scene6.at.b, scene6.at.c):
        sent = replace(neighbour(scene6.at.a, kind, scene6.at.a), dst=target)
        assert_dropped(scene6.send(sent), Reason.NEIGHBOUR_SPOOFED)
    sent = replace(neighbour(scene6.at.a, kind, scene6.at.a), dst=scene6.at.gateway)
    assert scene6.send(sent).reason is Reason.STACK
    scene6.settings(flags=SettingFlag.BRIDGE)
    assert scene6.send(replace(sent, dst=scene6.at.b)).reason is Reason.STACK
    assert_dropped(scene6.send(replace(sent, dst=scene6.at.c)), Reason.NEIGHBOUR_SPOOFED)


@pytest.mark.parametrize("kind", [ROUTER_ADVERT, REDIRECT])
def test_a_pod_does_not_play_the_router(scene6: Scene, kind: int) -> None:
    scene6.two_pods()
    sent = neighbour(LINK_LOCAL, kind, scene6.at.a)
    assert_dropped(scene6.send(sent), Reason.ROUTER_ADVERT_SPOOFED)


def test_a_link_local_source_is_for_neighbour_discovery_only(scene6: Scene) -> None:
    scene6.two_pods()
    sent = Packet(src=LINK_LOCAL, dst=scene6.at.b, proto=UDP, dport=53, eth_src=MAC_A)
    assert_dropped(scene6.send(sent), Reason.SOURCE_SPOOFED)


@pytest.mark.parametrize("end", ["src", "dst"])
def test_mapped_addresses_on_the_wire_are_dropped(scene6: Scene, end: str) -> None:
    scene6.two_pods()
    mapped = IPv6Address("::ffff:10.1.1.10")
    ends = {"src": scene6.at.a, "dst": scene6.at.b} | {end: mapped}
    sent = Packet(**ends, proto=UDP, dport=53, eth_src=MAC_A)  # type: ignore[arg-type]
    assert_dropped(scene6.send(sent), Reason.MAPPED_ADDRESS)


@pytest.mark.parametrize("ethertype", [0x8100, 0x88CC, 0x8847])
def test_what_is_neither_ip_nor_arp_is_dropped(scene4: Scene, ethertype: int) -> None:
    scene4.two_pods()
    sent = scene4.tcp(scene4.at.a, scene4.at.b)
    inside = struct.pack("!HH", 5, 0x0800) + sent.network
    frame = ethernet(HOST_MAC, MAC_A, ethertype, inside)
    assert_dropped(scene4.node.run("from_pod", frame), Reason.PROTOCOL_UNKNOWN)


@pytest.mark.parametrize("proto", [TCP, UDP, ICMP, ICMP6])
def test_a_transport_header_that_is_cut_is_dropped(scene: Scene, proto: int) -> None:
    scene.two_pods()
    # As the rest of a datagram is built: bytes, and no header of its own.
    cut = Packet(src=scene.at.a, dst=scene.at.b, proto=PRIVATE, data=bytes(7), eth_src=MAC_A)
    frame = bytearray(cut.frame)
    frame[23 if scene.version == 4 else 20] = proto
    assert_dropped(scene.node.run("from_pod", bytes(frame)), Reason.MALFORMED)


def test_a_length_beyond_the_packets_end_is_dropped(scene: Scene) -> None:
    scene.two_pods()
    frame = bytearray(scene.udp(scene.at.a, scene.at.b).frame)
    struct.pack_into("!H", frame, 16 if scene.version == 4 else 18, 200)
    assert_dropped(scene.node.run("from_pod", bytes(frame)), Reason.MALFORMED)


def test_a_bridges_pods_are_proven_all_the_same(scene: Scene) -> None:
    scene.settings(flags=SettingFlag.BRIDGE)
    scene.two_pods(ifindex=OTHER_LINK)
    outcome = scene.send(scene.tcp(scene.at.b, scene.at.a))
    assert_dropped(outcome, Reason.SOURCE_SPOOFED)


@pytest.mark.parametrize("target", ["peer_node", "gateway"])
def test_a_tunnel_packet_of_a_pods_own_making_reaches_no_node(scene: Scene, target: str) -> None:
    scene.two_pods()
    scene.local_range()
    sent = scene.udp(scene.at.a, getattr(scene.at, target), dport=OVERLAY_PORT)
    assert_dropped(scene.send(sent), Reason.TUNNEL_FORGED)
    assert scene.send(replace(sent, dport=OVERLAY_PORT + 1)).reason is Reason.STACK


@pytest.mark.parametrize("target", ["peer_node", "gateway"])
def test_a_pod_cannot_ask_a_node_whose_an_address_is(scene: Scene, target: str) -> None:
    scene.two_pods()
    scene.local_range()
    sent = scene.udp(scene.at.a, getattr(scene.at, target), dport=ASK_PORT)
    assert_dropped(scene.send(sent), Reason.TUNNEL_FORGED)
    scene.settings(ask_port=0)
    assert scene.send(sent).reason is Reason.STACK


def test_pods_may_have_tunnels_among_each_other(scene: Scene) -> None:
    scene.two_pods()
    scene.remote_range()
    for peer, reason in ((scene.at.b, Reason.DELIVERED), (scene.at.c, Reason.TUNNELLED)):
        sent = scene.udp(scene.at.a, peer, dport=OVERLAY_PORT)
        assert scene.send(sent).reason is reason
