"""What is not known yet waits on the hold link, once, and comes back to the link it came by."""

from dataclasses import replace

import pytest

from tests.packet.holding import (
    HELD_MARK,
    SHORT_HZ,
    assert_held,
    by_uplink,
    later_of,
    out_of_the_link,
    until_dropped,
)
from tests.packet.packets import UDP, Packet, read
from tests.packet.runner import Action, Outcome
from tests.packet.scene import EGRESS, HZ, INGRESS, LINK, MAC_B, Scene, answer
from tests.packet.test_fragments import fragments
from weft.bpf.layout import Direction, Reason

FRIEND, STRANGER = 0xF, 0x5
BUDGET = 256


def isolate(scene: Scene) -> None:
    """In both directions: only FRIEND may."""
    scene.pod(scene.at.a, ingress=(INGRESS, 1), egress=(EGRESS, 1))
    for number in (INGRESS, EGRESS):
        scene.rule_set(number, {FRIEND: 1})


def from_overlay(scene: Scene, packet: Packet) -> Outcome:
    """As it comes back from the hold link: without its tunnel."""
    return scene.node.run("from_overlay", packet.frame, mark=HELD_MARK)


def test_a_later_fragment_waits_for_its_first(held: Scene) -> None:
    first, later = later_of(held.udp(held.at.a, held.at.c))
    outcome = held.send(later)
    assert_held(outcome, Direction.FROM_POD, later)
    assert not outcome.events, "there is nobody to ask"
    held.send(first)
    back = held.node.run("from_pod", later.frame, mark=HELD_MARK)
    assert (back.reason, back.mark) == (Reason.TUNNELLED, 0)


def test_a_fragment_whose_first_never_comes_is_dropped_in_the_end(held: Scene) -> None:
    held.settings(hold_from_pod=LINK, hold_to_pod=LINK, hz=SHORT_HZ)
    _, later = later_of(held.udp(held.at.a, held.at.c))
    assert held.send(later).reason is Reason.HELD
    outcome = until_dropped(lambda: held.node.run("from_pod", later.frame, mark=HELD_MARK))
    assert outcome.counted == {(Reason.FRAGMENT_UNKNOWN, Direction.FROM_POD): 1}
    assert [event.reason for event in outcome.events] == [Reason.FRAGMENT_UNKNOWN]


def test_without_a_hold_link_everything_unknown_is_dropped(held: Scene) -> None:
    held.settings()
    isolate(held)
    _, later = later_of(held.udp(held.at.a, held.at.c))
    assert held.send(later).reason is Reason.FRAGMENT_UNKNOWN
    assert held.send(held.tcp(held.at.a, held.at.c)).reason is Reason.POLICY_EGRESS


def test_a_packet_to_a_peer_that_is_not_resolved_waits_and_is_told_once(held: Scene) -> None:
    isolate(held)
    sent = held.tcp(held.at.a, held.at.c)
    outcome = held.send(sent)
    assert_held(outcome, Direction.FROM_POD, sent)
    (event,) = outcome.events
    assert (event.reason, event.direction) == (Reason.HELD, Direction.FROM_POD)
    assert (event.tuple.src, event.tuple.dst) == (held.at.a, held.at.c)
    again = held.send(held.udp(held.at.a, held.at.c))
    assert (again.reason, again.events) == (Reason.HELD, ())
    assert not held.node.rows("flows")


def test_a_packet_from_a_peer_that_is_not_resolved_waits_and_is_told_once(held: Scene) -> None:
    isolate(held)
    sent = held.tcp(held.at.c, held.at.a)
    outcome = from_overlay(held, sent)
    assert_held(outcome, Direction.FROM_OVERLAY, sent)
    (event,) = outcome.events
    assert (event.reason, event.tuple.src) == (Reason.HELD, held.at.c)
    held.peer(held.at.c, FRIEND)
    assert from_overlay(held, sent).reason is Reason.DELIVERED


def test_what_is_denied_when_its_peer_is_known_is_dropped_at_once(held: Scene) -> None:
    isolate(held)
    sent = held.tcp(held.at.a, held.at.c)
    assert held.send(sent).reason is Reason.HELD
    held.peer(held.at.c, STRANGER)
    outcome = held.node.run("from_pod", sent.frame, mark=HELD_MARK)
    assert (outcome.action, outcome.reason) == (Action.DROP, Reason.POLICY_EGRESS)


