"""Setting client-address: masquerade. A Service's client is this node to its backends, as with
kube-proxy; to policy it stays who it is."""

from dataclasses import replace

import pytest

from tests.packet.packets import ACK, SYN, TCP, UDP, Address, Packet, read, unreachable
from tests.packet.runner import Action, Outcome
from tests.packet.scene import (
    HOST_MAC,
    INGRESS,
    LINK,
    MAC_A,
    MAC_B,
    OTHER_LINK,
    SERVICE,
    SNAT_PORTS,
    UPLINK,
    Scene,
    answer,
)
from weft.bpf.layout import (
    Direction,
    FlowPath,
    Frontend,
    FrontendFlag,
    FrontendKey,
    Reason,
    SettingFlag,
)

BOTH = pytest.mark.parametrize("proto", [TCP, UDP], ids=["tcp", "udp"])
CLIENTS = pytest.mark.parametrize("client", ["b", "outside"], ids=["pod", "outside"])
ALL = SettingFlag.OVERLAY | SettingFlag.MASQUERADE | SettingFlag.MASQUERADE_CLIENTS


@pytest.fixture
def masked(scene: Scene) -> Scene:
    """Pods a and b here, c of the other node."""
    scene.settings(flags=ALL, overlay_ifindex=OTHER_LINK)
    scene.two_pods()
    scene.uplink()
    scene.local_range()
    scene.remote_range()
    return scene


def expose(scene: Scene, proto: int, backend: Address, more: FrontendFlag | int = 0) -> None:
    """The VIP is a load balancer's address."""
    scene.service(proto, backend)
    local = 1 if more else 0
    flags = FrontendFlag.EXTERNAL | more
    row = Frontend(SERVICE, SERVICE * local, 1, local, 0, flags, 0)
    scene.node.put("frontends", FrontendKey(scene.at.vip, 80, proto), row)


def dial(scene: Scene, client: str, proto: int, *, flags: int = SYN) -> Outcome:
    """A client's packet to the VIP, where it comes in."""
    src = getattr(scene.at, client)
    make = (
        scene.tcp(src, scene.at.vip, flags=flags) if proto == TCP else scene.udp(src, scene.at.vip)
    )
    if client != "outside":
        return scene.send(make)
    frame = replace(make, eth_src=HOST_MAC, eth_dst=bytes(6)).frame
    return scene.node.run("from_uplink", frame, ifindex=UPLINK, received_on=UPLINK)


def hand_to_a(scene: Scene, packet: bytes) -> Outcome:
    """What the stack hands on to the pod a."""
    frame = replace(read(packet), eth_src=HOST_MAC, eth_dst=MAC_A).frame
    return scene.node.run("to_pod", frame, received_on=UPLINK)


def reach_a(scene: Scene, client: str, proto: int) -> Packet:
    """What the pod a gets of a client's first packet."""
    outcome = dial(scene, client, proto)
    assert (outcome.action, outcome.reason) == (Action.NEXT, Reason.STACK)
    outcome = hand_to_a(scene, outcome.packet)
    assert outcome.counted == {(Reason.STACK, Direction.TO_POD): 1}
    return read(outcome.packet)


@CLIENTS
@BOTH
def test_a_backend_here_sees_the_node_and_its_answer_comes_from_the_vip(
    masked: Scene, client: str, proto: int
) -> None:
    expose(masked, proto, masked.at.a)
    got = reach_a(masked, client, proto)
    assert (got.src, got.dst, got.dport) == (masked.at.gateway, masked.at.a, 8080)
    assert SNAT_PORTS[0] <= got.sport <= SNAT_PORTS[1]
    assert got.checksums_hold
    outcome = masked.send(replace(answer(got), eth_src=MAC_A))
    assert outcome.counted == {(Reason.RESTORED, Direction.FROM_POD): 1}
    outcome = once_more(masked, outcome)
    assert (outcome.action, outcome.reason) == (Action.NEXT, Reason.STACK)
    back = read(outcome.packet)
    assert (back.src, back.dst, back.dport) == (masked.at.a, getattr(masked.at, client), 4000)
    assert masked.flow(back).path == FlowPath.MASKED
    last = read(leave(masked, client, back).packet)
    assert (last.src, last.sport, last.dport) == (masked.at.vip, 80, 4000)
    assert last.checksums_hold


