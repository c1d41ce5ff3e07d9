"""An address that another pod got: nothing of the last one's flows is left for it."""

from dataclasses import replace

import pytest

from tests.packet.packets import ACK, SYN, UDP, Packet, read, unreachable
from tests.packet.runner import Outcome
from tests.packet.scene import (
    EGRESS,
    HOST_MAC,
    INGRESS,
    MAC_A,
    MAC_B,
    UPLINK,
    Scene,
    answer,
)
from weft.bpf.layout import FlowFlag, FlowPath, Reason, WorkloadFlag

OLD, NEW = 1, 2


def arrive(scene: Scene, packet: Packet, program: str, received_on: int = UPLINK) -> Outcome:
    mac = MAC_A if program == "to_pod" else bytes(6)
    frame = replace(packet, eth_src=HOST_MAC, eth_dst=mac).frame
    return scene.node.run(program, frame, ifindex=UPLINK, received_on=received_on)


def closed(scene: Scene, **words: object) -> None:
    """a's address is another pod's now, which nobody may reach and which may reach nobody."""
    scene.pod(scene.at.a, holder=NEW, ingress=(INGRESS, 5), egress=(EGRESS, 5), **words)  # type: ignore[arg-type]


def renewed(scene: Scene, address_of: str) -> None:
    """Another pod at b's address, or a's, that nothing isolates."""
    mac = MAC_A if address_of == "a" else MAC_B
    scene.pod(getattr(scene.at, address_of), mac=mac, holder=NEW)


@pytest.mark.parametrize("flags", [SYN | ACK, ACK])
def test_the_new_pod_does_not_go_on_with_what_the_old_one_said(scene: Scene, flags: int) -> None:
    scene.two_pods()
    sent = scene.tcp(scene.at.a, scene.at.b)
    scene.send(sent)
    scene.send(answer(sent))
    closed(scene)
    assert scene.send(replace(sent, flags=ACK)).reason is Reason.POLICY_EGRESS
    assert scene.send(answer(sent, flags=flags)).reason is Reason.POLICY_INGRESS


def test_a_revision_that_moves_leaves_the_flow_to_its_pod(scene: Scene) -> None:
    scene.two_pods()
    sent = scene.udp(scene.at.a, scene.at.b)
    scene.send(sent)
    scene.two_pods(egress=(EGRESS, 5))
    assert scene.send(answer(sent)).reason is Reason.DELIVERED


@pytest.mark.parametrize("whose", ["a", "b"])
def test_what_the_flow_was_is_forgotten(scene: Scene, whose: str) -> None:
    scene.two_pods()
    sent = scene.udp(scene.at.a, scene.at.b)
    scene.send(sent)
    scene.send(answer(sent))
    renewed(scene, whose)
    assert scene.send(sent).reason is Reason.DELIVERED
    assert not scene.flow(sent).flags & FlowFlag.REPLIED
    renewed(scene, "b" if whose == "a" else "a")
    assert scene.send(answer(sent)).reason is Reason.DELIVERED
    flow = scene.flow(sent)
    assert not flow.flags & FlowFlag.REPLIED
    assert {flow.initiator_revision >> 40, flow.responder_revision >> 40} == {NEW}


def test_the_old_pods_vip_is_not_put_into_the_new_ones_packets(scene: Scene) -> None:
    scene.two_pods()
    scene.service(UDP, scene.at.b)
    got = read(scene.send(scene.udp(scene.at.a, scene.at.vip)).packet)
    renewed(scene, "b")
    outcome = scene.send(answer(replace(got, eth_src=MAC_A)))
    assert read(outcome.packet).src == scene.at.b


def test_the_old_pods_path_is_not_the_new_ones(scene: Scene) -> None:
    scene.two_pods()
    sent = scene.udp(scene.at.a, scene.at.b)
    scene.send(sent)
    scene.pod(scene.at.b, mac=MAC_B, holder=NEW, flags=WorkloadFlag.NO_REDIRECT)
    assert scene.send(sent).reason is Reason.STACK
    assert scene.flow(sent).path == FlowPath.STACK


@pytest.mark.parametrize("error", [False, True], ids=["answer", "error"])
@pytest.mark.parametrize("program", ["to_pod", "from_uplink"])
def test_answers_that_come_late_do_not_reach_the_new_pod(
    scene: Scene, program: str, error: bool
) -> None:
    direct = program == "from_uplink"
    far = scene.at.c if direct else scene.at.outside
    scene.direct_range()
    scene.pod(scene.at.a)
    for sent in (scene.tcp(scene.at.a, far), scene.udp(scene.at.a, far)):
        assert scene.send(sent).reason is (Reason.DIRECT if direct else Reason.STACK)
        back = unreachable(far, scene.at.a, sent.network) if error else answer(sent)
        scene.pod(scene.at.a)
        passed = Reason.DELIVERED if direct else Reason.STACK
        assert arrive(scene, back, program).reason is passed
        closed(scene)
        assert arrive(scene, back, program).reason is Reason.POLICY_INGRESS
        scene.pod(scene.at.a)


def test_what_its_own_node_said_to_the_old_pod_lets_the_new_one_say_nothing(scene: Scene) -> None:
    scene.pod(scene.at.a)
    sent = scene.udp(scene.at.gateway, scene.at.a)
    assert arrive(scene, sent, "to_pod", received_on=0).reason is Reason.STACK
    back = replace(answer(sent), eth_src=MAC_A)
    assert scene.send(back).reason is Reason.STACK
    closed(scene)
    assert scene.send(back).reason is Reason.POLICY_EGRESS
    assert arrive(scene, sent, "to_pod", received_on=0).reason is Reason.STACK
    assert scene.send(back).reason is Reason.STACK


def test_the_old_pods_way_to_itself_is_not_the_new_ones(scene: Scene) -> None:
    scene.pod(scene.at.a)
    scene.service(UDP, scene.at.a)
    got = read(scene.send(scene.udp(scene.at.a, scene.at.vip)).packet)
    assert got.src == scene.at.gateway
    back = replace(answer(got), eth_src=MAC_A)
    assert scene.send(back).reason is Reason.DELIVERED
    closed(scene)
    assert scene.send(back).reason is Reason.POLICY_EGRESS


def test_between_pods_of_the_stack_both_ends_are_looked_at(scene: Scene) -> None:
    scene.pod(scene.at.a, flags=WorkloadFlag.NO_REDIRECT)
    scene.pod(scene.at.b, mac=MAC_B)
    sent = scene.udp(scene.at.b, scene.at.a)
    assert scene.send(sent).reason is Reason.STACK
    assert arrive(scene, sent, "to_pod").reason is Reason.STACK
    closed(scene, flags=WorkloadFlag.NO_REDIRECT)
    scene.send(sent)
    assert arrive(scene, sent, "to_pod").reason is Reason.POLICY_INGRESS
