"""Errors, fragments and exhausted ports of clients outside: whoever is told of a packet is told of
the one that it sent."""

import struct
from dataclasses import replace

import pytest

from tests.packet.packets import (
    ACK,
    ICMP,
    ICMP6,
    TCP,
    TOO_BIG,
    UDP,
    Address,
    Packet,
    embedded_header_holds,
    read,
)
from tests.packet.runner import Action
from tests.packet.scene import (
    HOST_MAC,
    MAC_A,
    MAC_B,
    OTHER_LINK,
    SNAT_PORTS,
    UPLINK,
    Scene,
    answer,
)
from tests.packet.test_north_overlay import UPLINK_MAC, arrive, from_client, node_address
from tests.packet.wire import Wire
from weft.bpf.layout import FlowPath, Reason, SettingFlag

BOTH = pytest.mark.parametrize("proto", [TCP, UDP], ids=["tcp", "udp"])
NARROW_BYTES = 1300
# What a router says of a packet, by IP version: that it is too long, or has come too far.
KINDS = {"too big": TOO_BIG, "time exceeded": {4: (11, 0), 6: (3, 0)}}
ERRORS = pytest.mark.parametrize("kind", KINDS)


@pytest.fixture
def north(scene: Scene) -> Scene:
    """The VIP leads to this node; a is a pod here, c one of the node at peer_node."""
    scene.pod(scene.at.a)
    scene.uplink()
    scene.local_range()
    scene.remote_range()
    node_address(scene)
    return scene


@pytest.fixture
def routed(scene: Scene) -> Scene:
    """There is no overlay: c's node is on another link, and the stack carries clients there."""
    scene.settings(overlay_ifindex=0, flags=SettingFlag.MASQUERADE)
    scene.uplink()
    scene.direct_range(OTHER_LINK)
    return scene


def router_of(scene: Scene) -> Address:
    return scene.at.outside + 1


def says(router: Address, to: Address, kind: str, about: Packet) -> Packet:
    """A router's error about a packet that `to` sent."""
    version = to.version
    number, code = KINDS[kind][version]
    mtu = NARROW_BYTES if kind == "too big" else 0
    data = struct.pack("!I", mtu) + about.network
    proto = ICMP if version == 4 else ICMP6
    error = Packet(src=router, dst=to, proto=proto, sport=number, dport=code, data=data)
    return replace(error, eth_src=HOST_MAC, eth_dst=UPLINK_MAC)


def told(error: Packet, version: int) -> tuple[int, int, int]:
    assert error.checksums_hold
    assert embedded_header_holds(error)
    return error.sport, error.dport, struct.unpack_from("!I", error.data)[0]


def pods_answer(scene: Scene, got: Packet) -> Packet:
    return replace(answer(got, flags=ACK), eth_src=MAC_A, eth_dst=HOST_MAC)


@BOTH
@ERRORS
def test_a_router_before_the_client_is_heard_by_the_pod_here(
    north: Scene, proto: int, kind: str
) -> None:
    north.service(proto, north.at.a)
    got = read(arrive(north, from_client(north, proto)).packet)
    left = read(north.send(pods_answer(north, got)).packet)
    assert left.src == north.at.vip
    sent = says(router_of(north), north.at.vip, kind, left)
    outcome = arrive(north, sent)
    assert outcome.reason is Reason.DELIVERED
    error = read(outcome.packet)
    assert told(error, north.version) == told(sent, north.version)
    assert (error.src, error.dst) == (router_of(north), north.at.a)
    about = north.embedded(error)
    assert about.packet_ends == (north.at.a, 8080, north.at.outside, 4000)


@BOTH
@ERRORS
def test_a_router_before_the_client_is_heard_by_the_pod_there(
    north: Scene, wire: Wire, proto: int, kind: str
) -> None:
    """This node translates the error and wraps it; the pod's node believes that it came so."""
    north.service(proto, north.at.c)
    got = read(arrive(north, from_client(north, proto)).packet)
    back = replace(answer(got, flags=ACK), src=north.at.vip, sport=80)
    outcome = arrive(north, says(router_of(north), north.at.vip, kind, back))
    assert outcome.reason is Reason.TUNNELLED
    error = read(outcome.packet)
    assert (error.src, error.dst) == (router_of(north), north.at.c)
    assert north.embedded(error).packet_ends == (north.at.c, 8080, north.at.outside, 4000)
    assert told(error, north.version)[2] == (NARROW_BYTES if kind == "too big" else 0)
    # The same at the other end of such a tunnel, where the pod is a.
    north.pod(north.at.a, ifindex=OTHER_LINK)
    client = from_client(north, proto, "a")
    assert wire.carry(client.frame, sender=north.at.peer_node) is Reason.DELIVERED
    about = says(router_of(north), north.at.a, kind, answer(client, flags=ACK))
    assert wire.carry(about.frame, sender=north.at.peer_node) is Reason.DELIVERED
    assert north.flow(client).path == FlowPath.ENTRY
    unasked = says(router_of(north), north.at.a, kind, replace(answer(client), dport=4001))
    north.pod(north.at.a, ifindex=OTHER_LINK, ingress=(1, 1))
    assert wire.carry(unasked.frame, sender=north.at.peer_node) is Reason.POLICY_INGRESS