def once_more(scene: Scene, outcome: Outcome) -> Outcome:
    """What its link gets for the second time."""
    assert outcome.action is Action.REDIRECT
    return scene.node.run("from_pod", outcome.packet)


def leave(scene: Scene, client: str, packet: Packet) -> Outcome:
    """The stack's packet to a client, by its link."""
    if client == "outside":
        return scene.node.run("to_uplink", packet.frame, ifindex=UPLINK, received_on=LINK)
    frame = replace(packet, eth_src=HOST_MAC, eth_dst=MAC_B).frame
    return scene.node.run("to_pod", frame, received_on=LINK)


@CLIENTS
def test_policy_judges_the_client_by_its_own_address(masked: Scene, client: str) -> None:
    expose(masked, TCP, masked.at.a)
    masked.pod(masked.at.a, ingress=(INGRESS, 1))
    masked.rule_set(INGRESS, {0xF: 1})
    masked.peer(masked.at.gateway, 0xF)
    assert dial(masked, client, TCP).reason is Reason.POLICY_INGRESS
    masked.peer(getattr(masked.at, client), 0xF)
    assert reach_a(masked, client, TCP).src == masked.at.gateway


@CLIENTS
@BOTH
def test_a_backend_of_another_node_sees_the_gateway_address(
    masked: Scene, client: str, proto: int
) -> None:
    expose(masked, proto, masked.at.c)
    outcome = dial(masked, client, proto)
    assert (outcome.action, outcome.reason) == (Action.NEXT, Reason.STACK)
    came = LINK if client == "b" else UPLINK
    outcome = masked.node.run("to_overlay", outcome.packet, ifindex=LINK, received_on=came)
    assert outcome.reason is Reason.TUNNELLED
    got = read(outcome.packet)
    assert (got.src, got.dst, got.checksums_hold) == (masked.at.gateway, masked.at.c, True)


@BOTH
def test_a_backend_on_the_same_link_sees_the_uplinks_address(masked: Scene, proto: int) -> None:
    masked.direct_range()
    expose(masked, proto, masked.at.c)
    sent = dial(masked, "b", proto)
    assert sent.reason is Reason.STACK
    outcome = masked.node.run("to_uplink", sent.packet, ifindex=UPLINK, received_on=LINK)
    assert outcome.reason is Reason.MASQUERADED
    got = read(outcome.packet)
    assert (got.src, got.dst) == (masked.at.uplink, masked.at.c)


@CLIENTS
def test_policy_local_keeps_the_client(masked: Scene, client: str) -> None:
    expose(masked, TCP, masked.at.a, FrontendFlag.LOCAL_OUTSIDE)
    outcome = dial(masked, client, TCP)
    assert outcome.reason is Reason.DELIVERED
    assert read(outcome.packet).src == getattr(masked.at, client)


def test_a_pod_keeps_its_address_at_a_cluster_ip_and_a_client_outside_does_not(
    masked: Scene,
) -> None:
    masked.service(TCP, masked.at.a)
    assert dial(masked, "b", TCP).reason is Reason.DELIVERED
    assert reach_a(masked, "outside", TCP).src == masked.at.gateway


@CLIENTS
def test_a_connection_stays_masked_when_its_service_goes(masked: Scene, client: str) -> None:
    expose(masked, TCP, masked.at.a)
    got = reach_a(masked, client, TCP)
    masked.node.tables["frontends"].delete(list(masked.node.rows("frontends")))
    outcome = hand_to_a(masked, dial(masked, client, TCP, flags=ACK).packet)
    again = read(outcome.packet)
    assert (again.src, again.sport) == (got.src, got.sport)


@CLIENTS
def test_a_backends_error_reaches_the_client_from_the_vip(masked: Scene, client: str) -> None:
    expose(masked, UDP, masked.at.a)
    got = reach_a(masked, client, UDP)
    error = replace(
        unreachable(masked.at.a, masked.at.gateway, got.network), eth_src=MAC_A, eth_dst=HOST_MAC
    )
    outcome = once_more(masked, masked.send(error))
    assert outcome.reason is Reason.STACK
    last = read(leave(masked, client, read(outcome.packet)).packet)
    about = masked.embedded(last)
    assert (last.src, last.dst) == (masked.at.vip, getattr(masked.at, client))
    assert (about.src, about.dst, about.dport) == (last.dst, masked.at.vip, 80)
