"""A VIP per packet: chosen once, kept, followed, put back into answers, refused when empty."""

from collections import Counter
from dataclasses import replace

import pytest

from tests.packet.packets import ACK, FIN, RST, SYN, TCP, UDP, Packet, read, read_network
from tests.packet.runner import Action
from tests.packet.scene import HOST_MAC, MAC_A, MAC_B, OTHER_LINK, Scene, answer
from weft.bpf.layout import (
    UNSPECIFIED,
    Direction,
    FlowFlag,
    FlowPath,
    PrefixFlag,
    Reason,
    WorkloadFlag,
)


def to_vip(scene: Scene, proto: int) -> Packet:
    make = scene.tcp if proto == TCP else scene.udp
    return make(scene.at.a, scene.at.vip)


def translated(sent: Packet, scene: Scene) -> Packet:
    return replace(sent, dst=scene.at.b, dport=8080)


@pytest.mark.parametrize("proto", [TCP, UDP])
def test_a_packet_to_a_vip_reaches_a_backend_with_right_checksums(scene: Scene, proto: int) -> None:
    scene.two_pods()
    scene.service(proto, scene.at.b)
    sent = to_vip(scene, proto)
    outcome = scene.send(sent)
    assert outcome.counted == {(Reason.DELIVERED, Direction.FROM_POD): 1}
    assert read(outcome.packet) == replace(translated(sent, scene), eth_src=HOST_MAC, eth_dst=MAC_B)
    flow = scene.flow(translated(sent, scene))
    assert flow.flags & FlowFlag.TRANSLATED
    assert (flow.vip, flow.vip_port, flow.path) == (scene.at.vip, 80, FlowPath.REDIRECT)


@pytest.mark.parametrize("proto", [TCP, UDP])
def test_the_answer_comes_from_the_vip(scene: Scene, proto: int) -> None:
    scene.two_pods()
    scene.service(proto, scene.at.b)
    sent = to_vip(scene, proto)
    scene.send(sent)
    replied = answer(translated(sent, scene))
    outcome = scene.send(replied)
    assert outcome.reason is Reason.DELIVERED
    assert read(outcome.packet) == replace(
        replied, src=scene.at.vip, sport=80, eth_src=HOST_MAC, eth_dst=MAC_A
    )


def test_one_port_that_dials_a_backend_by_a_vip_and_as_itself_is_answered_from_the_last(
    scene: Scene,
) -> None:
    scene.two_pods()
    scene.service(UDP, scene.at.b)
    by_vip, direct = to_vip(scene, UDP), scene.udp(scene.at.a, scene.at.b, dport=8080)
    replied = answer(translated(by_vip, scene))
    for sent in (by_vip, direct, by_vip):
        scene.send(sent)
        got = read(scene.send(replied).packet)
        assert (got.src, got.sport) == (sent.dst, sent.dport)


def test_a_udp_packet_without_checksum_keeps_none(scene4: Scene) -> None:
    scene4.two_pods()
    scene4.service(UDP, scene4.at.b)
    outcome = scene4.send(replace(to_vip(scene4, UDP), no_checksum=True))
    assert read(outcome.packet).no_checksum
    assert read(outcome.packet).dst == scene4.at.b


@pytest.mark.parametrize("proto", [TCP, UDP])
def test_new_flows_spread_over_all_backends_and_each_keeps_its_own(
    scene: Scene, proto: int
) -> None:
    scene.two_pods()
    scene.service(proto, scene.at.b, scene.at.c)
    scene.remote_range()
    seen = Counter[object]()
    for port in range(2000, 2060):
        sent = replace(to_vip(scene, proto), sport=port)
        first = read(scene.send(sent).packet).dst
        again = read(scene.send(replace(sent, flags=ACK)).packet).dst
        assert first == again
        seen[first] += 1
    # 60 fair draws miss this band less than once in 10^8.
    assert set(seen) == {scene.at.b, scene.at.c}
    assert min(seen.values()) > 8


def test_udp_leaves_a_backend_that_is_gone_and_tcp_stays(scene: Scene) -> None:
    scene.two_pods()
    scene.service(UDP, scene.at.b)
    scene.service(TCP, scene.at.b)
    for proto in (UDP, TCP):
        scene.send(to_vip(scene, proto))
    scene.node.tables["backends"].delete([(1).to_bytes(8, "little")])
    scene.replace_backend(scene.at.outside)
    assert read(scene.send(to_vip(scene, UDP)).packet).dst == scene.at.outside
    middle = replace(to_vip(scene, TCP), flags=ACK)
    assert read(scene.send(middle).packet).dst == scene.at.b


