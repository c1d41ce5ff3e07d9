"""TCP that is first seen in its middle, as after an eviction: who called is not to be seen."""

from dataclasses import replace

import pytest

from tests.packet.packets import ACK, FIN, RST, SYN, Address, Packet
from tests.packet.runner import Outcome
from tests.packet.scene import EGRESS, HOST_MAC, INGRESS, MAC_A, MAC_B, Port, Scene, answer
from weft.bpf.layout import FlowFlag, Reason

WEB, FRIEND = 1, 0xF
CLIENT_SET, SERVER_SET, CLIENT_IN, SERVER_OUT = EGRESS, INGRESS, 0x3333, 0x4444


def forget(scene: Scene) -> None:
    scene.node.tables["flows"].delete(list(scene.node.rows("flows")))


def isolated(scene: Scene, judged: int = 1) -> None:
    """a may call b on port 80 and b be called there; nothing else is allowed to either."""
    ends = {"ingress": (CLIENT_IN, judged), "egress": (CLIENT_SET, judged)}
    scene.pod(scene.at.a, **ends)  # type: ignore[arg-type]
    ends = {"ingress": (SERVER_SET, judged), "egress": (SERVER_OUT, judged)}
    scene.pod(scene.at.b, mac=MAC_B, **ends)  # type: ignore[arg-type]
    for number in (CLIENT_SET, SERVER_SET):
        scene.rule_set(number, {0: 1 << WEB}, [Port(WEB, 6, 80)])


def data(sent: Packet) -> Packet:
    return replace(sent, flags=ACK, data=b"more")


def says(sent: Packet) -> Packet:
    """The server's."""
    return answer(data(sent), flags=ACK)


def test_a_server_that_speaks_first_is_still_the_one_that_was_called(scene: Scene) -> None:
    isolated(scene)
    sent = scene.tcp(scene.at.a, scene.at.b)
    scene.send(sent)
    forget(scene)
    assert scene.send(says(sent)).reason is Reason.DELIVERED
    flow = scene.flow(sent)
    assert not flow.flags & FlowFlag.PICKED_UP
    assert flow.flags & FlowFlag.REPLIED
    isolated(scene, judged=2)
    assert scene.send(says(sent)).reason is Reason.DELIVERED
    assert scene.send(data(sent)).reason is Reason.DELIVERED


def test_a_client_that_speaks_first_is_allowed_as_its_first_packet_was(scene: Scene) -> None:
    isolated(scene)
    sent = scene.tcp(scene.at.a, scene.at.b)
    assert scene.send(data(sent)).reason is Reason.DELIVERED
    assert scene.flow(sent).flags & FlowFlag.PICKED_UP
    isolated(scene, judged=2)
    assert scene.send(says(sent)).reason is Reason.DELIVERED


def test_while_nothing_tells_who_called_either_direction_will_do(scene: Scene) -> None:
    scene.two_pods()
    sent = scene.tcp(scene.at.a, scene.at.b)
    assert scene.send(says(sent)).reason is Reason.DELIVERED
    assert scene.flow(sent).flags & FlowFlag.PICKED_UP
    isolated(scene, judged=2)
    assert scene.send(says(sent)).reason is Reason.DELIVERED
    assert scene.send(data(sent)).reason is Reason.DELIVERED


def test_what_is_allowed_in_no_direction_is_cut(scene: Scene) -> None:
    scene.two_pods()
    sent = scene.tcp(scene.at.a, scene.at.b, dport=81)
    assert scene.send(says(sent)).reason is Reason.DELIVERED
    isolated(scene, judged=2)
    outcome = scene.send(says(sent))
    assert outcome.reason is Reason.POLICY_EGRESS
    assert outcome.events[0].set == SERVER_OUT


@pytest.mark.parametrize("flags", [ACK, FIN | ACK, RST | ACK])
def test_an_unsolicited_packet_that_neither_direction_allows_is_dropped(
    scene: Scene, flags: int
) -> None:
    isolated(scene)
    sent = scene.tcp(scene.at.a, scene.at.b, flags=flags, dport=81)
    assert scene.send(sent).reason is Reason.POLICY_EGRESS
    assert not scene.node.rows("flows")


@pytest.mark.parametrize("flags", [SYN, SYN | ACK, RST])
def test_what_tells_its_direction_is_judged_in_that(scene: Scene, flags: int) -> None:
    isolated(scene)
    sent = scene.tcp(scene.at.a, scene.at.b)
    assert scene.send(answer(sent, flags=flags)).reason is Reason.POLICY_EGRESS


def test_udp_is_judged_as_it_comes(scene: Scene) -> None:
    isolated(scene)
    scene.rule_set(CLIENT_SET, {0: 1 << WEB}, [Port(WEB, 17, 80)])
    scene.rule_set(SERVER_SET, {0: 1 << WEB}, [Port(WEB, 17, 80)])
    sent = scene.udp(scene.at.a, scene.at.b)
    assert scene.send(sent).reason is Reason.DELIVERED
    forget(scene)
    assert scene.send(answer(sent)).reason is Reason.POLICY_EGRESS


# --- The own node -------------------------------------------------------------------------------
def from_node(scene: Scene, packet: Packet) -> Outcome:
    frame = replace(packet, eth_src=HOST_MAC, eth_dst=MAC_A).frame
    return scene.node.run("to_pod", frame, received_on=0)


def called(scene: Scene, address: Address) -> Packet:
    """a calls a server of its node's, and nobody remembers."""
    scene.pod(scene.at.a, ingress=(INGRESS, 1))
    sent = scene.tcp(scene.at.a, address)
    scene.send(sent)
    forget(scene)
    return sent


def test_a_late_answer_of_the_own_node_frees_the_pod_from_nothing(scene: Scene) -> None:
    sent = called(scene, scene.at.gateway)
    assert from_node(scene, says(sent)).reason is Reason.STACK
    assert not scene.flow(sent).flags & FlowFlag.OWN_NODE
    assert scene.send(data(sent)).reason is Reason.STACK
    scene.pod(scene.at.a, ingress=(INGRESS, 2), egress=(EGRESS, 2))
    assert scene.send(data(sent)).reason in (Reason.POLICY_EGRESS, Reason.POLICY_INGRESS)


def test_a_new_call_of_the_own_node_is_always_allowed(scene: Scene) -> None:
    scene.pod(scene.at.a, ingress=(INGRESS, 1), egress=(EGRESS, 1))
    sent = scene.tcp(scene.at.gateway, scene.at.a)
    assert from_node(scene, sent).reason is Reason.STACK
    assert scene.flow(sent).flags & FlowFlag.OWN_NODE
