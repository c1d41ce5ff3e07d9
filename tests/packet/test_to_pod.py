"""What reaches a pod through the stack: its own node, forwarded packets, a bridge's copies."""

from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address

import pytest

from tests.packet.packets import (
    ACK,
    ICMP6,
    UDP,
    Packet,
    arp,
    embedded_header_holds,
    read,
    unreachable,
)
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
    Port,
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

FORWARDED = 5  # some link by which the node got the packet


def arrive(scene: Scene, packet: Packet, received_on: int = FORWARDED) -> Outcome:
    frame = replace(packet, eth_src=HOST_MAC, eth_dst=MAC_A).frame
    return scene.node.run("to_pod", frame, received_on=received_on)


def assert_dropped(outcome: Outcome, reason: Reason) -> None:
    assert outcome.action is Action.DROP
    assert outcome.counted == {(reason, Direction.TO_POD): 1}


def test_the_outside_reaches_a_pod_that_is_not_isolated(scene: Scene) -> None:
    scene.pod(scene.at.a)
    sent = scene.tcp(scene.at.outside, scene.at.a)
    outcome = arrive(scene, sent)
    assert (outcome.action, outcome.reason) == (Action.NEXT, Reason.STACK)
    assert scene.flow(sent).path == FlowPath.STACK
    assert scene.send(replace(answer(sent), eth_src=MAC_A)).reason is Reason.STACK


def test_the_outside_does_not_reach_an_isolated_pod(scene: Scene) -> None:
    scene.pod(scene.at.a, ingress=(INGRESS, 1))
    assert_dropped(arrive(scene, scene.tcp(scene.at.outside, scene.at.a)), Reason.POLICY_INGRESS)


def test_its_own_node_reaches_an_isolated_pod_and_gets_answers(scene: Scene) -> None:
    scene.pod(scene.at.a, ingress=(INGRESS, 1), egress=(EGRESS, 1))
    sent = scene.tcp(scene.at.gateway, scene.at.a)
    assert arrive(scene, sent, received_on=0).reason is Reason.STACK
    assert scene.flow(sent).flags & FlowFlag.OWN_NODE
    assert scene.send(replace(answer(sent), eth_src=MAC_A)).reason is Reason.STACK
    scene.pod(scene.at.a, ingress=(INGRESS, 2), egress=(EGRESS, 2))
    assert scene.send(replace(answer(sent), eth_src=MAC_A)).reason is Reason.STACK


def test_the_nodes_address_on_a_forwarded_packet_opens_nothing(scene: Scene) -> None:
    scene.pod(scene.at.a, ingress=(INGRESS, 1))
    sent = scene.tcp(scene.at.uplink, scene.at.a)
    assert_dropped(arrive(scene, sent), Reason.POLICY_INGRESS)


def test_answers_to_what_a_pod_asked_outside_pass_its_isolation(scene: Scene) -> None:
    scene.pod(scene.at.a, ingress=(INGRESS, 1))
    sent = scene.tcp(scene.at.a, scene.at.outside)
    scene.send(sent)
    assert arrive(scene, answer(sent)).reason is Reason.STACK
    assert scene.flow(sent).flags & FlowFlag.REPLIED


def test_a_routers_error_about_what_a_pod_sent_passes_its_isolation(scene: Scene) -> None:
    scene.pod(scene.at.a, ingress=(INGRESS, 1))
    sent = scene.udp(scene.at.a, scene.at.outside)
    scene.send(sent)
    router = scene.at.outside + 1
    assert arrive(scene, unreachable(router, scene.at.a, sent.network)).reason is Reason.STACK
    other = replace(sent, sport=4001)
    error = unreachable(router, scene.at.a, other.network)
    assert_dropped(arrive(scene, error), Reason.POLICY_INGRESS)


def test_an_error_about_a_translated_packet_names_the_vip_inside(scene: Scene) -> None:
    scene.pod(scene.at.a)
    scene.service(17, scene.at.outside)
    got = read(scene.send(scene.udp(scene.at.a, scene.at.vip)).packet)
    outcome = arrive(scene, unreachable(scene.at.outside, scene.at.a, got.network))
    error = read(outcome.packet)
    assert outcome.reason is Reason.STACK
    assert (error.src, error.checksums_hold) == (scene.at.vip, True)
    about = scene.embedded(error)
    assert (about.dst, about.dport, about.sport) == (scene.at.vip, 80, 4000)
    assert embedded_header_holds(error)


