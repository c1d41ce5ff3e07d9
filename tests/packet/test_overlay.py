"""Between nodes. That a tunnel's far end is believed needs a tunnel: netns tests have one."""

from dataclasses import replace

import pytest

from tests.packet.packets import UDP, read
from tests.packet.runner import Action
from tests.packet.scene import OTHER_LINK, Scene
from weft.bpf.layout import Direction, FlowPath, Reason, SettingFlag, WorkloadFlag

PODS_LINK, STRANGERS_LINK = 5, 6


def test_a_pod_on_another_node_is_reached_through_the_overlay(scene: Scene) -> None:
    scene.pod(scene.at.a)
    scene.remote_range()
    sent = scene.tcp(scene.at.a, scene.at.c)
    outcome = scene.send(sent)
    assert outcome.action is Action.REDIRECT
    assert outcome.counted == {(Reason.TUNNELLED, Direction.FROM_POD): 1}
    assert outcome.packet == sent.frame
    assert scene.flow(sent).path == FlowPath.OVERLAY


def test_without_an_overlay_other_nodes_are_the_stacks_to_route(scene: Scene) -> None:
    scene.settings(flags=SettingFlag.BRIDGE, overlay_ifindex=0)
    scene.pod(scene.at.a)
    scene.remote_range()
    assert scene.send(scene.tcp(scene.at.a, scene.at.c)).reason is Reason.STACK


def test_a_pod_that_must_not_be_redirected_takes_the_stack_to_the_overlay(scene: Scene) -> None:
    scene.pod(scene.at.a, flags=WorkloadFlag.NO_REDIRECT)
    scene.remote_range()
    assert scene.send(scene.tcp(scene.at.a, scene.at.c)).reason is Reason.STACK


def test_what_is_too_long_for_the_overlay_is_left_to_the_stack(scene: Scene) -> None:
    scene.settings(overlay_ifindex=OTHER_LINK)
    scene.pod(scene.at.a)
    scene.remote_range()
    sent = replace(scene.udp(scene.at.a, scene.at.c), data=bytes(1400))
    assert scene.send(sent).reason is Reason.STACK


def test_a_vip_with_a_backend_on_another_node_is_translated_before_the_tunnel(
    scene: Scene,
) -> None:
    scene.pod(scene.at.a)
    scene.remote_range()
    scene.service(UDP, scene.at.c)
    outcome = scene.send(scene.udp(scene.at.a, scene.at.vip))
    assert outcome.reason is Reason.TUNNELLED
    got = read(outcome.packet)
    assert (got.dst, got.dport, got.checksums_hold) == (scene.at.c, 8080, True)


def test_the_overlay_sends_to_the_node_that_has_the_prefix(scene: Scene) -> None:
    scene.remote_range()
    outcome = scene.node.run("to_overlay", scene.tcp(scene.at.gateway, scene.at.c).frame)
    assert outcome.action is Action.NEXT
    assert outcome.counted == {(Reason.TUNNELLED, Direction.TO_OVERLAY): 1}


def test_the_overlay_sends_nothing_that_is_no_nodes(scene: Scene) -> None:
    scene.remote_range()
    scene.local_range()
    for dst in (scene.at.outside, scene.at.b):
        outcome = scene.node.run("to_overlay", scene.tcp(scene.at.gateway, dst).frame)
        assert (outcome.action, outcome.reason) == (Action.DROP, Reason.NO_WORKLOAD)


@pytest.mark.parametrize("source", ["a", "gateway"])
def test_the_overlay_wraps_for_no_stranger_in_the_name_of_this_nodes_pods(
    scene: Scene, source: str
) -> None:
    scene.settings(overlay_ifindex=OTHER_LINK)
    scene.pod(scene.at.a, ifindex=PODS_LINK)
    scene.remote_range()
    scene.local_range()
    frame = scene.udp(getattr(scene.at, source), scene.at.c).frame
    outcome = scene.node.run("to_overlay", frame, received_on=STRANGERS_LINK)
    assert outcome.action is Action.DROP
    assert outcome.counted == {(Reason.SOURCE_SPOOFED, Direction.TO_OVERLAY): 1}
    if source == "a":
        outcome = scene.node.run("to_overlay", frame, received_on=PODS_LINK)
        assert outcome.reason is Reason.TUNNELLED


def test_a_packet_that_came_through_no_tunnel_is_dropped(scene: Scene) -> None:
    scene.pod(scene.at.a)
    scene.remote_range()
    outcome = scene.node.run("from_overlay", scene.tcp(scene.at.c, scene.at.a).frame)
    assert outcome.action is Action.DROP
    assert outcome.counted == {(Reason.OVERLAY_SOURCE, Direction.FROM_OVERLAY): 1}
