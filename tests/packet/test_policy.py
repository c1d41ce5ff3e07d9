"""Rule sets on packets: both ends, peers and ports, replies, and what moves with a revision."""

from dataclasses import replace

import pytest

from tests.packet.packets import ACK, TCP, UDP, read, unreachable
from tests.packet.runner import Action, Outcome
from tests.packet.scene import EGRESS, INGRESS, MAC_B, Port, Scene, answer, revision
from weft.bpf.layout import Direction, FlowFlag, Reason

REST, WEB, DNS = 0, 1, 70  # port classes; the last beyond a verdict's first word
FRIEND, STRANGER = 0xF, 0x5


def assert_denied(outcome: Outcome, reason: Reason, number: int) -> None:
    assert outcome.action is Action.DROP
    assert outcome.counted == {(reason, Direction.FROM_POD): 1}
    (event,) = outcome.events
    assert (event.reason, event.set) == (reason, number)


def test_a_set_without_rows_drops_everything(scene: Scene) -> None:
    scene.two_pods(ingress=(INGRESS, 1))
    for sent in (scene.tcp(scene.at.a, scene.at.b), scene.ping(scene.at.a, scene.at.b)):
        assert_denied(scene.send(sent), Reason.POLICY_INGRESS, INGRESS)
    assert not scene.node.rows("flows")


def test_an_isolated_sender_is_dropped_at_its_own_link(scene: Scene) -> None:
    scene.two_pods()
    scene.pod(scene.at.a, egress=(EGRESS, 1))
    sent = scene.tcp(scene.at.a, scene.at.outside)
    assert_denied(scene.send(sent), Reason.POLICY_EGRESS, EGRESS)


def test_the_event_of_a_drop_says_what_judged_it(scene: Scene) -> None:
    scene.two_pods(ingress=(INGRESS, 9))
    scene.peer(scene.at.a, STRANGER)
    scene.rule_set(INGRESS, {FRIEND: 1 << WEB}, [Port(WEB, TCP, 80)])
    (event,) = scene.send(scene.tcp(scene.at.a, scene.at.b)).events
    assert (event.revision, event.peer, event.port_class) == (revision(9), STRANGER, WEB)
    assert (event.tuple.src, event.tuple.dst) == (scene.at.a, scene.at.b)


def test_an_allowed_peer_passes_and_others_do_not(scene: Scene) -> None:
    scene.two_pods(ingress=(INGRESS, 1))
    scene.rule_set(INGRESS, {FRIEND: 1 << REST})
    scene.peer(scene.at.a, FRIEND)
    assert scene.send(scene.tcp(scene.at.a, scene.at.b)).reason is Reason.DELIVERED
    scene.peer(scene.at.a, STRANGER)
    other = scene.udp(scene.at.a, scene.at.b)
    assert_denied(scene.send(other), Reason.POLICY_INGRESS, INGRESS)


def test_a_peers_row_wins_over_its_block_and_a_class_without_row_is_any_other(
    scene: Scene,
) -> None:
    scene.two_pods(ingress=(INGRESS, 1))
    scene.rule_set(INGRESS, {FRIEND: 0, 0: 1 << REST})
    scene.block(scene.at.own_range, FRIEND)
    sent = scene.tcp(scene.at.a, scene.at.b)
    assert scene.send(sent).reason is Reason.POLICY_INGRESS
    scene.peer(scene.at.a, STRANGER)
    assert scene.send(sent).reason is Reason.DELIVERED


def test_a_longer_block_stands_for_an_exception(scene: Scene) -> None:
    scene.pod(scene.at.a, egress=(EGRESS, 1))
    scene.rule_set(EGRESS, {FRIEND: 1 << REST})
    scene.block(scene.network_of(scene.at.outside, 24), FRIEND)
    assert scene.send(scene.udp(scene.at.a, scene.at.outside)).reason is Reason.STACK
    scene.block(scene.network_of(scene.at.outside, 32), STRANGER)
    assert scene.send(scene.tcp(scene.at.a, scene.at.outside)).reason is Reason.POLICY_EGRESS


@pytest.mark.parametrize("allowed", [REST, WEB, DNS])
def test_port_classes_are_judged_apart(scene: Scene, allowed: int) -> None:
    scene.two_pods(ingress=(INGRESS, 1))
    ports = [Port(WEB, TCP, 80), Port(DNS, UDP, 53)]
    scene.rule_set(INGRESS, {0: 1 << allowed}, ports)
    packets = {
        WEB: scene.tcp(scene.at.a, scene.at.b),
        DNS: scene.udp(scene.at.a, scene.at.b, dport=53),
        REST: scene.udp(scene.at.a, scene.at.b, dport=80),
    }
    for port_class, sent in packets.items():
        passed = scene.send(sent).reason is Reason.DELIVERED
        assert passed == (port_class == allowed)


def test_a_rule_for_every_tcp_port_opens_neither_udp_nor_ping(scene: Scene) -> None:
    scene.two_pods(ingress=(INGRESS, 1))
    scene.rule_set(INGRESS, {0: 1 << WEB}, [Port(WEB, TCP, None)])
    assert scene.send(scene.tcp(scene.at.a, scene.at.b, dport=9)).reason is Reason.DELIVERED
    assert scene.send(scene.udp(scene.at.a, scene.at.b)).reason is Reason.POLICY_INGRESS
    assert scene.send(scene.ping(scene.at.a, scene.at.b)).reason is Reason.POLICY_INGRESS


