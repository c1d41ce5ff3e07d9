"""ICMP errors about every kind of flow find the sender and name what it dialled, whatever stands
between the addresses and the ports of the packet that they embed; and such packets go every way.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import pytest

from tests.packet.packets import (
    DESTINATION,
    ROUTING,
    UDP,
    Address,
    Packet,
    embedded_header_holds,
    read,
    too_big,
    unreachable,
)
from tests.packet.runner import Outcome
from tests.packet.scene import HOST_MAC, LINK, MAC_A, MAC_B, OTHER_LINK, UPLINK, Scene, answer
from tests.packet.wire import Wire
from weft.bpf.layout import FrontendKey, Reason

UPLINK_MAC = bytes(6)
PADDING = bytes([0, 0, 1, 4, 0, 0, 0, 0])
# Of a routing header that no router is left of (RFC 8200 4.4): type 2 (RFC 6275).
ROUTED = bytes([0, 2, 2, 0]) + bytes(4) + bytes(range(16))
SEGMENT_BYTES = 1000


@dataclass(frozen=True, slots=True)
class Headers:
    """What a packet has between its addresses and its ports, by family."""

    options4: bytes = b""
    options6: bytes = b""
    behind6: tuple[tuple[int, bytes], ...] = ()
    first: bool = False

    def on(self, packet: Packet) -> Packet:
        if packet.version == 4:
            return replace(packet, options=self.options4, more=self.first, ident=7)
        return replace(packet, options=self.options6, behind=self.behind6, more=self.first, ident=7)


HEADERS: Mapping[str, Headers] = {
    "plain": Headers(),
    "options": Headers(bytes([1] * 8), PADDING),
    "all-extensions": Headers(
        bytes([1] * 40),
        PADDING,
        ((DESTINATION, PADDING), (ROUTING, ROUTED), (DESTINATION, PADDING)),
    ),
    "first-fragment": Headers(bytes([1] * 8), PADDING, ((DESTINATION, PADDING),), first=True),
}


@pytest.fixture(params=HEADERS)
def headers(request: pytest.FixtureRequest) -> Headers:
    return HEADERS[request.param]


Error = Callable[[Address, Address, bytes], Packet]


@pytest.fixture(params=[unreachable, too_big], ids=["unreachable", "too-big"])
def error(request: pytest.FixtureRequest) -> Error:
    made: Error = request.param
    return made


def dialled(scene: Scene, headers: Headers, src: Address, dst: Address) -> Packet:
    return headers.on(replace(scene.udp(src, dst), data=bytes(SEGMENT_BYTES)))


def by_uplink(scene: Scene, packet: Packet) -> Outcome:
    frame = replace(packet, eth_src=HOST_MAC, eth_dst=UPLINK_MAC).frame
    return scene.node.run("from_uplink", frame, ifindex=UPLINK, received_on=UPLINK)


def to_pod(scene: Scene, packet: Packet) -> Outcome:
    """Of the node itself."""
    return scene.node.run("to_pod", replace(packet, eth_src=HOST_MAC, eth_dst=MAC_A).frame)


def assert_names(scene: Scene, outcome: Outcome, told: Address, sent: Packet) -> None:
    """The error reached `told` and embeds what that one sent."""
    got = read(outcome.packet)
    assert (got.dst, got.checksums_hold) == (told, True)
    about = scene.embedded(got)
    assert about.packet_ends == sent.packet_ends
    assert embedded_header_holds(got) or sent.options


# --- between pods of this node -------------------------------------------------------------------
@pytest.mark.parametrize("target", ["b", "vip"])
def test_a_neighbours_error_finds_the_pod(
    scene: Scene, headers: Headers, error: Error, target: str
) -> None:
    scene.two_pods()
    scene.service(UDP, scene.at.b)
    sent = dialled(scene, headers, scene.at.a, getattr(scene.at, target))
    outcome = scene.send(sent)
    assert outcome.reason is Reason.DELIVERED
    said = error(scene.at.b, scene.at.a, outcome.packet[14:])
    told = scene.send(replace(said, eth_src=MAC_B, eth_dst=HOST_MAC))
    assert told.reason is Reason.DELIVERED
    assert_names(scene, told, scene.at.a, sent)
    assert read(told.packet).src == getattr(scene.at, target)


# --- to another node's pod -----------------------------------------------------------------------
@pytest.mark.parametrize("target", ["c", "vip"])
def test_its_own_nodes_error_about_a_tunnel_finds_the_pod(
    scene: Scene, headers: Headers, error: Error, target: str
) -> None:
    scene.pod(scene.at.a)
    scene.remote_range()
    scene.service(UDP, scene.at.c)
    sent = dialled(scene, headers, scene.at.a, getattr(scene.at, target))
    outcome = scene.send(sent)
    assert outcome.reason is Reason.TUNNELLED
    told = to_pod(scene, error(scene.at.gateway, scene.at.a, outcome.packet[14:]))
    assert told.reason is Reason.STACK
    assert_names(scene, told, scene.at.a, sent)


def test_a_far_pods_error_finds_the_pod_through_the_tunnel(
    scene: Scene, wire: Wire, headers: Headers, error: Error
) -> None:
    scene.pod(scene.at.a)
    scene.remote_range()
    sent = dialled(scene, headers, scene.at.a, scene.at.c)
    scene.send(sent)
    scene.pod(scene.at.a, ifindex=OTHER_LINK)
    said = replace(error(scene.at.c, scene.at.a, sent.network), eth_src=HOST_MAC)
    assert wire.carry(said.frame, sender=scene.at.peer_node) is Reason.DELIVERED


@pytest.mark.parametrize("target", ["c", "vip"])
def test_a_far_pods_error_finds_the_pod_over_the_link(
    scene: Scene, headers: Headers, error: Error, target: str
) -> None:
    scene.pod(scene.at.a)
    scene.direct_range()
    scene.service(UDP, scene.at.c)
    sent = dialled(scene, headers, scene.at.a, getattr(scene.at, target))
    outcome = scene.send(sent)
    assert outcome.reason is Reason.DIRECT
    told = by_uplink(scene, error(scene.at.c, scene.at.a, outcome.packet[14:]))
    assert told.reason is Reason.DELIVERED
    assert_names(scene, told, scene.at.a, sent)


def test_what_a_far_pod_sends_arrives_by_every_way(
    scene: Scene, wire: Wire, headers: Headers
) -> None:
    scene.pod(scene.at.a, ifindex=OTHER_LINK)
    scene.remote_range()
    sent = replace(dialled(scene, headers, scene.at.c, scene.at.a), eth_src=HOST_MAC)
    assert wire.carry(sent.frame, sender=scene.at.peer_node) is Reason.DELIVERED
    scene.direct_range()
    assert by_uplink(scene, sent).reason is Reason.DELIVERED


# --- outside -------------------------------------------------------------------------------------
def test_an_error_about_what_left_masqueraded_finds_the_pod(
    scene: Scene, headers: Headers, error: Error
) -> None:
    scene.pod(scene.at.a)
    scene.uplink()
    sent = dialled(scene, headers, scene.at.a, scene.at.outside)
    assert scene.send(sent).reason is Reason.STACK
    outcome = scene.node.run("to_uplink", sent.frame, received_on=LINK)
    assert outcome.reason is Reason.MASQUERADED
    left = read(outcome.packet)
    assert (left.src, left.checksums_hold) == (scene.at.uplink, True)
    said = error(scene.at.outside + 1, scene.at.uplink, outcome.packet[14:])
    told = by_uplink(scene, said)
    assert told.reason is Reason.RESTORED
    assert_names(scene, told, scene.at.a, sent)
    back = headers.on(replace(answer(left), ident=9))
    restored = by_uplink(scene, back)
    assert restored.reason is Reason.RESTORED
    assert (read(restored.packet).dst, read(restored.packet).dport) == (scene.at.a, sent.sport)


def exposed(scene: Scene, dialled_at: Address) -> None:
    """a serves what clients outside dial."""
    scene.pod(scene.at.a)
    scene.uplink()
    scene.local_range()
    scene.service(UDP, scene.at.a)
    served = scene.node.rows("frontends")[FrontendKey(scene.at.vip, 80, UDP).pack()]
    scene.node.put("frontends", FrontendKey(dialled_at, 80, UDP), served)


@pytest.mark.parametrize("target", ["vip", "uplink"], ids=["vip", "node-port"])
def test_a_pods_error_finds_the_client_outside(
    scene: Scene, headers: Headers, error: Error, target: str
) -> None:
    dialled_at = getattr(scene.at, target)
    exposed(scene, dialled_at)
    sent = dialled(scene, headers, scene.at.outside, dialled_at)
    outcome = by_uplink(scene, sent)
    assert outcome.reason is Reason.DELIVERED
    assert read(outcome.packet).dst == scene.at.a
    said = error(scene.at.a, scene.at.outside, outcome.packet[14:])
    told = scene.send(replace(said, eth_src=MAC_A, eth_dst=HOST_MAC))
    assert told.reason is Reason.ANSWERED
    assert_names(scene, told, scene.at.outside, sent)
    assert read(told.packet).src == dialled_at


@pytest.mark.parametrize("target", ["vip", "uplink"], ids=["vip", "node-port"])
def test_a_routers_error_about_an_answer_finds_the_pod(
    scene: Scene, headers: Headers, error: Error, target: str
) -> None:
    dialled_at = getattr(scene.at, target)
    exposed(scene, dialled_at)
    got = read(by_uplink(scene, scene.udp(scene.at.outside, dialled_at)).packet)
    replied = replace(headers.on(answer(got)), eth_src=MAC_A, eth_dst=HOST_MAC)
    outcome = scene.send(replied)
    assert outcome.reason is Reason.ANSWERED
    assert read(outcome.packet).src == dialled_at
    router = scene.at.outside + 1
    told = by_uplink(scene, error(router, dialled_at, outcome.packet[14:]))
    assert told.reason is Reason.DELIVERED
    assert_names(scene, told, scene.at.a, replied)
    assert read(told.packet).src == router


# --- the node's own ------------------------------------------------------------------------------
def test_a_pods_error_finds_its_own_node(scene: Scene, headers: Headers, error: Error) -> None:
    scene.pod(scene.at.a)
    scene.local_range()
    sent = dialled(scene, headers, scene.at.gateway, scene.at.a)
    assert to_pod(scene, sent).reason is Reason.STACK
    said = error(scene.at.a, scene.at.gateway, sent.network)
    told = scene.send(replace(said, eth_src=MAC_A, eth_dst=HOST_MAC))
    assert told.reason is Reason.STACK
    assert_names(scene, told, scene.at.gateway, sent)


# --- what stands behind a fragment header --------------------------------------------------------
def test_fragments_with_extension_headers_behind_are_followed(scene6: Scene) -> None:
    """RFC 8200 4.5: each says what follows the fragment header in the first, not the transport."""
    scene6.two_pods()
    scene6.service(UDP, scene6.at.b)
    whole = replace(scene6.udp(scene6.at.a, scene6.at.vip), data=bytes(1600), ident=0x77)
    behind = ((DESTINATION, PADDING),)
    first = replace(whole, data=whole.data[: 1200 - 8], more=True, behind=behind)
    later = replace(whole, data=whole.transport[1200:], offset=1200 + len(PADDING), behind=behind)
    assert read(scene6.send(first).packet).dst == scene6.at.b
    outcome = scene6.send(later)
    assert (outcome.reason, read(outcome.packet).dst) == (Reason.DELIVERED, scene6.at.b)
    assert len(scene6.node.rows("flows")) == 1


def test_a_fragment_of_long_ago_names_no_ports(scene: Scene) -> None:
    """Its number may be another datagram's by now."""
    scene.two_pods()
    sent = dialled(scene, HEADERS["first-fragment"], scene.at.a, scene.at.b)
    scene.send(sent)
    later = replace(sent, data=bytes(80), more=False, offset=1008, options=b"", behind=())
    assert scene.send(later).reason is Reason.DELIVERED
    scene.age("fragments", 90)
    assert scene.send(later).reason is Reason.FRAGMENT_UNKNOWN
