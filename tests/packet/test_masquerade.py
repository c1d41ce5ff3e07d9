"""Pods' packets at an uplink: out with the node's address, answers back with the pod's."""

from dataclasses import replace

import pytest

from tests.packet.packets import (
    ACK,
    FIN,
    SYN,
    TCP,
    UDP,
    Packet,
    echo,
    embedded_header_holds,
    read,
    unreachable,
)
from tests.packet.runner import Action, Outcome
from tests.packet.scene import LINK, SNAT_PORTS, Scene, answer
from weft.bpf.layout import UNSPECIFIED, Direction, PrefixFlag, Reason, SettingFlag, Uplink

KINDS = ["tcp", "udp", "ping"]


def leaving(scene: Scene, kind: str) -> Packet:
    return getattr(scene, kind)(scene.at.a, scene.at.outside)  # type: ignore[no-any-return]


def leave(scene: Scene, packet: Packet) -> Outcome:
    return scene.node.run("to_uplink", packet.frame, received_on=LINK)


def come_back(scene: Scene, packet: Packet) -> Outcome:
    return scene.node.run("from_uplink", packet.frame)


def returned(sent: Packet) -> Packet:
    """The outside's answer to what left."""
    if sent.proto not in (TCP, UDP):
        swapped = replace(sent, src=sent.dst, dst=sent.src)
        return echo(swapped, int.from_bytes(sent.data[:2], "big"), reply=True)
    return answer(sent)


@pytest.fixture
def outbound(scene: Scene) -> Scene:
    scene.pod(scene.at.a)
    scene.uplink()
    scene.local_range()
    return scene


@pytest.mark.parametrize("kind", KINDS)
def test_a_pods_packet_leaves_with_the_nodes_address_and_a_port_of_the_range(
    outbound: Scene, kind: str
) -> None:
    sent = leaving(outbound, kind)
    outcome = leave(outbound, sent)
    assert outcome.action is Action.NEXT
    assert outcome.counted == {(Reason.MASQUERADED, Direction.TO_UPLINK): 1}
    left = read(outcome.packet)
    assert (left.src, left.dst, left.checksums_hold) == (outbound.at.uplink, sent.dst, True)
    port = int.from_bytes(left.data[:2], "big") if kind == "ping" else left.sport
    assert SNAT_PORTS[0] <= port <= SNAT_PORTS[1]


@pytest.mark.parametrize("kind", KINDS)
def test_the_answer_gets_the_pods_address_and_port_back(outbound: Scene, kind: str) -> None:
    sent = leaving(outbound, kind)
    left = read(leave(outbound, sent).packet)
    outcome = come_back(outbound, returned(left))
    assert outcome.action is Action.NEXT
    assert outcome.counted == {(Reason.RESTORED, Direction.FROM_UPLINK): 1}
    got, wanted = read(outcome.packet), returned(sent)
    assert (got.src, got.dst, got.sport, got.dport) == (
        wanted.src,
        wanted.dst,
        wanted.sport,
        wanted.dport,
    )
    assert got.data == wanted.data
    assert got.checksums_hold


@pytest.mark.parametrize("kind", KINDS)
def test_a_flow_keeps_its_port(outbound: Scene, kind: str) -> None:
    sent = leaving(outbound, kind)
    assert leave(outbound, sent).packet == leave(outbound, sent).packet
    assert len(outbound.node.rows("snat")) == 2


def test_two_flows_to_one_destination_never_share_a_port(outbound: Scene) -> None:
    ports = {
        read(leave(outbound, replace(leaving(outbound, "udp"), sport=port)).packet).sport
        for port in range(3000, 3200)
    }
    assert len(ports) == 200


def test_an_exhausted_range_drops_and_says_so(outbound: Scene) -> None:
    outbound.settings(snat_port_min=61_000, snat_port_max=61_003)
    sent = [replace(leaving(outbound, "udp"), sport=port) for port in range(3000, 3005)]
    reasons = [leave(outbound, one).reason for one in sent]
    assert reasons == [Reason.MASQUERADED] * 4 + [Reason.SNAT_EXHAUSTED]
    other = replace(sent[0], dst=outbound.at.outside + 1)
    assert leave(outbound, other).reason is Reason.MASQUERADED


