"""Clients outside and the pods that answer them through a tunnel that is narrower than their links:
told in a connection's SYNs what fits, and by an ICMP error where they send more all the same."""

import struct
from dataclasses import replace

import pytest

from tests.packet.packets import ACK, SYN, TCP, TOO_BIG, UDP, Packet, read
from tests.packet.runner import Action
from tests.packet.scene import HOST_MAC, MAC_A, OTHER_LINK, Scene, answer
from tests.packet.test_north_overlay import arrive, from_client, node_address
from tests.packet.wire import Wire
from weft.bpf.layout import Direction, FlowPath, PrefixFlag, Reason

BOTH = pytest.mark.parametrize("proto", [TCP, UDP], ids=["tcp", "udp"])
TUNNEL_BYTES = 1350
# Of what a segment has before its payload.
HEADERS_BYTES = {4: 40, 6: 60}


@pytest.fixture(params=["tunnel", "direct"])
def entry(scene: Scene, request: pytest.FixtureRequest) -> Scene:
    """The VIP leads to this node; its backend is c, a pod of a node whose pods are reached by a
    tunnel or without, and a tunnel there carries no more than TUNNEL_BYTES."""
    scene.uplink()
    scene.local_range()
    flags = PrefixFlag.REMOTE | PrefixFlag.NO_MASQUERADE
    if request.param == "direct":
        flags |= PrefixFlag.DIRECT
    scene.prefix(scene.at.peer_range, flags, scene.at.peer_node, 1, TUNNEL_BYTES)
    node_address(scene)
    return scene


@pytest.fixture
def far(scene: Scene, wire: Wire) -> Scene:
    """a is a pod here, whose client enters at the other node, by a tunnel as narrow."""
    scene.uplink()
    scene.local_range()
    scene.remote_range()
    there = scene.network_of(scene.at.peer_node, 32)
    scene.prefix(there, PrefixFlag.NODE, mtu=TUNNEL_BYTES)
    scene.pod(scene.at.a, ifindex=OTHER_LINK)
    for proto in (TCP, UDP):
        sent = from_client(scene, proto, "a")
        assert wire.carry(sent.frame, sender=scene.at.peer_node) is Reason.DELIVERED
        assert scene.flow(sent).path == FlowPath.ENTRY
    scene.pod(scene.at.a)
    return scene


def sized(packet: Packet, bytes_long: int, *, whole: bool = True) -> Packet:
    """Of this length from the network header on."""
    bare = replace(packet, data=b"", whole=whole and packet.version == 4)
    return replace(bare, data=bytes(bytes_long - len(bare.network)))


def of_pod(scene: Scene, proto: int, *, flags: int = ACK) -> Packet:
    return replace(answer(from_client(scene, proto, "a"), flags=flags), eth_src=MAC_A)


def told_size(error: Packet) -> int:
    assert (error.sport, error.dport) == TOO_BIG[error.version]
    (mtu,) = struct.unpack_from("!I", error.data)
    return int(mtu)


@BOTH
def test_what_fits_goes_through_the_tunnel(entry: Scene, proto: int) -> None:
    entry.service(proto, entry.at.c)
    outcome = arrive(entry, sized(from_client(entry, proto), TUNNEL_BYTES))
    assert outcome.counted == {(Reason.TUNNELLED, Direction.FROM_UPLINK): 1}
    assert read(outcome.packet).dst == entry.at.c


@BOTH
def test_a_client_is_told_from_the_vip_what_its_tunnel_carries(entry: Scene, proto: int) -> None:
    entry.service(proto, entry.at.c)
    sent = sized(from_client(entry, proto), TUNNEL_BYTES + 1)
    outcome = arrive(entry, sent)
    assert outcome.action is Action.REDIRECT
    assert outcome.counted == {(Reason.TOO_BIG, Direction.FROM_UPLINK): 1}
    error = read(outcome.packet)
    assert error.checksums_hold
    assert (error.src, error.dst) == (entry.at.vip, entry.at.outside)
    assert told_size(error) == TUNNEL_BYTES
    about = entry.embedded(error)
    assert about.packet_ends == sent.packet_ends


def test_what_routers_may_cut_is_not_refused(entry: Scene) -> None:
    """Cut by the stack, or the tunnel's packet is; nothing cuts IPv6."""
    entry.service(UDP, entry.at.c)
    outcome = arrive(entry, sized(from_client(entry, UDP), TUNNEL_BYTES + 1, whole=False))
    prefix = entry.node.rows("prefixes")
    direct = any(row[16] & PrefixFlag.DIRECT for row in prefix.values())
    if entry.version == 6:
        assert outcome.reason is Reason.TOO_BIG
        return
    assert outcome.reason is (Reason.TUNNELLED if direct else Reason.STACK)
    assert read(outcome.packet).dst == entry.at.c


