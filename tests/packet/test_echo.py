"""Echoes of a Service's address: the node answers, whoever asks and whatever is served there."""

from dataclasses import replace

import pytest

from tests.packet.packets import ECHO_REPLY, SYN, TCP, Packet, read
from tests.packet.runner import Action, Outcome
from tests.packet.scene import EGRESS, HOST_MAC, MAC_A, UPLINK, Scene
from weft.bpf.layout import Direction, Frontend, FrontendFlag, FrontendKey, PrefixFlag, Reason

# The loopback's, which test runs take for the uplink: frames for it are this host's.
UPLINK_MAC = bytes(6)


@pytest.fixture
def served(scene: Scene) -> Scene:
    scene.pod(scene.at.a)
    scene.uplink()
    scene.local_range()
    scene.prefix(scene.at.services, PrefixFlag.SERVICE)
    scene.service(TCP)
    return scene


def whole(scene: Scene, flags: FrontendFlag) -> None:
    key = FrontendKey(scene.at.vip, 0, 0)
    scene.node.put("frontends", key, Frontend(0, 0, 0, 0, 0, flags, 0))


def from_outside(scene: Scene, packet: Packet) -> Outcome:
    packet = replace(packet, eth_src=HOST_MAC, eth_dst=UPLINK_MAC)
    return scene.node.run("from_uplink", packet.frame, ifindex=UPLINK, received_on=UPLINK)


def reply_to(asked: Packet) -> Packet:
    kind = ECHO_REPLY[asked.version]
    return replace(asked, src=asked.dst, dst=asked.src, sport=kind, hops=64)


def test_a_pod_is_answered_by_the_vip(served: Scene) -> None:
    asked = replace(served.ping(served.at.a, served.at.vip), hops=1)
    outcome = served.send(asked)
    assert outcome.action is Action.REDIRECT
    assert outcome.counted == {(Reason.ANSWERED, Direction.FROM_POD): 1}
    assert read(outcome.packet) == replace(reply_to(asked), eth_src=HOST_MAC, eth_dst=MAC_A)
    assert not served.node.rows("flows")


def test_a_client_outside_is_answered_by_the_vip(served: Scene) -> None:
    asked = replace(served.ping(served.at.outside, served.at.vip), hops=9)
    outcome = from_outside(served, asked)
    assert outcome.action is Action.REDIRECT
    assert outcome.counted == {(Reason.ANSWERED, Direction.FROM_UPLINK): 1}
    got = read(outcome.packet)
    assert replace(got, eth_src=HOST_MAC, eth_dst=HOST_MAC) == replace(
        reply_to(asked), eth_src=HOST_MAC, eth_dst=HOST_MAC
    )


def test_long_data_comes_back_whole(served: Scene) -> None:
    asked = served.ping(served.at.a, served.at.vip)
    asked = replace(asked, data=asked.data + bytes(range(256)) * 5)
    got = read(served.send(asked).packet)
    assert (got.data, got.checksums_hold) == (asked.data, True)


def test_an_isolated_pod_is_answered_as_it_is_refused(served: Scene) -> None:
    served.pod(served.at.a, egress=(EGRESS, 1))
    assert served.send(served.ping(served.at.a, served.at.vip)).reason is Reason.ANSWERED


def test_an_exposed_address_answers_echoes_and_refuses_nothing(served: Scene) -> None:
    served.prefix(served.at.services, 0)
    whole(served, FrontendFlag.OPEN)
    assert served.send(served.ping(served.at.a, served.at.vip)).reason is Reason.ANSWERED
    ping = served.ping(served.at.outside, served.at.vip)
    assert from_outside(served, ping).reason is Reason.ANSWERED
    unserved = served.tcp(served.at.a, served.at.vip, dport=81)
    assert served.send(unserved).reason is Reason.STACK
    unserved = served.tcp(served.at.outside, served.at.vip, dport=81, flags=SYN)
    assert from_outside(served, unserved).reason is Reason.NOT_OURS


def test_the_nodes_own_address_answers_for_itself(served: Scene) -> None:
    key = FrontendKey(served.at.uplink, 0, 0)
    served.node.put("frontends", key, Frontend(0, 0, 0, 0, 0, FrontendFlag.OPEN, 0))
    ping = served.ping(served.at.outside, served.at.uplink)
    assert from_outside(served, ping).reason is Reason.NOT_OURS


def test_only_requests_are_answered(served: Scene) -> None:
    reply = served.ping(served.at.a, served.at.vip, reply=True)
    assert served.send(reply).reason is Reason.NO_BACKEND


def test_a_pod_is_not_answered_under_anothers_name(served: Scene) -> None:
    forged = replace(served.ping(served.at.b, served.at.vip), eth_src=MAC_A)
    outcome = served.send(forged)
    assert (outcome.action, outcome.reason) == (Action.DROP, Reason.SOURCE_SPOOFED)


def test_a_request_in_pieces_is_dropped(served: Scene) -> None:
    first = replace(served.ping(served.at.a, served.at.vip), ident=9, more=True)
    later = replace(first, data=b"the rest", offset=1400 // 8 * 8, more=False)
    for piece in (first, later):
        outcome = served.send(piece)
        assert (outcome.action, outcome.reason) == (Action.DROP, Reason.NO_BACKEND)