def test_ports_of_idle_and_of_closed_flows_are_taken_again(outbound: Scene) -> None:
    outbound.settings(snat_port_min=61_000, snat_port_max=61_000)
    first, second = (replace(leaving(outbound, "tcp"), sport=port) for port in (3000, 3001))
    left = read(leave(outbound, first).packet)
    come_back(outbound, returned(left))
    outbound.age("snat", 3700)
    assert leave(outbound, second).reason is Reason.SNAT_EXHAUSTED
    leave(outbound, replace(first, flags=FIN | ACK))
    come_back(outbound, replace(returned(left), flags=FIN | ACK))
    outbound.age("snat", 61)
    assert leave(outbound, second).reason is Reason.MASQUERADED
    # The first flow lost its port and must not use it on.
    outbound.age("snat", 2)
    assert leave(outbound, replace(first, flags=ACK)).reason is Reason.SNAT_EXHAUSTED


def test_a_range_that_is_empty_or_unset_drops(outbound: Scene) -> None:
    for low, high in ((0, 0), (5, 4)):
        outbound.settings(snat_port_min=low, snat_port_max=high)
        assert leave(outbound, leaving(outbound, "tcp")).reason is Reason.SNAT_EXHAUSTED


def test_an_uplink_without_an_address_of_the_family_lets_no_pod_address_out(
    outbound: Scene,
) -> None:
    outbound.node.put("uplinks", 1, Uplink(UNSPECIFIED, UNSPECIFIED, 0))
    outcome = leave(outbound, leaving(outbound, "tcp"))
    assert (outcome.action, outcome.reason) == (Action.DROP, Reason.SNAT_EXHAUSTED)


def test_a_new_address_of_the_uplink_is_used_at_once(outbound: Scene) -> None:
    leave(outbound, leaving(outbound, "udp"))
    outbound.node.put("uplinks", 1, Uplink(outbound.at.outside, outbound.at.outside, 0))
    assert read(leave(outbound, leaving(outbound, "udp")).packet).src == outbound.at.outside


@pytest.mark.parametrize("flag", [PrefixFlag.NO_MASQUERADE, PrefixFlag.REMOTE, PrefixFlag.LOCAL])
def test_a_destination_that_must_see_pods_addresses_does(outbound: Scene, flag: PrefixFlag) -> None:
    outbound.prefix(outbound.network_of(outbound.at.outside, 24), flag)
    sent = leaving(outbound, "tcp")
    outcome = leave(outbound, sent)
    assert (outcome.action, outcome.reason) == (Action.NEXT, Reason.NOT_OURS)
    assert outcome.packet == sent.frame


def test_the_nodes_own_packets_pass_untouched(outbound: Scene) -> None:
    sent = outbound.tcp(outbound.at.uplink, outbound.at.outside)
    assert leave(outbound, sent).packet == sent.frame
    back = replace(answer(sent), dport=SNAT_PORTS[0])
    outcome = come_back(outbound, back)
    assert (outcome.action, outcome.reason) == (Action.NEXT, Reason.NOT_OURS)
    assert outcome.packet == back.frame


@pytest.mark.parametrize("kind", ["tcp", "udp"])
def test_the_node_gets_another_port_where_a_pods_flow_has_its_own(
    outbound: Scene, kind: str
) -> None:
    taken = read(leave(outbound, leaving(outbound, kind)).packet).sport
    own = replace(getattr(outbound, kind)(outbound.at.uplink, outbound.at.outside), sport=taken)
    outcome = leave(outbound, own)
    left = read(outcome.packet)
    assert outcome.reason is Reason.MASQUERADED
    assert (left.src, left.checksums_hold) == (outbound.at.uplink, True)
    assert left.sport != taken
    assert left.packet_ends == read(leave(outbound, own).packet).packet_ends
    back = read(come_back(outbound, returned(left)).packet)
    assert (back.dst, back.dport, back.checksums_hold) == (outbound.at.uplink, taken, True)


