"""TCP that is first seen in its middle, as after an eviction: who called is not to be seen."""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest

from tests.netns.hook_scene import inside, namespace
from tests.packet.packets import ACK, FIN, RST, SYN, Packet
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
@pytest.fixture(scope="module")
def own_netns() -> Iterator[None]:
    """The programs look for servers in the namespace where they run."""
    with namespace(f"dp-mid-{os.getpid()}") as name, inside(name):
        yield


@contextmanager
def server(scene: Scene) -> Iterator[None]:
    """The node's, on port 80."""
    family = socket.AF_INET if scene.version == 4 else socket.AF_INET6
    with socket.socket(family, socket.SOCK_STREAM) as listening:
        listening.bind(("", 80))
        listening.listen()
        yield


def from_node(scene: Scene, packet: Packet) -> Outcome:
    frame = replace(packet, eth_src=HOST_MAC, eth_dst=MAC_A).frame
    return scene.node.run("to_pod", frame, received_on=0)


def test_a_late_answer_of_the_own_node_frees_the_pod_from_nothing(
    scene: Scene, own_netns: None
) -> None:
    scene.pod(scene.at.a, ingress=(INGRESS, 1))
    sent = scene.tcp(scene.at.a, scene.at.gateway)
    with server(scene):
        assert from_node(scene, says(sent)).reason is Reason.STACK
        assert not scene.flow(sent).flags & FlowFlag.OWN_NODE
        assert scene.send(data(sent)).reason is Reason.STACK
        scene.pod(scene.at.a, ingress=(INGRESS, 2), egress=(EGRESS, 2))
        assert scene.send(data(sent)).reason is Reason.POLICY_EGRESS
        assert from_node(scene, says(sent)).reason is Reason.POLICY_EGRESS
        forget(scene)
        for packet in (says(sent), answer(sent)):
            assert from_node(scene, packet).reason is Reason.POLICY_INGRESS


def test_where_the_own_node_has_no_server_it_is_the_caller(scene: Scene, own_netns: None) -> None:
    scene.pod(scene.at.a, ingress=(INGRESS, 1), egress=(EGRESS, 1))
    sent = scene.tcp(scene.at.gateway, scene.at.a)
    for packet in (data(sent), sent):
        assert from_node(scene, packet).reason is Reason.STACK
        assert scene.flow(sent).flags & FlowFlag.OWN_NODE
        assert scene.send(replace(says(sent), eth_src=MAC_A)).reason is Reason.STACK
        forget(scene)


# --- What a stray packet opens ------------------------------------------------------------------
@pytest.mark.parametrize("judged", [1, 2])
def test_a_packet_out_of_nowhere_opens_no_connection_the_other_way(
    scene: Scene, judged: int
) -> None:
    """b may call a, and not be called: an ACK may be an answer to b, the SYN after it is none."""
    scene.pod(scene.at.a)
    scene.pod(scene.at.b, mac=MAC_B, ingress=(SERVER_SET, 1))
    call = scene.tcp(scene.at.a, scene.at.b)
    assert scene.send(data(call)).reason is Reason.DELIVERED
    scene.pod(scene.at.b, mac=MAC_B, ingress=(SERVER_SET, judged))
    assert scene.send(call).reason is Reason.POLICY_INGRESS
    assert scene.send(data(call)).reason is Reason.DELIVERED


def test_who_was_called_calls_back_on_the_same_ports_only_as_policy_allows(scene: Scene) -> None:
    scene.pod(scene.at.a, ingress=(CLIENT_IN, 1))
    scene.pod(scene.at.b, mac=MAC_B)
    call = scene.tcp(scene.at.a, scene.at.b)
    for packet in (call, answer(call), data(call)):
        assert scene.send(packet).reason is Reason.DELIVERED
    assert scene.send(answer(call, flags=SYN)).reason is Reason.POLICY_INGRESS
    assert scene.send(says(call)).reason is Reason.DELIVERED


def test_what_was_picked_up_calls_only_as_policy_allows(scene: Scene) -> None:
    """Either direction will do for its middle, not for its beginning."""
    scene.two_pods()
    call = scene.tcp(scene.at.a, scene.at.b, dport=81)
    assert scene.send(data(call)).reason is Reason.DELIVERED
    assert scene.flow(call).flags & FlowFlag.PICKED_UP
    scene.pod(scene.at.b, mac=MAC_B, ingress=(SERVER_SET, 2))
    assert scene.send(data(call)).reason is Reason.DELIVERED
    assert scene.send(call).reason is Reason.POLICY_INGRESS
