"""What leaves an uplink without ports to rewrite, and what must not leave it."""

from dataclasses import replace

import pytest

from tests.packet.packets import ACK, Address, Packet, arp, read, unreachable
from tests.packet.runner import Action, Outcome
from tests.packet.scene import HOST_MAC, LINK, OTHER_LINK, Scene, answer
from tests.packet.test_fragments import fragments
from weft.bpf.layout import PrefixFlag, Reason, SettingFlag

IPIP, DCCP, GRE, ESP, SCTP, UDP_LITE = 4, 33, 47, 50, 132, 136
SCTP_PORTS = (4000).to_bytes(2, "big") + (38412).to_bytes(2, "big")
DATA = {
    SCTP: SCTP_PORTS + bytes(range(20)),
    GRE: bytes.fromhex("00000800") + bytes(24),
    ESP: bytes.fromhex("0000100100000001") + bytes(24),
    IPIP: b"\x45" + bytes(27),
}


@pytest.fixture
def outbound(scene: Scene) -> Scene:
    scene.two_pods()
    scene.uplink()
    scene.local_range()
    return scene


def bare(scene: Scene, proto: int, *, src: Address | None = None, data: bytes = b"") -> Packet:
    """A packet of `proto` from pod a to the outside."""
    base = scene.udp(scene.at.a, scene.at.outside)
    return replace(
        base, src=src or scene.at.a, proto=proto, sport=0, dport=0, data=data or DATA[proto]
    )


def leave(scene: Scene, packet: Packet, *, by: int = LINK) -> Outcome:
    return scene.node.run("to_uplink", packet.frame, received_on=by)


def come_back(scene: Scene, packet: Packet) -> Outcome:
    return scene.node.run("from_uplink", packet.frame)


def returned(sent: Packet) -> Packet:
    data = sent.data
    if sent.proto == SCTP:
        data = data[2:4] + data[:2] + data[4:]
    return replace(sent, src=sent.dst, dst=sent.src, data=data)


@pytest.mark.parametrize("proto", DATA)
def test_only_the_address_changes_and_the_answer_comes_back(outbound: Scene, proto: int) -> None:
    sent = bare(outbound, proto)
    outcome = leave(outbound, sent)
    assert outcome.reason is Reason.MASQUERADED
    left = read(outcome.packet)
    assert (left.src, left.data, left.checksums_hold) == (outbound.at.uplink, sent.data, True)
    back = come_back(outbound, returned(left))
    assert back.reason is Reason.RESTORED
    got = read(back.packet)
    assert (got.dst, got.data, got.checksums_hold) == (outbound.at.a, returned(left).data, True)


@pytest.mark.parametrize("proto", DATA)
def test_two_pods_with_nothing_to_tell_them_apart_are_not_mixed_up(
    outbound: Scene, proto: int
) -> None:
    assert leave(outbound, bare(outbound, proto)).reason is Reason.MASQUERADED
    other = bare(outbound, proto, src=outbound.at.b)
    outcome = leave(outbound, other)
    assert (outcome.action, outcome.reason) == (Action.DROP, Reason.SNAT_EXHAUSTED)
    elsewhere = replace(other, dst=outbound.at.outside + 1)
    assert leave(outbound, elsewhere).reason is Reason.MASQUERADED
    outbound.age("snat", 181)
    assert leave(outbound, other).reason is Reason.MASQUERADED


def test_sctp_is_told_apart_by_its_ports(outbound: Scene) -> None:
    leave(outbound, bare(outbound, SCTP))
    data = (4001).to_bytes(2, "big") + DATA[SCTP][2:]
    other = bare(outbound, SCTP, src=outbound.at.b, data=data)
    left = read(leave(outbound, other).packet)
    assert (left.src, left.data) == (outbound.at.uplink, data)
    assert read(come_back(outbound, returned(left)).packet).dst == outbound.at.b


@pytest.mark.parametrize("proto", DATA)
def test_the_nodes_own_flow_takes_the_place_of_a_pods(outbound: Scene, proto: int) -> None:
    leave(outbound, bare(outbound, proto))
    own = bare(outbound, proto, src=outbound.at.uplink)
    assert leave(outbound, own, by=0).reason is Reason.NOT_OURS
    back = come_back(outbound, returned(own))
    assert (back.reason, back.packet) == (Reason.NOT_OURS, returned(own).frame)
    outbound.age("snat", 2)
    assert leave(outbound, own, by=0).reason is Reason.NOT_OURS
    assert leave(outbound, bare(outbound, proto)).reason is Reason.SNAT_EXHAUSTED


@pytest.mark.parametrize("proto", DATA)
def test_fragments_go_and_come_back_with_their_first(outbound: Scene, proto: int) -> None:
    first, later = fragments(bare(outbound, proto))
    first = replace(first, data=DATA[proto] + bytes(1000 - len(DATA[proto])))
    for one in (first, later):
        left = read(leave(outbound, one).packet)
        assert (left.src, left.data) == (outbound.at.uplink, one.data)
    for one in (returned(left_of(outbound, first)), returned(left_of(outbound, later))):
        back = come_back(outbound, one)
        assert (back.reason, read(back.packet).dst) == (Reason.RESTORED, outbound.at.a)


def left_of(scene: Scene, packet: Packet) -> Packet:
    return replace(packet, src=scene.at.uplink)


@pytest.mark.parametrize("proto", DATA)
def test_an_error_about_what_left_finds_its_pod(outbound: Scene, proto: int) -> None:
    left = read(leave(outbound, bare(outbound, proto)).packet)
    error = unreachable(outbound.at.outside + 1, left.src, left.network)
    outcome = come_back(outbound, error)
    assert outcome.reason is Reason.RESTORED
    got = read(outcome.packet)
    about = outbound.embedded(got)
    assert (got.dst, about.src, got.checksums_hold) == (outbound.at.a, outbound.at.a, True)