def test_replies_pass_whatever_the_other_direction_says(scene: Scene) -> None:
    scene.two_pods(egress=(EGRESS, 1))
    sent = scene.tcp(scene.at.a, scene.at.b)
    scene.send(sent)
    assert scene.send(answer(sent)).reason is Reason.DELIVERED
    own = scene.tcp(scene.at.b, scene.at.a)
    assert_denied(scene.send(own), Reason.POLICY_EGRESS, EGRESS)


def test_a_flow_that_is_no_longer_allowed_is_cut_both_ways(scene: Scene) -> None:
    scene.two_pods(ingress=(INGRESS, 1))
    scene.rule_set(INGRESS, {FRIEND: 1 << REST})
    scene.peer(scene.at.a, FRIEND)
    sent = scene.tcp(scene.at.a, scene.at.b)
    scene.send(sent)
    scene.send(answer(sent))
    scene.peer(scene.at.a, STRANGER)
    assert scene.send(replace(sent, flags=ACK)).reason is Reason.DELIVERED
    scene.two_pods(ingress=(INGRESS, 2))
    assert_denied(scene.send(replace(sent, flags=ACK)), Reason.POLICY_INGRESS, INGRESS)
    assert_denied(scene.send(answer(sent, flags=ACK)), Reason.POLICY_INGRESS, INGRESS)


def test_a_flow_that_is_still_allowed_takes_the_new_revision(scene: Scene) -> None:
    scene.two_pods(ingress=(INGRESS, 1))
    scene.rule_set(INGRESS, {0: 1 << REST})
    sent = scene.tcp(scene.at.a, scene.at.b)
    scene.send(sent)
    scene.two_pods(ingress=(INGRESS, 2))
    assert scene.send(answer(sent)).reason is Reason.DELIVERED
    assert scene.flow(sent).responder_revision == revision(2)


def test_a_pod_that_becomes_isolated_loses_its_flows(scene: Scene) -> None:
    scene.two_pods()
    sent = scene.tcp(scene.at.a, scene.at.b)
    scene.send(sent)
    scene.two_pods(ingress=(INGRESS, 1))
    assert_denied(scene.send(replace(sent, flags=ACK)), Reason.POLICY_INGRESS, INGRESS)


def test_egress_to_a_vip_is_judged_on_the_backend_it_chose(scene: Scene) -> None:
    scene.two_pods()
    scene.pod(scene.at.a, egress=(EGRESS, 1))
    scene.service(TCP, scene.at.b)
    scene.rule_set(EGRESS, {FRIEND: 1 << WEB}, [Port(WEB, TCP, 8080)])
    sent = scene.tcp(scene.at.a, scene.at.vip)
    outcome = scene.send(sent)
    assert_denied(outcome, Reason.POLICY_EGRESS, EGRESS)
    (event,) = outcome.events
    assert (event.tuple.dst, event.tuple.dport, event.vip) == (scene.at.b, 8080, scene.at.vip)
    assert not scene.node.rows("translations")
    scene.peer(scene.at.b, FRIEND)
    assert scene.send(sent).reason is Reason.DELIVERED


def test_a_pod_reaches_itself_through_a_vip_whatever_its_policies_say(scene: Scene) -> None:
    scene.pod(scene.at.a, ingress=(INGRESS, 1), egress=(EGRESS, 1))
    scene.service(UDP, scene.at.a)
    assert scene.send(scene.udp(scene.at.a, scene.at.vip)).reason is Reason.DELIVERED


def test_an_error_about_an_allowed_flow_passes_an_isolated_pod(scene: Scene) -> None:
    scene.two_pods(egress=(EGRESS, 1))
    sent = scene.udp(scene.at.a, scene.at.b)
    got = read(scene.send(sent).packet)
    error = replace(unreachable(scene.at.b, scene.at.a, got.network), eth_src=MAC_B)
    assert scene.send(error).reason is Reason.DELIVERED
    assert not scene.flow(sent).flags & FlowFlag.REPLIED


def test_an_error_about_no_flow_is_judged_as_what_it_is(scene: Scene) -> None:
    scene.two_pods(egress=(EGRESS, 1))
    sent = scene.udp(scene.at.a, scene.at.b)
    error = replace(unreachable(scene.at.b, scene.at.a, sent.network), eth_src=MAC_B)
    assert_denied(scene.send(error), Reason.POLICY_EGRESS, EGRESS)
    assert not scene.node.rows("flows")


def test_a_flow_that_another_cpu_saw_a_tick_later_is_live(scene: Scene) -> None:
    scene.two_pods(egress=(EGRESS, 1))
    sent = scene.udp(scene.at.a, scene.at.b)
    scene.send(sent)
    scene.age("flows", -1)
    assert scene.send(answer(sent)).reason is Reason.DELIVERED


def test_an_idle_flow_is_judged_as_a_new_one(scene: Scene) -> None:
    scene.two_pods(egress=(EGRESS, 1))
    sent = scene.udp(scene.at.a, scene.at.b)
    scene.send(sent)
    scene.age("flows", 61)
    assert_denied(scene.send(answer(sent)), Reason.POLICY_EGRESS, EGRESS)
    scene.send(sent)
    scene.send(answer(sent))
    scene.age("flows", 61)
    assert scene.send(answer(sent)).reason is Reason.DELIVERED
