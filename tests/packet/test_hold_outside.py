"""What comes from outside, or by routers from other nodes, waits and comes back by its own link."""

from dataclasses import replace

import pytest

from tests.packet.holding import (
    HELD_MARK,
    SHORT_HZ,
    assert_held,
    by_uplink,
    later_of,
    out_of_the_link,
)
from tests.packet.packets import UDP, Packet, read
from tests.packet.runner import Action
from tests.packet.scene import HOST_MAC, INGRESS, LINK, OTHER_LINK, UPLINK, Scene
from tests.packet.test_north_overlay import node_address
from tests.packet.wire import Wire
from weft.bpf.layout import Direction, FlowPath, Reason, SettingFlag

FRIEND = 0xF


def by_routers(scene: Scene) -> None:
    """Without an overlay the network between nodes knows the way to pods."""
    scene.settings(overlay_ifindex=0, flags=0, hold_from_pod=LINK, hold_to_pod=LINK)


def to_pod(scene: Scene, packet: Packet) -> Reason:
    frame = replace(packet, eth_src=HOST_MAC, eth_dst=bytes.fromhex("020000000a0a")).frame
    return scene.node.run("to_pod", frame, received_on=UPLINK).reason


def as_it_came(packet: Packet) -> Packet:
    return replace(packet, eth_src=HOST_MAC, eth_dst=bytes(6))


@pytest.mark.parametrize("source", ["outside", "peer_node"])
def test_a_later_fragment_for_a_pod_waits_for_its_first(held: Scene, source: str) -> None:
    node_address(held)
    first, later = later_of(held.udp(getattr(held.at, source), held.at.a))
    assert_held(by_uplink(held, later), Direction.FROM_UPLINK, as_it_came(later))
    assert_held(out_of_the_link(held, later), Direction.HELD, later)
    assert by_uplink(held, first).reason is Reason.NOT_OURS
    assert by_uplink(held, later, mark=HELD_MARK).reason is Reason.NOT_OURS
    assert to_pod(held, later) is Reason.STACK


def test_one_whose_first_never_comes_is_left_to_the_stack_in_the_end(held: Scene) -> None:
    """Which may have put the first by already: with netfilter's conntrack it does."""
    held.settings(hold_from_pod=LINK, hold_to_pod=LINK, hz=SHORT_HZ)
    _, later = later_of(held.udp(held.at.outside, held.at.a))
    assert by_uplink(held, later).reason is Reason.HELD
    again = (by_uplink(held, later, mark=HELD_MARK) for _ in range(20))
    last = next(one for one in again if one.action is not Action.REDIRECT)
    assert (last.action, last.reason, last.mark) == (Action.NEXT, Reason.NOT_OURS, 0)
    assert to_pod(held, later) is Reason.FRAGMENT_UNKNOWN


def test_its_own_nodes_fragments_reach_a_pod_in_any_order(held: Scene) -> None:
    _, later = later_of(held.udp(held.at.gateway, held.at.a))
    frame = replace(later, eth_src=HOST_MAC, eth_dst=bytes.fromhex("020000000a0a")).frame
    assert held.node.run("to_pod", frame).reason is Reason.STACK


def test_a_later_fragment_for_a_service_waits_where_nothing_is_masqueraded(held: Scene) -> None:
    held.uplink()
    by_routers(held)
    held.service(UDP, held.at.a)
    first, later = later_of(held.udp(held.at.outside, held.at.vip))
    outcome = by_uplink(held, later)
    assert outcome.counted == {
        (Reason.HELD, Direction.FROM_UPLINK): 1,
        (Reason.NOT_OURS, Direction.FROM_UPLINK): 1,
    }
    assert by_uplink(held, first).reason is Reason.DELIVERED
    assert_held(out_of_the_link(held, later), Direction.HELD, later)
    back = by_uplink(held, later, mark=HELD_MARK)
    assert (back.reason, read(back.packet).dst) == (Reason.DELIVERED, held.at.a)


def test_a_peer_that_routers_bring_waits_until_it_is_resolved(held: Scene) -> None:
    by_routers(held)
    held.pod(held.at.a, ingress=(INGRESS, 1))
    held.rule_set(INGRESS, {FRIEND: 1})
    sent = held.tcp(held.at.c, held.at.a)
    outcome = by_uplink(held, sent)
    assert_held(outcome, Direction.FROM_UPLINK, as_it_came(sent))
    (event,) = outcome.events
    assert (event.reason, event.tuple.src) == (Reason.HELD, held.at.c)
    assert_held(out_of_the_link(held, sent), Direction.HELD, sent)
    held.peer(held.at.c, FRIEND)
    assert by_uplink(held, sent, mark=HELD_MARK).reason is Reason.STACK
    assert to_pod(held, sent) is Reason.STACK


def test_a_fragment_that_routers_bring_waits(held: Scene) -> None:
    by_routers(held)
    first, later = later_of(held.udp(held.at.c, held.at.a))
    assert by_uplink(held, later).reason is Reason.HELD
    by_uplink(held, first)
    assert_held(out_of_the_link(held, later), Direction.HELD, later)
    assert by_uplink(held, later, mark=HELD_MARK).reason is Reason.STACK


def test_a_clients_fragment_comes_back_as_what_its_entry_node_brought(
    held: Scene, wire: Wire
) -> None:
    node_address(held)
    held.pod(held.at.a, ifindex=OTHER_LINK)
    sent = held.udp(held.at.outside, held.at.a)
    first, later = later_of(sent)
    assert wire.carry(later.frame, sender=held.at.peer_node) is Reason.HELD
    assert_held(out_of_the_link(held, later), Direction.HELD, later)
    assert wire.carry(first.frame, sender=held.at.peer_node) is Reason.DELIVERED
    back = held.node.run("from_overlay", later.frame, mark=HELD_MARK)
    assert back.reason is Reason.DELIVERED
    flow = held.flow(sent)
    assert (flow.path, flow.vip) == (FlowPath.ENTRY, held.at.peer_node)


@pytest.mark.parametrize("whose", ["gateway", "uplink", "a"])
def test_nobody_outside_passes_for_this_node_or_its_pods(held: Scene, whose: str) -> None:
    held.settings(flags=SettingFlag.OVERLAY)
    held.uplink()
    source = getattr(held.at, whose)
    held.pod(held.at.b, ifindex=OTHER_LINK)
    outcome = by_uplink(held, held.udp(source, held.at.b))
    assert (outcome.action, outcome.reason) == (Action.DROP, Reason.SOURCE_SPOOFED)