@pytest.mark.parametrize("kind", KINDS)
def test_a_pod_gets_another_port_where_the_nodes_own_flow_has_it(
    outbound: Scene, kind: str
) -> None:
    outbound.settings(snat_port_min=61_000, snat_port_max=61_001)
    own = getattr(outbound, kind)(outbound.at.uplink, outbound.at.outside)
    own = echo(own, 61_000) if kind == "ping" else replace(own, sport=61_000)
    assert leave(outbound, own).reason is Reason.NOT_OURS
    left = read(leave(outbound, leaving(outbound, kind)).packet)
    port = int.from_bytes(left.data[:2], "big") if kind == "ping" else left.sport
    assert port == 61_001
    outcome = come_back(outbound, returned(own))
    assert (outcome.reason, outcome.packet) == (Reason.NOT_OURS, returned(own).frame)
    assert leave(outbound, own).reason is Reason.NOT_OURS


def test_without_the_setting_nothing_is_masqueraded(outbound: Scene) -> None:
    outbound.settings(flags=SettingFlag.OVERLAY)
    assert leave(outbound, leaving(outbound, "tcp")).reason is Reason.NOT_OURS


def test_who_called_a_pod_by_its_own_address_is_answered_from_it(outbound: Scene) -> None:
    called = outbound.tcp(outbound.at.outside, outbound.at.a)
    outbound.node.run("to_pod", called.frame, received_on=7)
    outcome = leave(outbound, answer(called))
    assert (outcome.action, outcome.reason) == (Action.NEXT, Reason.NOT_OURS)


def test_an_error_about_what_left_finds_its_pod(outbound: Scene) -> None:
    sent = leaving(outbound, "udp")
    left = read(leave(outbound, sent).packet)
    error = unreachable(outbound.at.outside + 1, left.src, left.network)
    outcome = come_back(outbound, error)
    assert outcome.reason is Reason.RESTORED
    got = read(outcome.packet)
    assert (got.dst, got.checksums_hold) == (outbound.at.a, True)
    about = outbound.embedded(got)
    assert (about.src, about.sport) == (outbound.at.a, sent.sport)
    assert embedded_header_holds(got)


def test_a_pods_error_about_an_answer_leaves_with_the_nodes_address(outbound: Scene) -> None:
    sent = leaving(outbound, "udp")
    left = read(leave(outbound, sent).packet)
    back = read(come_back(outbound, returned(left)).packet)
    outcome = leave(outbound, unreachable(outbound.at.a, outbound.at.outside, back.network))
    assert outcome.reason is Reason.MASQUERADED
    got = read(outcome.packet)
    assert (got.src, got.checksums_hold) == (outbound.at.uplink, True)
    about = outbound.embedded(got)
    assert (about.dst, about.dport) == (outbound.at.uplink, left.sport)


def test_the_nodes_error_about_an_answer_names_the_address_that_it_was_sent_to(
    outbound: Scene,
) -> None:
    left = read(leave(outbound, leaving(outbound, "udp")).packet)
    first = replace(returned(left), data=bytes(1000), more=True, ident=9)
    back = read(come_back(outbound, first).packet)
    outcome = leave(outbound, unreachable(outbound.at.uplink, outbound.at.outside, back.network))
    assert outcome.reason is Reason.MASQUERADED
    got = read(outcome.packet)
    assert (got.src, got.checksums_hold) == (outbound.at.uplink, True)
    about = outbound.embedded(got)
    assert (about.dst, about.dport) == (outbound.at.uplink, left.sport)


def test_a_connection_that_begins_anew_on_its_ports_is_open_again(outbound: Scene) -> None:
    sent = leaving(outbound, "tcp")
    left = read(leave(outbound, sent).packet)
    leave(outbound, replace(sent, flags=FIN | ACK))
    come_back(outbound, replace(returned(left), flags=FIN | ACK))
    leave(outbound, replace(sent, flags=SYN))
    come_back(outbound, returned(left))
    outbound.age("snat", 120)
    outcome = come_back(outbound, returned(left))
    assert outcome.reason is Reason.RESTORED