def test_another_links_pod_is_not_reached_through_this_one(scene: Scene) -> None:
    scene.pod(scene.at.a, ifindex=OTHER_LINK)
    assert_dropped(arrive(scene, scene.tcp(scene.at.outside, scene.at.a)), Reason.NO_WORKLOAD)


def test_an_address_of_no_pod_is_dropped(scene: Scene) -> None:
    assert_dropped(arrive(scene, scene.tcp(scene.at.outside, scene.at.a)), Reason.NO_WORKLOAD)


def test_another_nodes_pod_arrives_by_the_overlay_only(scene: Scene) -> None:
    scene.pod(scene.at.a)
    scene.remote_range()
    scene.settings(overlay_ifindex=FORWARDED)
    sent = scene.tcp(scene.at.c, scene.at.a)
    assert_dropped(arrive(scene, sent, received_on=OTHER_LINK), Reason.SOURCE_SPOOFED)
    assert arrive(scene, sent).reason is Reason.STACK


def test_nobody_speaks_on_a_flow_of_pods_from_another_link(scene: Scene) -> None:
    scene.settings(overlay_ifindex=OTHER_LINK)
    scene.pod(scene.at.a)
    scene.pod(scene.at.b, mac=MAC_B, ifindex=LINK)
    scene.remote_range()
    for peer in (scene.at.b, scene.at.c):
        sent = scene.udp(scene.at.a, peer)
        scene.send(sent)
        assert_dropped(arrive(scene, answer(sent)), Reason.SOURCE_SPOOFED)
    for peer, link in ((scene.at.b, LINK), (scene.at.c, OTHER_LINK)):
        came = arrive(scene, answer(scene.udp(scene.at.a, peer)), received_on=link)
        assert came.reason is Reason.STACK


def test_without_an_overlay_other_nodes_pods_arrive_as_they_are_routed(scene: Scene) -> None:
    scene.settings(flags=SettingFlag.BRIDGE, overlay_ifindex=0)
    scene.pod(scene.at.a)
    scene.remote_range()
    assert arrive(scene, scene.tcp(scene.at.c, scene.at.a)).reason is Reason.STACK


def test_this_nodes_pods_arrive_from_their_own_links_only(scene: Scene) -> None:
    scene.pod(scene.at.a)
    scene.local_range()
    scene.pod(scene.at.b, mac=MAC_B, ifindex=OTHER_LINK)
    sent = scene.tcp(scene.at.b, scene.at.a)
    assert_dropped(arrive(scene, sent), Reason.SOURCE_SPOOFED)
    assert arrive(scene, sent, received_on=OTHER_LINK).reason is Reason.STACK
    nobody = scene.tcp(scene.at.b + 5, scene.at.a)
    assert_dropped(arrive(scene, nobody), Reason.SOURCE_SPOOFED)


def test_a_bridges_pods_do_not_arrive_by_an_uplink(scene: Scene) -> None:
    scene.settings(flags=SettingFlag.BRIDGE, overlay_ifindex=0)
    scene.local_range()
    scene.two_pods(ifindex=OTHER_LINK)
    scene.uplink()
    sent = scene.udp(scene.at.b, scene.at.a)
    assert_dropped(arrive(scene, sent, received_on=UPLINK), Reason.SOURCE_SPOOFED)
    assert arrive(scene, sent, received_on=FORWARDED).reason is Reason.STACK


def test_a_bridges_flooded_copy_is_dropped_and_makes_no_flow(scene: Scene) -> None:
    scene.settings(flags=SettingFlag.BRIDGE, overlay_ifindex=0)
    scene.two_pods()
    sent = replace(scene.tcp(scene.at.a, scene.at.b), eth_dst=MAC_B)
    for copy in (replace(sent, eth_dst=MAC_A), replace(sent, dst=scene.at.outside)):
        outcome = scene.node.run("to_pod", copy.frame, received_on=LINK)
        assert_dropped(outcome, Reason.FLOODED)
    assert not scene.node.rows("flows")
    outcome = scene.node.run("to_pod", sent.frame, received_on=LINK)
    assert outcome.reason is Reason.STACK


