"""Between nodes on one link, without a tunnel: what leaves for the next hop, what is believed."""

from dataclasses import replace

import pytest

from tests.packet.packets import ACK, UDP, Packet, embedded_header_holds, read, unreachable
from tests.packet.runner import Action, Outcome
from tests.packet.scene import (
    EGRESS,
    HOST_MAC,
    INGRESS,
    LINK,
    MAC_A,
    MAC_B,
    OTHER_LINK,
    UPLINK,
    Scene,
    answer,
)
from weft.bpf.layout import (
    Direction,
    FlowFlag,
    FlowPath,
    Reason,
    SettingFlag,
    WorkloadFlag,
)

# The loopback's, which test runs take for the uplink: frames for it are this host's.
UPLINK_MAC = bytes(6)


@pytest.fixture
def pods(scene: Scene) -> Scene:
    """a is a pod here, c one of a node on the link UPLINK."""
    scene.pod(scene.at.a)
    scene.local_range()
    scene.direct_range()
    return scene


def arrive(scene: Scene, packet: Packet) -> Outcome:
    """By the uplink, for this host."""
    frame = replace(packet, eth_src=HOST_MAC, eth_dst=UPLINK_MAC).frame
    return scene.node.run("from_uplink", frame, ifindex=UPLINK, received_on=UPLINK)


def assert_delivered(outcome: Outcome) -> None:
    assert outcome.action is Action.REDIRECT
    assert outcome.counted == {(Reason.DELIVERED, Direction.FROM_UPLINK): 1}


def test_a_pod_of_a_node_on_the_same_link_is_reached_without_a_tunnel(pods: Scene) -> None:
    sent = pods.tcp(pods.at.a, pods.at.c)
    outcome = pods.send(sent)
    assert outcome.action is Action.REDIRECT
    assert outcome.counted == {(Reason.DIRECT, Direction.FROM_POD): 1}
    assert outcome.packet == sent.frame
    assert pods.flow(sent).path == FlowPath.DIRECT
    assert pods.send(replace(sent, flags=ACK)).reason is Reason.DIRECT


def test_what_leaves_is_judged(pods: Scene) -> None:
    pods.pod(pods.at.a, egress=(EGRESS, 1))
    assert pods.send(pods.tcp(pods.at.a, pods.at.c)).reason is Reason.POLICY_EGRESS
    pods.rule_set(EGRESS, {0xF: 1})
    pods.peer(pods.at.c, 0xF)
    assert pods.send(pods.tcp(pods.at.a, pods.at.c)).reason is Reason.DIRECT


def test_without_an_overlay_it_goes_straight_all_the_same(pods: Scene) -> None:
    pods.settings(flags=SettingFlag.MASQUERADE, overlay_ifindex=0)
    assert pods.send(pods.tcp(pods.at.a, pods.at.c)).reason is Reason.DIRECT


def test_a_pod_that_must_not_be_redirected_takes_the_stack_both_ways(pods: Scene) -> None:
    pods.pod(pods.at.a, flags=WorkloadFlag.NO_REDIRECT)
    sent = pods.udp(pods.at.a, pods.at.c)
    assert pods.send(sent).reason is Reason.STACK
    assert arrive(pods, answer(sent)).reason is Reason.STACK
    came = pods.tcp(pods.at.c, pods.at.a)
    assert arrive(pods, came).reason is Reason.STACK
    assert pods.send(replace(answer(came), eth_src=MAC_A)).reason is Reason.STACK


def test_what_is_too_long_for_the_link_is_left_to_the_stack(pods: Scene) -> None:
    pods.direct_range(ifindex=OTHER_LINK)
    sent = pods.udp(pods.at.a, pods.at.c)
    assert pods.send(replace(sent, data=bytes(1400))).reason is Reason.STACK
    assert pods.send(sent).reason is Reason.DIRECT


def test_a_vip_with_a_backend_there_is_translated_and_put_back(pods: Scene) -> None:
    pods.service(UDP, pods.at.c)
    outcome = pods.send(pods.udp(pods.at.a, pods.at.vip))
    got = read(outcome.packet)
    assert outcome.reason is Reason.DIRECT
    assert (got.dst, got.dport, got.checksums_hold) == (pods.at.c, 8080, True)
    back = arrive(pods, answer(got))
    assert_delivered(back)
    assert (read(back.packet).src, read(back.packet).sport) == (pods.at.vip, 80)
    error = read(arrive(pods, unreachable(pods.at.c, pods.at.a, got.network)).packet)
    assert (error.src, error.checksums_hold) == (pods.at.vip, True)
    assert embedded_header_holds(error)