def test_a_peer_that_stays_unresolved_is_dropped_in_the_end_and_rests(held: Scene) -> None:
    isolate(held)
    held.settings(hold_from_pod=LINK, hold_to_pod=LINK, hz=SHORT_HZ)
    sent = held.tcp(held.at.a, held.at.c)
    assert held.send(sent).reason is Reason.HELD
    outcome = until_dropped(lambda: held.send(sent))
    assert outcome.reason is Reason.POLICY_EGRESS
    assert held.send(held.udp(held.at.a, held.at.c)).reason is Reason.POLICY_EGRESS


@pytest.mark.parametrize("where", ["b", "outside"])
def test_only_other_nodes_pods_are_waited_for(held: Scene, where: str) -> None:
    isolate(held)
    held.pod(held.at.b)
    sent = held.tcp(held.at.a, getattr(held.at, where))
    assert held.send(sent).reason is Reason.POLICY_EGRESS


def test_one_sender_does_not_fill_the_link(held: Scene) -> None:
    """A second lasts long here, so that the packets of one fit into it."""
    isolate(held)
    held.settings(hold_from_pod=LINK, hold_to_pod=LINK, hz=HZ * 100)
    sent = held.tcp(held.at.a, held.at.c).frame
    verdicts = [held.node.repeat("from_pod", sent, 1).verdict for _ in range(BUDGET + 2)]
    assert verdicts == [Action.REDIRECT] * BUDGET + [Action.DROP] * 2
    back = held.node.run("from_pod", sent, mark=HELD_MARK)
    assert back.reason is Reason.HELD, "what waits already is not counted anew"
    held.pod(held.at.b, mac=MAC_B, egress=(EGRESS, 1))
    assert held.send(held.tcp(held.at.b, held.at.c)).reason is Reason.HELD


