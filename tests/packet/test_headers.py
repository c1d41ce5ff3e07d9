"""Options and extension headers between the addresses and the ports: walked, not trusted."""

from dataclasses import replace

import pytest

from tests.packet.packets import UDP, Packet, read
from tests.packet.runner import Action
from tests.packet.scene import MAC_B, Scene
from weft.bpf.layout import Direction, Reason

ROUTER_ALERT4 = bytes([0x94, 4, 0, 0])
NO_OPERATIONS4 = bytes([1]) * 40
PADDING6 = bytes([0, 0, 1, 4, 0, 0, 0, 0])
DESTINATION_OPTIONS, ROUTING = 60, 43


@pytest.mark.parametrize("options", [ROUTER_ALERT4, NO_OPERATIONS4], ids=["short", "longest"])
def test_ipv4_options_are_walked_over(scene4: Scene, options: bytes) -> None:
    scene4.two_pods()
    scene4.service(UDP, scene4.at.b)
    sent = replace(scene4.udp(scene4.at.a, scene4.at.vip), options=options)
    outcome = scene4.send(sent)
    assert outcome.counted == {(Reason.DELIVERED, Direction.FROM_POD): 1}
    got = read(outcome.packet)
    assert (got.dst, got.dport, got.checksums_hold) == (scene4.at.b, 8080, True)


@pytest.mark.parametrize("kind", [131, 137], ids=["loose", "strict"])
@pytest.mark.parametrize("before", [b"", bytes([1] * 5), ROUTER_ALERT4 + bytes([1])])
def test_a_source_route_is_dropped(scene4: Scene, kind: int, before: bytes) -> None:
    scene4.two_pods()
    options = before + bytes([kind, 7, 4, 10, 0, 0, 1])
    sent = replace(scene4.udp(scene4.at.a, scene4.at.b), options=options.ljust(12, b"\0"))
    outcome = scene4.send(sent)
    assert (outcome.action, outcome.reason) == (Action.DROP, Reason.SOURCE_ROUTED)


@pytest.mark.parametrize(
    "options",
    [bytes([0, 131, 7, 4]), bytes([0x94, 0, 131, 0]), bytes([0x94, 255, 131, 0])],
    ids=["behind the end", "of no length", "beyond the header"],
)
def test_what_is_behind_the_end_of_options_is_no_source_route(
    scene4: Scene, options: bytes
) -> None:
    scene4.two_pods()
    sent = replace(scene4.udp(scene4.at.a, scene4.at.b), options=options)
    assert scene4.send(sent).reason is Reason.DELIVERED


@pytest.mark.parametrize(("left", "reason"), [(1, Reason.SOURCE_ROUTED), (0, Reason.DELIVERED)])
def test_a_routing_header_is_dropped_while_it_has_routers_left(
    scene6: Scene, left: int, reason: Reason
) -> None:
    scene6.two_pods()
    header = bytes([UDP, 2, 2, left]) + bytes(4) + scene6.at.c.packed
    honest = scene6.udp(scene6.at.a, scene6.at.b)
    sent = replace(plain(scene6, ROUTING), data=header + honest.transport)
    assert scene6.send(sent).reason is reason


def test_ipv6_extension_headers_are_walked_over(scene6: Scene) -> None:
    scene6.two_pods()
    sent = replace(scene6.udp(scene6.at.a, scene6.at.b), options=PADDING6)
    outcome = scene6.send(sent)
    assert outcome.reason is Reason.DELIVERED
    assert scene6.flow(sent).path
    assert outcome.packet[:6] == MAC_B


def test_more_extension_headers_than_anyone_sends_are_dropped(scene6: Scene) -> None:
    scene6.two_pods()
    chain = bytes([DESTINATION_OPTIONS, *PADDING6[1:]]) * 7
    sent = replace(plain(scene6, DESTINATION_OPTIONS), data=chain)
    outcome = scene6.send(sent)
    assert (outcome.action, outcome.reason) == (Action.DROP, Reason.MALFORMED)


def test_an_extension_header_that_points_beyond_the_packet_is_dropped(scene6: Scene) -> None:
    scene6.two_pods()
    sent = replace(plain(scene6, DESTINATION_OPTIONS), data=bytes([UDP, 255, 1, 4, 0, 0, 0, 0]))
    outcome = scene6.send(sent)
    assert (outcome.action, outcome.reason) == (Action.DROP, Reason.MALFORMED)


def test_a_protocol_without_ports_makes_a_flow_of_addresses(scene: Scene) -> None:
    scene.two_pods()
    sent = replace(plain(scene, 253), data=b"whatever")
    assert scene.send(sent).reason is Reason.DELIVERED
    assert scene.flow(sent).path


def test_sctp_is_followed_by_its_ports(scene: Scene) -> None:
    scene.two_pods()
    data = (4000).to_bytes(2, "big") + (80).to_bytes(2, "big") + bytes(8)
    sent = replace(plain(scene, 132), data=data)
    assert scene.send(sent).reason is Reason.DELIVERED
    assert scene.flow(replace(sent, sport=4000, dport=80)).path


def plain(scene: Scene, proto: int) -> Packet:
    """A packet of a protocol that the builder knows nothing of, from one pod to the other."""
    return replace(scene.udp(scene.at.a, scene.at.b), proto=proto, sport=0, dport=0)