def test_a_pod_is_reached_from_the_link_that_its_peer_is_on(pods: Scene) -> None:
    sent = pods.tcp(pods.at.c, pods.at.a)
    outcome = arrive(pods, sent)
    assert_delivered(outcome)
    assert read(outcome.packet) == replace(sent, eth_src=HOST_MAC, eth_dst=MAC_A)
    assert pods.flow(sent).path == FlowPath.DIRECT
    assert pods.send(replace(answer(sent), eth_src=MAC_A)).reason is Reason.DIRECT


def test_what_arrives_is_judged(pods: Scene) -> None:
    pods.pod(pods.at.a, ingress=(INGRESS, 1))
    sent = pods.tcp(pods.at.c, pods.at.a)
    outcome = arrive(pods, sent)
    assert outcome.action is Action.DROP
    assert outcome.counted == {(Reason.POLICY_INGRESS, Direction.FROM_UPLINK): 1}
    pods.rule_set(INGRESS, {0xF: 1})
    pods.peer(pods.at.c, 0xF)
    assert_delivered(arrive(pods, sent))


def test_answers_and_errors_to_what_an_isolated_pod_asked_pass(pods: Scene) -> None:
    pods.pod(pods.at.a, ingress=(INGRESS, 1))
    asked = pods.udp(pods.at.a, pods.at.c)
    pods.send(asked)
    assert_delivered(arrive(pods, answer(asked)))
    assert pods.flow(asked).flags & FlowFlag.REPLIED
    assert_delivered(arrive(pods, unreachable(pods.at.c, pods.at.a, asked.network)))
    other = unreachable(pods.at.c, pods.at.a, replace(asked, sport=9).network)
    assert arrive(pods, other).reason is Reason.POLICY_INGRESS


def test_a_peer_is_not_believed_from_another_link(pods: Scene) -> None:
    pods.direct_range(ifindex=OTHER_LINK)
    pods.send(pods.udp(pods.at.a, pods.at.c))
    for sent in (pods.tcp(pods.at.c, pods.at.a), pods.udp(pods.at.c, pods.at.a)):
        outcome = arrive(pods, sent)
        assert outcome.action is Action.DROP
        assert outcome.counted == {(Reason.SOURCE_SPOOFED, Direction.FROM_UPLINK): 1}


def test_a_peer_behind_a_tunnel_is_not_believed_from_a_link(pods: Scene) -> None:
    pods.remote_range()
    assert arrive(pods, pods.tcp(pods.at.c, pods.at.a)).reason is Reason.SOURCE_SPOOFED


def test_without_overlay_a_peer_behind_a_router_is_the_stacks(pods: Scene) -> None:
    pods.settings(flags=SettingFlag.MASQUERADE, overlay_ifindex=0)
    pods.remote_range()
    sent = pods.tcp(pods.at.c, pods.at.a)
    assert arrive(pods, sent).reason is Reason.STACK
    assert pods.flow(sent).path == FlowPath.STACK
    assert pods.send(replace(answer(sent), eth_src=MAC_A)).reason is Reason.STACK
    pods.pod(pods.at.a, ingress=(INGRESS, 1))
    assert arrive(pods, pods.udp(pods.at.c, pods.at.a)).reason is Reason.POLICY_INGRESS


def test_a_switchs_copy_for_another_host_is_left_alone(pods: Scene) -> None:
    sent = replace(pods.tcp(pods.at.c, pods.at.a), eth_dst=HOST_MAC)
    outcome = pods.node.run("from_uplink", sent.frame, ifindex=UPLINK)
    assert outcome.reason is Reason.NOT_OURS
    assert not pods.node.rows("flows")


def test_the_world_and_other_nodes_reach_pods_through_the_stack(pods: Scene) -> None:
    for source in (pods.at.outside, pods.at.peer_node):
        assert arrive(pods, pods.tcp(source, pods.at.a)).reason is Reason.NOT_OURS