def test_arp_and_neighbour_discovery_reach_every_pod(scene4: Scene) -> None:
    frame = arp(HOST_MAC, scene4.at.gateway, scene4.at.a)
    assert scene4.node.run("to_pod", frame).reason is Reason.STACK


@pytest.mark.parametrize("kind", [135, 136, 134])
def test_neighbour_discovery_reaches_every_pod(scene6: Scene, kind: int) -> None:
    about = bytes(4) + scene6.at.a.packed
    sent = Packet(src=IPv6Address("fe80::1"), dst=IPv6Address("ff02::1"), proto=ICMP6, sport=kind,
                  data=about)  # fmt: skip
    assert arrive(scene6, sent, received_on=0).reason is Reason.STACK


@pytest.mark.parametrize("kind", [135, 136, 134])
def test_neighbour_discovery_that_was_routed_is_judged(scene6: Scene, kind: int) -> None:
    scene6.pod(scene6.at.a, ingress=(INGRESS, 1))
    sent = Packet(src=scene6.at.outside, dst=scene6.at.a, proto=ICMP6, sport=kind, data=bytes(20))
    assert_dropped(arrive(scene6, sent), Reason.POLICY_INGRESS)


def mdns(scene: Scene) -> Packet:
    """What b says to all that listen on its link."""
    group = "224.0.0.251" if scene.version == 4 else "ff02::fb"
    return scene.udp(scene.at.b, type(scene.at.b)(group), dport=5353)


def test_a_router_brings_no_pod_what_is_for_a_group(scene: Scene) -> None:
    scene.pod(scene.at.a)
    assert_dropped(arrive(scene, mdns(scene)), Reason.NO_WORKLOAD)


def test_a_bridges_pods_hear_each_others_groups_as_policy_allows(scene: Scene) -> None:
    scene.settings(flags=SettingFlag.BRIDGE)
    scene.two_pods(ifindex=OTHER_LINK)
    assert arrive(scene, mdns(scene), received_on=OTHER_LINK).reason is Reason.STACK
    scene.pod(scene.at.a, ingress=(INGRESS, 1))
    assert_dropped(arrive(scene, mdns(scene), received_on=OTHER_LINK), Reason.POLICY_INGRESS)
    scene.rule_set(INGRESS, {0xF: 0b10}, [Port(1, UDP, 5353)])
    scene.peer(scene.at.b, 0xF)
    assert arrive(scene, mdns(scene), received_on=OTHER_LINK).reason is Reason.STACK
    other_port = replace(mdns(scene), dport=5354)
    assert_dropped(arrive(scene, other_port, received_on=OTHER_LINK), Reason.POLICY_INGRESS)
    assert not scene.node.rows("flows")


def test_a_bridges_node_is_heard_by_every_pod(scene: Scene) -> None:
    scene.settings(flags=SettingFlag.BRIDGE)
    scene.pod(scene.at.a, ingress=(INGRESS, 1))
    sent = replace(mdns(scene), src=scene.at.gateway)
    assert arrive(scene, sent, received_on=0).reason is Reason.STACK
    assert_dropped(arrive(scene, sent, received_on=UPLINK), Reason.POLICY_INGRESS)