def test_a_new_connection_on_the_same_ports_leaves_a_backend_that_is_gone(scene: Scene) -> None:
    scene.two_pods()
    scene.service(TCP, scene.at.b)
    scene.send(to_vip(scene, TCP))
    scene.node.tables["backends"].delete([(1).to_bytes(8, "little")])
    scene.replace_backend(scene.at.outside)
    assert read(scene.send(to_vip(scene, TCP)).packet).dst == scene.at.outside


@pytest.mark.parametrize("proto", [TCP, UDP])
def test_a_client_that_dialled_before_its_service_was_known_reaches_it(
    scene: Scene, proto: int
) -> None:
    scene.two_pods()
    assert scene.send(to_vip(scene, proto)).reason is Reason.STACK
    scene.service(proto, scene.at.b)
    assert scene.send(to_vip(scene, proto)).reason is Reason.DELIVERED


def test_a_translation_that_idled_too_long_is_made_anew(scene: Scene) -> None:
    scene.two_pods()
    scene.service(UDP, scene.at.b)
    scene.send(to_vip(scene, UDP))
    scene.replace_backend(scene.at.outside)
    assert read(scene.send(to_vip(scene, UDP)).packet).dst == scene.at.b
    scene.age("translations", 181)
    scene.age("flows", 181)
    assert read(scene.send(to_vip(scene, UDP)).packet).dst == scene.at.outside


@pytest.mark.parametrize("flags", [SYN, ACK, FIN | ACK])
def test_tcp_to_an_empty_service_is_reset_at_once(scene: Scene, flags: int) -> None:
    scene.two_pods()
    scene.service(TCP)
    sent = scene.tcp(scene.at.a, scene.at.vip, flags=flags)
    outcome = scene.send(sent)
    assert outcome.action is Action.REDIRECT
    assert outcome.counted == {(Reason.NO_BACKEND, Direction.FROM_POD): 1}
    reset = read(outcome.packet)
    assert reset.checksums_hold
    assert (reset.src, reset.dst) == (scene.at.vip, scene.at.a)
    assert (reset.sport, reset.dport, reset.data) == (80, 4000, b"")
    assert (reset.eth_src, reset.eth_dst) == (HOST_MAC, MAC_A)
    if flags == SYN:
        assert (reset.flags, reset.acknowledged) == (RST | ACK, sent.sequence + 1)
    else:
        assert (reset.flags, reset.sequence) == (RST, sent.acknowledged)
    assert not scene.node.rows("flows")


def test_udp_to_an_empty_service_gets_port_unreachable(scene: Scene) -> None:
    scene.two_pods()
    scene.service(UDP)
    sent = scene.udp(scene.at.a, scene.at.vip)
    outcome = scene.send(sent)
    assert (outcome.action, outcome.reason) == (Action.REDIRECT, Reason.NO_BACKEND)
    refusal = read(outcome.packet)
    assert refusal.checksums_hold
    assert (refusal.src, refusal.dst) == (scene.at.vip, scene.at.a)
    assert (refusal.sport, refusal.dport) == ((3, 3) if scene.version == 4 else (1, 4))
    about = read_network(refusal.data[4:], scene.version)
    assert (about.src, about.dst, about.sport, about.dport) == (sent.src, sent.dst, 4000, 80)


def test_a_port_that_a_vip_does_not_serve_is_refused(scene: Scene) -> None:
    scene.two_pods()
    scene.service(TCP, scene.at.b)
    other_port = scene.tcp(scene.at.a, scene.at.vip, dport=81)
    other_protocol = scene.udp(scene.at.a, scene.at.vip)
    for sent in (other_port, other_protocol):
        outcome = scene.send(sent)
        assert (outcome.action, outcome.reason) == (Action.REDIRECT, Reason.NO_BACKEND)
        assert read(outcome.packet).checksums_hold


def test_the_middle_of_an_unknown_connection_to_a_vip_is_reset(scene: Scene) -> None:
    scene.two_pods()
    scene.service(TCP, scene.at.b)
    outcome = scene.send(scene.tcp(scene.at.a, scene.at.vip, flags=ACK))
    assert outcome.reason is Reason.NO_BACKEND
    assert read(outcome.packet).flags == RST


def test_a_reset_to_an_empty_service_is_not_answered(scene: Scene) -> None:
    scene.two_pods()
    scene.service(TCP)
    outcome = scene.send(scene.tcp(scene.at.a, scene.at.vip, flags=RST))
    assert (outcome.action, outcome.reason) == (Action.DROP, Reason.NO_BACKEND)