@pytest.mark.parametrize("received_on", [OTHER_LINK, UPLINK])
def test_the_stack_too_brings_a_peer_from_its_link_only(pods: Scene, received_on: int) -> None:
    pods.settings(overlay_ifindex=5)
    sent = replace(pods.tcp(pods.at.c, pods.at.a), eth_src=HOST_MAC, eth_dst=MAC_A)
    outcome = pods.node.run("to_pod", sent.frame, received_on=received_on)
    believed = received_on == UPLINK
    assert outcome.reason is (Reason.STACK if believed else Reason.SOURCE_SPOOFED)


# --- A peer that changes between tunnelled and direct ---------------------------------------------
def test_a_direct_flow_goes_on_through_the_tunnel_when_its_peer_leaves_the_link(
    pods: Scene,
) -> None:
    sent = pods.tcp(pods.at.a, pods.at.c)
    pods.send(sent)
    pods.remote_range()
    assert pods.send(replace(sent, flags=ACK)).reason is Reason.TUNNELLED
    assert pods.flow(sent).path == FlowPath.OVERLAY
    pods.settings(flags=SettingFlag.MASQUERADE, overlay_ifindex=0)
    assert pods.send(replace(sent, flags=ACK)).reason is Reason.STACK
    assert pods.flow(sent).path == FlowPath.STACK


def test_a_tunnelled_flow_stays_while_there_is_an_overlay_and_then_goes_straight(
    pods: Scene,
) -> None:
    pods.remote_range()
    sent = pods.tcp(pods.at.a, pods.at.c)
    assert pods.send(sent).reason is Reason.TUNNELLED
    pods.direct_range()
    assert pods.send(replace(sent, flags=ACK)).reason is Reason.TUNNELLED
    assert_delivered(arrive(pods, answer(sent)))
    pods.settings(flags=SettingFlag.MASQUERADE, overlay_ifindex=0)
    assert pods.send(replace(sent, flags=ACK)).reason is Reason.DIRECT
    assert_delivered(arrive(pods, answer(sent, flags=ACK)))
    assert pods.flow(sent).path == FlowPath.DIRECT


def test_a_flow_of_the_stack_keeps_to_it_when_its_peer_comes_to_the_link(pods: Scene) -> None:
    pods.settings(flags=SettingFlag.MASQUERADE, overlay_ifindex=0)
    pods.remote_range()
    sent = pods.tcp(pods.at.a, pods.at.c)
    assert pods.send(sent).reason is Reason.STACK
    pods.direct_range(ifindex=LINK)
    assert arrive(pods, answer(sent)).reason is Reason.STACK
    assert pods.send(replace(sent, flags=ACK)).reason is Reason.STACK


def test_the_overlay_wraps_for_a_peer_on_the_link_too(pods: Scene) -> None:
    frame = pods.tcp(pods.at.gateway, pods.at.c).frame
    assert pods.node.run("to_overlay", frame).reason is Reason.TUNNELLED


def test_what_leaves_straight_is_not_masqueraded(pods: Scene) -> None:
    pods.uplink()
    outcome = pods.node.run("to_uplink", pods.tcp(pods.at.a, pods.at.c).frame, received_on=LINK)
    assert (outcome.action, outcome.reason) == (Action.NEXT, Reason.NOT_OURS)


def test_no_pod_of_this_node_comes_by_an_uplink(pods: Scene) -> None:
    """Not even in pieces, which the stack hands to the pod without a link."""
    pods.pod(pods.at.b, mac=MAC_B, flags=WorkloadFlag.NO_REDIRECT)
    for kind in ("tcp", "udp", "ping"):
        sent = getattr(pods, kind)(pods.at.b, pods.at.a)
        pods.send(sent)
        for came in (sent, replace(sent, more=True, ident=7)):
            outcome = arrive(pods, came)
            assert (outcome.action, outcome.reason) == (Action.DROP, Reason.SOURCE_SPOOFED)


@pytest.mark.parametrize("kind", [133, 134, 135, 136, 137, 143])
def test_what_neighbours_say_comes_by_no_way_between_nodes(pods: Scene, kind: int) -> None:
    """Its hop limit would pass: nothing on this way counts it down."""
    if pods.version == 4:
        pytest.skip("ARP is no IP")
    said = replace(pods.ping(pods.at.c, pods.at.a), sport=kind, data=bytes(20), hops=255)
    outcome = arrive(pods, said)
    assert (outcome.action, outcome.reason) == (Action.DROP, Reason.NEIGHBOUR_SPOOFED)