def test_a_bridges_pod_speaks_to_groups_from_its_link_local_address(scene6: Scene) -> None:
    scene6.settings(flags=SettingFlag.BRIDGE)
    scene6.pod(scene6.at.a, ingress=(INGRESS, 1))
    scene6.pod(scene6.at.b, mac=MAC_B, ifindex=OTHER_LINK)
    scene6.rule_set(INGRESS, {0xF: 1})
    sent = replace(mdns(scene6), src=IPv6Address("fe80::b"))
    assert_dropped(arrive(scene6, sent, received_on=OTHER_LINK), Reason.POLICY_INGRESS)
    scene6.peer(scene6.at.b, 0xF)
    assert arrive(scene6, sent, received_on=OTHER_LINK).reason is Reason.STACK
    assert_dropped(arrive(scene6, sent, received_on=FORWARDED), Reason.SOURCE_SPOOFED)
    said = replace(sent, eth_src=MAC_A)
    assert scene6.send(said).reason is Reason.STACK
    assert scene6.send(replace(said, eth_src=MAC_B)).reason is Reason.SOURCE_SPOOFED
    assert scene6.send(replace(said, dst=scene6.at.b)).reason is Reason.SOURCE_SPOOFED
    scene6.settings()
    assert scene6.send(said).reason is Reason.SOURCE_SPOOFED


def test_a_broadcast_on_a_bridge_is_judged_like_a_group(scene4: Scene) -> None:
    scene4.settings(flags=SettingFlag.BRIDGE)
    scene4.two_pods(ifindex=OTHER_LINK)
    sent = scene4.udp(scene4.at.b, IPv4Address("255.255.255.255"), dport=5353)
    assert arrive(scene4, sent, received_on=OTHER_LINK).reason is Reason.STACK
    scene4.pod(scene4.at.a, ingress=(INGRESS, 1))
    assert_dropped(arrive(scene4, sent, received_on=OTHER_LINK), Reason.POLICY_INGRESS)


def test_what_a_pod_says_to_a_group_is_judged_by_its_egress_and_starts_no_flow(
    scene: Scene,
) -> None:
    scene.pod(scene.at.b)
    sent = replace(mdns(scene), eth_src=MAC_A)
    assert scene.send(sent).reason is Reason.STACK
    scene.pod(scene.at.b, egress=(EGRESS, 1))
    outcome = scene.send(sent)
    assert outcome.counted == {(Reason.POLICY_EGRESS, Direction.FROM_POD): 1}
    scene.rule_set(EGRESS, {0xF: 1})
    scene.peer(sent.dst, 0xF)
    assert scene.send(sent).reason is Reason.STACK
    assert not scene.node.rows("flows")


def test_a_bridges_own_address_is_believed_where_netfilter_gave_it_to_its_pods(
    scene: Scene,
) -> None:
    scene.two_pods()
    scene.local_range()
    scene.uplink()
    sent = scene.tcp(scene.at.gateway, scene.at.a)
    assert_dropped(arrive(scene, sent), Reason.SOURCE_SPOOFED)
    scene.settings(flags=SettingFlag.BRIDGE, overlay_ifindex=0)
    assert_dropped(arrive(scene, sent, received_on=UPLINK), Reason.SOURCE_SPOOFED)
    assert arrive(scene, sent).reason is Reason.STACK


def test_a_flow_that_the_senders_link_judged_is_not_judged_again(scene: Scene) -> None:
    scene.two_pods()
    scene.pod(scene.at.a, ingress=(INGRESS, 1), flags=1)
    scene.rule_set(INGRESS, {0xF: 1})
    scene.peer(scene.at.b, 0xF)
    sent = scene.tcp(scene.at.b, scene.at.a)
    assert scene.send(sent).reason is Reason.STACK
    scene.peer(scene.at.b, 0x5)
    assert arrive(scene, sent, received_on=LINK).reason is Reason.STACK
    scene.pod(scene.at.a, ingress=(INGRESS, 2), flags=1)
    assert_dropped(arrive(scene, replace(sent, flags=ACK), received_on=LINK), Reason.POLICY_INGRESS)


def test_nobody_speaks_on_a_flow_that_takes_the_stack_from_another_link(scene: Scene) -> None:
    scene.local_range()
    scene.pod(scene.at.a)
    scene.pod(scene.at.b, mac=MAC_B, ifindex=LINK, flags=WorkloadFlag.NO_REDIRECT)
    sent = scene.udp(scene.at.a, scene.at.b)
    assert scene.send(sent).reason is Reason.STACK
    assert_dropped(arrive(scene, answer(sent), received_on=UPLINK + 9), Reason.SOURCE_SPOOFED)
    assert arrive(scene, answer(sent), received_on=LINK).reason is Reason.STACK