def test_an_address_of_the_service_range_without_service_is_dropped(scene: Scene) -> None:
    scene.two_pods()
    scene.prefix(scene.at.services, PrefixFlag.SERVICE)
    outcome = scene.send(scene.tcp(scene.at.a, scene.at.vip + 7))
    assert (outcome.action, outcome.reason) == (Action.DROP, Reason.NO_SERVICE)


@pytest.mark.parametrize("proto", [TCP, UDP])
def test_a_pod_reaches_itself_through_a_vip_and_back(scene: Scene, proto: int) -> None:
    scene.pod(scene.at.a)
    scene.service(proto, scene.at.a)
    sent = to_vip(scene, proto)
    outcome = scene.send(sent)
    assert outcome.reason is Reason.DELIVERED
    got = read(outcome.packet)
    assert got == replace(
        sent, src=scene.at.gateway, dst=scene.at.a, dport=8080, eth_src=HOST_MAC, eth_dst=MAC_A
    )
    replied = replace(answer(got), eth_src=MAC_A)
    outcome = scene.send(replied)
    assert outcome.reason is Reason.DELIVERED
    back = read(outcome.packet)
    assert (back.src, back.sport, back.dst, back.dport) == (scene.at.vip, 80, scene.at.a, 4000)
    assert back.checksums_hold
    assert read(scene.send(replace(sent, flags=ACK)).packet).dst == scene.at.a


def test_a_hairpin_is_masked_by_the_links_gateway_where_the_node_has_none(scene4: Scene) -> None:
    scene4.settings(gateway4=UNSPECIFIED)
    scene4.pod(scene4.at.a)
    scene4.service(UDP, scene4.at.a)
    assert read(scene4.send(to_vip(scene4, UDP)).packet).src == scene4.at.mask


@pytest.mark.parametrize("proto", [TCP, UDP])
def test_a_backend_on_the_node_itself_answers_through_the_stack_as_the_vip(
    scene: Scene, proto: int
) -> None:
    scene.pod(scene.at.a)
    scene.service(proto, scene.at.uplink)
    sent = to_vip(scene, proto)
    outcome = scene.send(sent)
    assert (outcome.action, outcome.reason) == (Action.NEXT, Reason.STACK)
    got = read(outcome.packet)
    assert (got.dst, got.dport, got.checksums_hold) == (scene.at.uplink, 8080, True)
    outcome = scene.node.run("to_pod", replace(answer(got), eth_dst=MAC_A).frame)
    assert (outcome.action, outcome.reason) == (Action.NEXT, Reason.STACK)
    back = read(outcome.packet)
    assert (back.src, back.sport, back.checksums_hold) == (scene.at.vip, 80, True)


@pytest.mark.parametrize("proto", [TCP, UDP])
def test_through_the_stack_the_answer_gets_its_vip_back_at_the_clients_link(
    scene: Scene, proto: int
) -> None:
    scene.two_pods(flags=WorkloadFlag.NO_REDIRECT)
    scene.service(proto, scene.at.b)
    got = read(scene.send(to_vip(scene, proto)).packet)
    assert (got.dst, got.dport) == (scene.at.b, 8080)
    replied = replace(answer(got), eth_src=MAC_B)
    outcome = scene.send(replied)
    assert (outcome.reason, outcome.packet) == (Reason.STACK, replied.frame)
    arrived = replace(replied, eth_src=HOST_MAC, eth_dst=MAC_A)
    outcome = scene.node.run("to_pod", arrived.frame, received_on=1)
    back = read(outcome.packet)
    assert (outcome.reason, back.src, back.sport) == (Reason.STACK, scene.at.vip, 80)
    assert back.checksums_hold


def test_an_answer_too_long_for_the_clients_link_gets_its_vip_back_there(scene: Scene) -> None:
    scene.two_pods()
    scene.service(UDP, scene.at.b)
    got = read(scene.send(to_vip(scene, UDP)).packet)
    scene.pod(scene.at.a, ifindex=OTHER_LINK)
    replied = replace(answer(got), eth_src=MAC_B, data=bytes(1400))
    outcome = scene.send(replied)
    assert (outcome.reason, outcome.packet) == (Reason.STACK, replied.frame)


def test_the_event_of_a_refusal_names_what_was_dialled(scene: Scene) -> None:
    scene.two_pods()
    scene.service(UDP)
    (event,) = scene.send(scene.udp(scene.at.a, scene.at.vip)).events
    assert (event.reason, event.tuple.dst) == (Reason.NO_BACKEND, scene.at.vip)