@BOTH
@ERRORS
def test_a_router_before_the_backend_is_heard_by_the_client(
    routed: Scene, proto: int, kind: str
) -> None:
    """It knows the node's address and the backend's: the client neither."""
    routed.service(proto, routed.at.c)
    sent = from_client(routed, proto)
    by_stack = arrive(routed, sent).packet
    masked = read(routed.node.run("to_uplink", by_stack, received_on=OTHER_LINK).packet)
    assert (masked.src, masked.dst) == (routed.at.uplink, routed.at.c)
    router = routed.at.peer_node + 1
    outcome = arrive(routed, says(router, routed.at.uplink, kind, masked))
    assert outcome.reason is Reason.RESTORED
    outcome = routed.node.run("to_uplink", outcome.packet, received_on=OTHER_LINK)
    assert outcome.reason is Reason.ANSWERED
    error = read(outcome.packet)
    assert told(error, routed.version)[2] == (NARROW_BYTES if kind == "too big" else 0)
    assert (error.src, error.dst) == (router, routed.at.outside)
    assert routed.embedded(error).packet_ends == sent.packet_ends


@ERRORS
def test_a_pods_own_error_comes_from_the_vip(north: Scene, kind: str) -> None:
    north.service(UDP, north.at.a)
    sent = from_client(north, UDP)
    got = read(arrive(north, sent).packet)
    error = says(north.at.a, north.at.outside, kind, got)
    outcome = north.send(replace(error, eth_src=MAC_A, eth_dst=HOST_MAC))
    assert outcome.reason is Reason.ANSWERED
    left = read(outcome.packet)
    assert (left.src, left.dst) == (north.at.vip, north.at.outside)
    assert told(left, north.version)[2] == (NARROW_BYTES if kind == "too big" else 0)
    assert north.embedded(left).packet_ends == sent.packet_ends


# --- Fragments ----------------------------------------------------------------------------------
def pieces(first: Packet) -> tuple[Packet, Packet]:
    whole = replace(first, ident=9, more=True, data=bytes(1200 - 8))
    return whole, replace(whole, data=b"the rest", offset=1200, more=False)


def test_fragments_of_an_answer_leave_from_the_vip(north: Scene) -> None:
    north.service(UDP, north.at.a)
    got = read(arrive(north, from_client(north, UDP)).packet)
    for piece in pieces(pods_answer(north, got)):
        outcome = north.send(piece)
        assert outcome.reason is Reason.ANSWERED
        assert read(outcome.packet).src == north.at.vip


def test_fragments_of_a_far_pods_answer_go_back_to_its_clients_node(
    north: Scene, wire: Wire
) -> None:
    north.pod(north.at.a, ifindex=OTHER_LINK)
    client = from_client(north, UDP, "a")
    assert wire.carry(client.frame, sender=north.at.peer_node) is Reason.DELIVERED
    north.pod(north.at.a)
    for piece in pieces(pods_answer(north, client)):
        outcome = north.send(piece)
        assert outcome.reason is Reason.TUNNELLED
        outcome = north.node.run("to_overlay", outcome.packet, received_on=UPLINK)
        assert outcome.reason is Reason.TUNNELLED


def test_fragments_of_a_far_pods_answer_leave_from_the_vip(north: Scene, wire: Wire) -> None:
    north.service(UDP, north.at.c)
    got = read(arrive(north, from_client(north, UDP)).packet)
    back = replace(answer(got), eth_src=MAC_B)
    first, later = pieces(back)
    assert wire.carry(first.frame, sender=north.at.peer_node) is Reason.ANSWERED
    assert wire.carry(later.frame, sender=north.at.peer_node) is Reason.ANSWERED


# --- Ports for clients that a node stands for ---------------------------------------------------
def by_uplink(scene: Scene, sport: int) -> tuple[Reason, Packet]:
    outcome = arrive(scene, replace(from_client(scene, UDP), sport=sport))
    assert (outcome.action, outcome.reason) == (Action.NEXT, Reason.STACK)
    outcome = scene.node.run("to_uplink", outcome.packet, received_on=OTHER_LINK)
    return outcome.reason, read(outcome.packet)


def test_clients_that_the_node_stands_for_share_its_ports_to_the_last(routed: Scene) -> None:
    """The range has two; a third client waits until one of the others has been idle."""
    last = SNAT_PORTS[1]
    routed.settings(
        overlay_ifindex=0, flags=SettingFlag.MASQUERADE, snat_port_min=last - 1, snat_port_max=last
    )
    routed.service(UDP, routed.at.c)
    got = [by_uplink(routed, sport) for sport in (4000, 4001)]
    assert [reason for reason, _ in got] == [Reason.MASQUERADED] * 2
    assert {packet.sport for _, packet in got} == {last - 1, last}
    assert by_uplink(routed, 4002)[0] is Reason.SNAT_EXHAUSTED
    assert by_uplink(routed, 4001)[0] is Reason.MASQUERADED
    routed.age("snat", 61)
    reason, packet = by_uplink(routed, 4002)
    assert (reason, packet.src) == (Reason.MASQUERADED, routed.at.uplink)


def test_nodes_that_are_clients_share_the_gateways_ports_to_the_last(north: Scene) -> None:
    last = SNAT_PORTS[1]
    north.settings(overlay_ifindex=OTHER_LINK, snat_port_min=last, snat_port_max=last)
    north.service(UDP, north.at.c)
    found = []
    for sport in (4000, 4001):
        sent = replace(from_client(north, UDP), src=north.at.peer_node, sport=sport)
        outcome = arrive(north, sent)
        assert (outcome.action, outcome.reason) == (Action.NEXT, Reason.STACK)
        outcome = north.node.run("to_overlay", outcome.packet, received_on=UPLINK)
        found.append((outcome.reason, read(outcome.packet).src, outcome.action))
    assert found[0] == (Reason.TUNNELLED, north.at.gateway, Action.NEXT)
    assert found[1][0] is Reason.SNAT_EXHAUSTED
    assert found[1][2] is Action.DROP