def test_long_packets_take_more_of_what_a_sender_has(held: Scene) -> None:
    """What the link gives back in a second is bytes: two who send segments would fill it."""
    isolate(held)
    held.settings(hold_from_pod=LINK, hold_to_pod=LINK, hz=HZ * 100)
    sent = replace(held.udp(held.at.a, held.at.c), data=bytes(3_000)).frame
    verdicts = [held.node.repeat("from_pod", sent, 1).verdict for _ in range(BUDGET // 2 + 1)]
    assert verdicts == [Action.REDIRECT] * (BUDGET // 2) + [Action.DROP]


def test_a_packet_to_a_vip_waits_untranslated_and_keeps_its_backend(held: Scene) -> None:
    isolate(held)
    others = [held.at.c + 60 + i for i in range(20)]
    held.service(UDP, *others)
    sent = held.udp(held.at.a, held.at.vip)
    outcome = held.send(sent)
    assert_held(outcome, Direction.FROM_POD, sent)
    (event,) = outcome.events
    chosen = event.tuple.dst
    assert chosen in others
    held.peer(chosen, FRIEND)
    back = held.node.run("from_pod", sent.frame, mark=HELD_MARK)
    assert (back.reason, read(back.packet).dst) == (Reason.TUNNELLED, chosen)


def test_a_client_that_waited_in_vain_is_given_a_backend_anew(held: Scene) -> None:
    isolate(held)
    held.settings(hold_from_pod=LINK, hold_to_pod=LINK, hz=SHORT_HZ)
    held.service(UDP, held.at.c)
    sent = held.udp(held.at.a, held.at.vip).frame
    assert held.node.run("from_pod", sent).reason is Reason.HELD
    assert held.node.rows("translations")
    until_dropped(lambda: held.node.run("from_pod", sent, mark=HELD_MARK))
    assert not held.node.rows("translations")


def test_a_fragment_between_nodes_on_one_link_waits(held: Scene) -> None:
    held.direct_range()
    first, later = later_of(held.udp(held.at.c, held.at.a))
    outcome = by_uplink(held, later)
    assert (outcome.action, outcome.reason) == (Action.REDIRECT, Reason.HELD)
    by_uplink(held, first)
    assert by_uplink(held, later, mark=HELD_MARK).reason is Reason.DELIVERED


def test_a_copy_of_a_strange_fragment_waits_while_it_goes_on_to_the_node(held: Scene) -> None:
    held.uplink()
    _, later = later_of(held.udp(held.at.outside, held.at.uplink))
    outcome = by_uplink(held, later)
    assert (outcome.action, outcome.mark) == (Action.NEXT, 0)
    assert outcome.counted == {
        (Reason.HELD, Direction.FROM_UPLINK): 1,
        (Reason.NOT_OURS, Direction.FROM_UPLINK): 1,
    }


def test_all_strangers_share_what_one_sender_has(held: Scene) -> None:
    """Anybody outside can write any source."""
    held.uplink()
    held.settings(hold_from_pod=LINK, hold_to_pod=LINK, hz=HZ * 100)
    place = (Reason.HELD, Direction.FROM_UPLINK)
    before = held.node.counts().get(place, 0)
    for number in range(2 * BUDGET):
        _, later = fragments(held.udp(held.at.outside + number, held.at.uplink))
        held.node.repeat("from_uplink", later.frame, 1)
    # Tests before may have had some of it, and those after want some.
    assert BUDGET / 2 < held.node.counts()[place] - before <= BUDGET
    held.settings(hold_from_pod=LINK, hold_to_pod=LINK, hz=1)
    for _ in range(4):
        by_uplink(held, later_of(held.udp(held.at.outside, held.at.uplink))[1])


def masqueraded_reply(scene: Scene) -> Packet:
    """From outside, to what `a` sent."""
    scene.uplink()
    sent = scene.udp(scene.at.a, scene.at.outside)
    scene.send(sent)
    left = read(scene.node.run("to_uplink", sent.frame).packet)
    back = answer(scene.udp(scene.at.uplink, scene.at.outside))
    return replace(back, dport=left.sport, data=sent.data)


def test_the_copy_comes_back_to_its_uplink_once_its_first_is_a_pods(held: Scene) -> None:
    first, later = later_of(masqueraded_reply(held))
    by_uplink(held, later)
    assert_held(out_of_the_link(held, later), Direction.HELD, later)
    assert by_uplink(held, first).reason is Reason.RESTORED
    assert_held(out_of_the_link(held, later), Direction.HELD, later)
    back = by_uplink(held, later, mark=HELD_MARK)
    assert (back.reason, read(back.packet).dst) == (Reason.RESTORED, held.at.a)


def test_the_copy_of_what_is_no_pods_goes_silently(held: Scene) -> None:
    held.uplink()
    held.settings(hold_from_pod=LINK, hold_to_pod=LINK, hz=SHORT_HZ)
    first, later = later_of(held.udp(held.at.outside, held.at.uplink))
    by_uplink(held, later)
    assert by_uplink(held, first).reason is Reason.NOT_OURS
    outcome = until_dropped(lambda: out_of_the_link(held, later))
    assert outcome.counted == {(Reason.NOT_OURS, Direction.HELD): 1}
    assert not outcome.events


@pytest.mark.parametrize("program", ["held_from_pod", "held_to_pod"])
def test_only_what_was_held_comes_out_of_the_link(held: Scene, program: str) -> None:
    for sent in (held.udp(held.at.a, held.at.c), held.udp(held.at.c, held.at.a)):
        outcome = held.node.run(program, sent.frame)
        assert (outcome.action, outcome.events) == (Action.DROP, ())
        assert outcome.reason is Reason.NOT_OURS


def test_what_a_pod_sent_comes_back_to_its_link(held: Scene) -> None:
    sent = held.tcp(held.at.a, held.at.c)
    assert_held(held.node.run("held_from_pod", sent.frame, mark=HELD_MARK), Direction.HELD, sent)
    held.remove_pod(held.at.a)
    outcome = held.node.run("held_from_pod", sent.frame, mark=HELD_MARK)
    assert (outcome.action, outcome.reason) == (Action.DROP, Reason.NO_WORKLOAD)


def test_the_tunnel_of_what_was_not_held_is_asked_for(held: Scene) -> None:
    sent = held.udp(held.at.c, held.at.a)
    assert held.node.run("from_overlay", sent.frame).reason is Reason.OVERLAY_SOURCE