def test_of_an_ipv6_datagram_its_first_fragment_is_answered(scene6: Scene) -> None:
    scene = scene6
    scene.uplink()
    scene.remote_range(mtu=TUNNEL_BYTES)
    scene.service(UDP, scene.at.c)
    first = sized(replace(from_client(scene, UDP), ident=9, more=True), TUNNEL_BYTES + 6)
    outcome = arrive(scene, first)
    assert (outcome.action, outcome.reason) == (Action.REDIRECT, Reason.TOO_BIG)
    error = read(outcome.packet)
    assert (error.checksums_hold, told_size(error)) == (True, TUNNEL_BYTES)
    about = scene.embedded(error)
    assert (about.packet_ends, about.more) == (first.packet_ends, True)
    later = replace(first, more=False, offset=1304, data=bytes(TUNNEL_BYTES))
    outcome = arrive(scene, later)
    assert (outcome.action, outcome.reason) == (Action.DROP, Reason.TOO_BIG)


@BOTH
def test_a_pod_is_told_what_its_answers_tunnel_carries(far: Scene, proto: int) -> None:
    assert far.send(sized(of_pod(far, proto), TUNNEL_BYTES)).reason is Reason.TUNNELLED
    sent = sized(of_pod(far, proto), TUNNEL_BYTES + 1)
    outcome = far.send(sent)
    assert outcome.action is Action.REDIRECT
    assert outcome.counted == {(Reason.TOO_BIG, Direction.FROM_POD): 1}
    error = read(outcome.packet)
    assert error.checksums_hold
    assert (error.src, error.dst) == (far.at.outside, far.at.a)
    assert (error.eth_src, error.eth_dst) == (HOST_MAC, MAC_A)
    assert told_size(error) == TUNNEL_BYTES
    assert far.embedded(error).packet_ends == sent.packet_ends


def test_a_pods_answer_that_routers_may_cut_goes_whole(far: Scene) -> None:
    outcome = far.send(sized(of_pod(far, UDP), TUNNEL_BYTES + 1, whole=False))
    assert outcome.reason is (Reason.TUNNELLED if far.version == 4 else Reason.TOO_BIG)


# --- What a connection's ends are told at its begin ---------------------------------------------
NOTHING, MSS = b"\x01", b"\x02\x04"
WINDOW_SCALE = b"\x03\x03\x07"


def naming(size: int, *, before: bytes = b"") -> bytes:
    options = before + MSS + struct.pack("!H", size)
    return options + NOTHING * (-len(options) % 4)


@pytest.mark.parametrize("before", [b"", NOTHING, WINDOW_SCALE], ids=["first", "odd", "third"])
def test_a_clients_syn_asks_for_segments_that_fit_the_tunnel(entry: Scene, before: bytes) -> None:
    entry.service(TCP, entry.at.c)
    fits = TUNNEL_BYTES - HEADERS_BYTES[entry.version]
    for said, left in ((1460, fits), (fits, fits), (536, 536)):
        sent = replace(from_client(entry, TCP), tcp_options=naming(said, before=before))
        outcome = arrive(entry, sent)
        assert outcome.reason is Reason.TUNNELLED
        got = read(outcome.packet)
        assert got.checksums_hold
        assert got.tcp_options == naming(left, before=before)


def test_a_pods_syn_asks_for_segments_that_fit_the_tunnel(far: Scene) -> None:
    sent = replace(of_pod(far, TCP, flags=SYN | ACK), tcp_options=naming(1460))
    outcome = far.send(sent)
    assert outcome.reason is Reason.TUNNELLED
    got = read(outcome.packet)
    fits = TUNNEL_BYTES - HEADERS_BYTES[far.version]
    assert (got.tcp_options, got.checksums_hold) == (naming(fits), True)


@pytest.mark.parametrize(
    "options",
    [b"", NOTHING * 8, NOTHING * 12 + naming(1460), b"\x00" * 4 + naming(1460), b"\x05\x00" * 2,
     b"\x02\x03\x05\xb4", b"\x09\xff\x02\x04\x05\xb4\x01\x01"],
    ids=["none", "nothing", "too far", "ended", "no length", "too short", "past the end"],
)  # fmt: skip
def test_a_syn_that_names_no_size_in_good_form_stays_as_it_is(entry: Scene, options: bytes) -> None:
    entry.service(TCP, entry.at.c)
    outcome = arrive(entry, replace(from_client(entry, TCP), tcp_options=options))
    assert outcome.reason is Reason.TUNNELLED
    got = read(outcome.packet)
    assert (got.tcp_options, got.checksums_hold) == (options, True)
