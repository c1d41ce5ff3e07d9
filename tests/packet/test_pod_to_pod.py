"""Pod to pod on one node: redirected both ways, one flow, nothing left behind on the packet."""

from dataclasses import replace

from tests.packet.packets import ACK, FIN, RST, read
from tests.packet.runner import Action
from tests.packet.scene import HOST_MAC, MAC_B, OTHER_LINK, Scene, answer
from weft.bpf.layout import Direction, FlowFlag, FlowPath, Reason, WorkloadFlag


def test_a_pod_reaches_a_pod_of_its_node_by_redirect(scene: Scene) -> None:
    scene.two_pods()
    sent = scene.tcp(scene.at.a, scene.at.b)
    outcome = scene.node.run("from_pod", sent.frame, mark=0xABC)
    assert outcome.action is Action.REDIRECT
    assert outcome.counted == {(Reason.DELIVERED, Direction.FROM_POD): 1}
    assert outcome.mark == 0
    assert read(outcome.packet) == replace(sent, eth_src=HOST_MAC, eth_dst=MAC_B)


def test_the_first_packet_makes_a_flow_and_its_answer_marks_it_replied(scene: Scene) -> None:
    scene.two_pods()
    sent = scene.tcp(scene.at.a, scene.at.b)
    scene.send(sent)
    flow = scene.flow(sent)
    assert flow.path == FlowPath.REDIRECT
    assert not flow.flags & FlowFlag.REPLIED
    assert scene.send(answer(sent)).reason is Reason.DELIVERED
    flow = scene.flow(sent)
    assert flow.flags & FlowFlag.REPLIED
    assert len(scene.node.rows("flows")) == 1


def test_udp_and_ping_are_delivered_too(scene: Scene) -> None:
    scene.two_pods()
    for sent in (scene.udp(scene.at.a, scene.at.b), scene.ping(scene.at.a, scene.at.b)):
        outcome = scene.send(sent)
        assert outcome.reason is Reason.DELIVERED
        assert read(outcome.packet).data == sent.data


def test_one_fin_leaves_a_flow_open_and_the_second_closes_it(scene: Scene) -> None:
    scene.two_pods()
    sent = scene.tcp(scene.at.a, scene.at.b)
    scene.send(sent)
    scene.send(answer(sent))
    scene.send(replace(sent, flags=FIN | ACK))
    assert not scene.flow(sent).flags & FlowFlag.CLOSING
    scene.send(answer(sent, flags=FIN | ACK))
    assert scene.flow(sent).flags & FlowFlag.CLOSING


def test_a_reset_closes_a_flow_and_a_syn_on_the_same_ports_starts_anew(scene: Scene) -> None:
    scene.two_pods()
    sent = scene.tcp(scene.at.a, scene.at.b)
    scene.send(sent)
    scene.send(answer(sent, flags=RST | ACK))
    assert scene.flow(sent).flags & FlowFlag.CLOSING
    scene.send(sent)
    assert not scene.flow(sent).flags & (FlowFlag.CLOSING | FlowFlag.REPLIED)


def test_a_reset_for_no_connection_passes_but_makes_no_flow(scene: Scene) -> None:
    scene.two_pods()
    sent = scene.tcp(scene.at.a, scene.at.b, flags=RST)
    assert scene.send(sent).reason is Reason.DELIVERED
    assert not scene.node.rows("flows")


def test_a_pod_that_must_not_be_redirected_to_is_reached_through_the_stack(scene: Scene) -> None:
    scene.two_pods(flags=WorkloadFlag.NO_REDIRECT)
    sent = scene.tcp(scene.at.a, scene.at.b)
    outcome = scene.send(sent)
    assert (outcome.action, outcome.reason) == (Action.NEXT, Reason.STACK)
    assert outcome.packet == sent.frame
    assert scene.flow(sent).path == FlowPath.STACK
    assert scene.send(answer(sent)).reason is Reason.STACK


def test_what_is_too_long_for_the_pods_link_is_left_to_the_stack(scene: Scene) -> None:
    scene.two_pods(ifindex=OTHER_LINK)
    sent = replace(scene.udp(scene.at.a, scene.at.b), data=bytes(1400))
    outcome = scene.send(sent)
    assert (outcome.action, outcome.reason) == (Action.NEXT, Reason.STACK)


def test_an_address_of_the_range_without_a_pod_is_dropped(scene: Scene) -> None:
    scene.pod(scene.at.a)
    scene.local_range()
    outcome = scene.send(scene.tcp(scene.at.a, scene.at.b))
    assert (outcome.action, outcome.reason) == (Action.DROP, Reason.NO_WORKLOAD)


def test_the_nodes_own_address_in_the_range_is_left_to_the_stack(scene: Scene) -> None:
    scene.pod(scene.at.a)
    scene.local_range()
    assert scene.send(scene.tcp(scene.at.a, scene.at.gateway)).reason is Reason.STACK


def test_the_outside_is_left_to_the_stack_and_other_programs(scene: Scene) -> None:
    scene.pod(scene.at.a)
    outcome = scene.send(scene.tcp(scene.at.a, scene.at.outside))
    assert (outcome.action, outcome.reason) == (Action.NEXT, Reason.STACK)
    assert outcome.events == ()


def test_a_pod_that_is_gone_gets_no_more_packets_of_its_flows(scene: Scene) -> None:
    scene.two_pods()
    sent = scene.tcp(scene.at.a, scene.at.b)
    scene.send(sent)
    scene.remove_pod(scene.at.b)
    assert scene.send(replace(sent, flags=ACK)).reason is Reason.NO_WORKLOAD


def test_a_new_flow_is_told_of_as_often_as_the_settings_say(scene: Scene) -> None:
    scene.two_pods()
    scene.settings(event_sample=1)
    sent = scene.tcp(scene.at.a, scene.at.b)
    (event,) = scene.send(sent).events
    assert (event.reason, event.direction) == (Reason.DELIVERED, Direction.FROM_POD)
    assert (event.tuple.src, event.tuple.dst, event.tuple.dport) == (sent.src, sent.dst, 80)
    assert (event.family, event.bytes) == (scene.version, len(sent.frame))
    assert scene.send(replace(sent, flags=ACK)).events == ()