@pytest.mark.parametrize("proto", [UDP_LITE, DCCP])
def test_a_checksum_that_nobody_mends_goes_nowhere(outbound: Scene, proto: int) -> None:
    outcome = leave(outbound, bare(outbound, proto, data=bytes(24)))
    assert (outcome.action, outcome.reason) == (Action.DROP, Reason.PROTOCOL_UNKNOWN)


def test_icmp_that_nobody_can_answer_goes_nowhere(outbound: Scene) -> None:
    timestamp = replace(outbound.ping(outbound.at.a, outbound.at.outside), sport=13)
    outcome = leave(outbound, timestamp)
    assert (outcome.action, outcome.reason) == (Action.DROP, Reason.PROTOCOL_UNKNOWN)
    own = replace(timestamp, src=outbound.at.uplink)
    assert leave(outbound, own, by=0).reason is Reason.NOT_OURS
    assert come_back(outbound, returned(own)).reason is Reason.NOT_OURS


def test_a_pods_error_about_nothing_goes_nowhere(outbound: Scene) -> None:
    about = outbound.udp(outbound.at.outside, outbound.at.a)
    error = unreachable(outbound.at.a, outbound.at.outside, about.network)
    outcome = leave(outbound, error)
    assert (outcome.action, outcome.reason) == (Action.DROP, Reason.PROTOCOL_UNKNOWN)
    outbound.node.run("to_pod", about.frame, received_on=OTHER_LINK)
    outcome = leave(outbound, error)
    assert (outcome.reason, outcome.packet) == (Reason.NOT_OURS, error.frame)


def test_a_pods_error_about_anothers_flow_goes_nowhere(outbound: Scene) -> None:
    """Neither about what the other sent, nor about what called it."""
    left = outbound.udp(outbound.at.b, outbound.at.outside)
    assert leave(outbound, left).reason is Reason.MASQUERADED
    came = outbound.udp(outbound.at.outside, outbound.at.b, dport=81)
    outbound.node.run("to_pod", came.frame, received_on=OTHER_LINK)
    for about in (answer(left), came):
        error = unreachable(outbound.at.a, outbound.at.outside, about.network)
        outcome = leave(outbound, error)
        assert (outcome.action, outcome.reason) == (Action.DROP, Reason.PROTOCOL_UNKNOWN)


@pytest.mark.parametrize("kind", ["tcp", "udp", "ping"])
def test_a_pods_address_that_came_by_another_link_is_forged(outbound: Scene, kind: str) -> None:
    sent = getattr(outbound, kind)(outbound.at.a, outbound.at.outside)
    outcome = leave(outbound, sent, by=OTHER_LINK)
    assert (outcome.action, outcome.reason) == (Action.DROP, Reason.SOURCE_SPOOFED)
    assert not outbound.node.rows("snat")


def test_no_live_flow_and_no_destination_excuses_a_forged_source(outbound: Scene) -> None:
    sent = outbound.tcp(outbound.at.a, outbound.at.outside)
    assert leave(outbound, sent).reason is Reason.MASQUERADED
    more = replace(sent, flags=ACK)
    assert leave(outbound, more, by=OTHER_LINK).reason is Reason.SOURCE_SPOOFED
    network = outbound.network_of(outbound.at.outside, 24)
    outbound.prefix(network, PrefixFlag.NO_MASQUERADE)
    assert leave(outbound, sent, by=OTHER_LINK).reason is Reason.SOURCE_SPOOFED
    outbound.settings(flags=SettingFlag.OVERLAY)
    assert leave(outbound, sent, by=OTHER_LINK).reason is Reason.SOURCE_SPOOFED


def test_an_address_of_the_podcidr_that_no_pod_has_is_forged(outbound: Scene) -> None:
    outbound.remove_pod(outbound.at.a)
    sent = outbound.tcp(outbound.at.a, outbound.at.outside)
    assert leave(outbound, sent, by=OTHER_LINK).reason is Reason.SOURCE_SPOOFED


def test_over_a_bridge_a_pods_packet_comes_by_any_link_but_an_uplink(outbound: Scene) -> None:
    outbound.settings(flags=SettingFlag.BRIDGE | SettingFlag.MASQUERADE, overlay_ifindex=0)
    outbound.pod(outbound.at.a, ifindex=OTHER_LINK)
    sent = outbound.tcp(outbound.at.a, outbound.at.outside)
    assert leave(outbound, sent, by=OTHER_LINK + 1).reason is Reason.MASQUERADED
    assert leave(outbound, sent, by=LINK).reason is Reason.SOURCE_SPOOFED


def test_what_strangers_send_through_the_node_passes(outbound: Scene) -> None:
    stranger = outbound.tcp(outbound.at.outside + 9, outbound.at.outside)
    outcome = leave(outbound, stranger, by=OTHER_LINK)
    assert (outcome.reason, outcome.packet) == (Reason.NOT_OURS, stranger.frame)


def test_what_neighbours_say_to_each_other_passes_and_leaves_no_rows(outbound: Scene) -> None:
    echo = outbound.ping(outbound.at.uplink, outbound.at.outside)
    solicit = replace(echo, sport=135) if outbound.version == 6 else replace(echo, sport=13)
    asked = arp(HOST_MAC, outbound.at.uplink, outbound.at.outside)
    for frame in (solicit.frame, answer(solicit).frame, *([asked] if solicit.version == 4 else ())):
        for program in ("to_uplink", "from_uplink"):
            assert outbound.node.run(program, frame).reason is Reason.NOT_OURS
    assert not outbound.node.rows("snat")
