"""Clients from outside: translated where they come in, judged, answered from what they dialled."""

from dataclasses import replace

import pytest

from tests.packet.packets import (
    ACK,
    RST,
    SYN,
    TCP,
    UDP,
    Address,
    Packet,
    embedded_header_holds,
    read,
    unreachable,
)
from tests.packet.runner import Action, Outcome
from tests.packet.scene import (
    HOST_MAC,
    INGRESS,
    LINK,
    MAC_A,
    OTHER_LINK,
    SERVICE,
    UPLINK,
    Scene,
    answer,
)
from weft.bpf.layout import (
    Backend,
    BackendFlag,
    Direction,
    FlowFlag,
    FlowPath,
    Frontend,
    FrontendFlag,
    FrontendKey,
    PrefixFlag,
    RangeKey,
    Reason,
    Ring,
    RingKey,
    Slot,
    SlotKey,
    WorkloadFlag,
    pack_u32,
)

# The loopback's, which test runs take for the uplink: frames for it are this host's.
UPLINK_MAC = bytes(6)
BOTH = pytest.mark.parametrize("proto", [TCP, UDP], ids=["tcp", "udp"])


@pytest.fixture
def north(scene: Scene) -> Scene:
    """The VIP leads to this node; a is a pod here."""
    scene.pod(scene.at.a)
    scene.uplink()
    scene.local_range()
    scene.remote_range()
    return scene


def dialled(scene: Scene, proto: int, *, flags: int = SYN, dport: int = 80) -> Packet:
    one = (
        scene.tcp(scene.at.outside, scene.at.vip, flags=flags, dport=dport)
        if proto == TCP
        else scene.udp(scene.at.outside, scene.at.vip, dport=dport)
    )
    return replace(one, eth_src=HOST_MAC, eth_dst=UPLINK_MAC)


def arrive(scene: Scene, packet: Packet, ifindex: int = UPLINK) -> Outcome:
    return scene.node.run("from_uplink", packet.frame, ifindex=ifindex, received_on=ifindex)


def reply(scene: Scene, sent: Packet) -> Packet:
    """Of the pod a, to what it got."""
    got = replace(sent, dst=scene.at.a, dport=8080, eth_src=HOST_MAC, eth_dst=MAC_A)
    return replace(answer(got), eth_src=MAC_A)


@BOTH
def test_a_client_reaches_a_pod_here_with_its_own_address(north: Scene, proto: int) -> None:
    north.service(proto, north.at.a)
    sent = dialled(north, proto)
    outcome = arrive(north, sent)
    assert outcome.action is Action.REDIRECT
    assert outcome.counted == {(Reason.DELIVERED, Direction.FROM_UPLINK): 1}
    got = replace(sent, dst=north.at.a, dport=8080, eth_src=HOST_MAC, eth_dst=MAC_A)
    assert read(outcome.packet) == got
    flow = north.flow(got)
    assert (flow.path, flow.ifindex, flow.vip, flow.vip_port) == (
        FlowPath.UPLINK, UPLINK, north.at.vip, 80,
    )  # fmt: skip


@BOTH
def test_the_answer_leaves_from_the_vip_by_the_uplink(north: Scene, proto: int) -> None:
    north.service(proto, north.at.a)
    sent = dialled(north, proto)
    arrive(north, sent)
    replied = reply(north, sent)
    outcome = north.send(replied)
    assert outcome.action is Action.REDIRECT
    assert outcome.counted == {(Reason.ANSWERED, Direction.FROM_POD): 1}
    assert read(outcome.packet) == replace(replied, src=north.at.vip, sport=80)
    assert north.flow(replied).flags & FlowFlag.REPLIED
    outcome = north.node.run("to_uplink", outcome.packet, received_on=LINK)
    assert (outcome.action, outcome.reason) == (Action.NEXT, Reason.NOT_OURS)


def test_the_answer_follows_its_client_to_another_uplink(north: Scene) -> None:
    north.service(UDP, north.at.a)
    sent = dialled(north, UDP)
    arrive(north, sent)
    flow = north.flow(reply(north, sent))
    assert flow.ifindex == UPLINK
    key = next(iter(north.node.rows("flows")))
    north.node.put("flows", key, replace(flow, ifindex=OTHER_LINK))
    arrive(north, sent)
    assert north.flow(reply(north, sent)).ifindex == UPLINK


@BOTH
def test_a_connection_keeps_its_backend_and_its_way_back_when_the_service_goes(
    north: Scene, proto: int
) -> None:
    north.service(proto, north.at.a)
    sent = dialled(north, proto)
    arrive(north, sent)
    north.node.tables["frontends"].delete(list(north.node.rows("frontends")))
    outcome = arrive(north, replace(sent, flags=ACK if proto == TCP else 0))
    assert outcome.reason is Reason.DELIVERED
    assert read(outcome.packet).dst == north.at.a
    assert north.send(reply(north, sent)).reason is Reason.ANSWERED


def test_the_pods_ingress_judges_the_client(north: Scene) -> None:
    north.service(TCP, north.at.a)
    north.pod(north.at.a, ingress=(INGRESS, 1))
    assert arrive(north, dialled(north, TCP)).reason is Reason.POLICY_INGRESS
    assert not north.node.rows("translations")
    north.rule_set(INGRESS, {0xF: 1})
    north.peer(north.at.outside, 0xF)
    assert arrive(north, dialled(north, TCP)).reason is Reason.DELIVERED
    north.pod(north.at.a, ingress=(INGRESS + 1, 2))
    middle = arrive(north, dialled(north, TCP, flags=ACK))
    assert middle.reason is Reason.POLICY_INGRESS


def test_a_service_without_backend_refuses_a_client_at_once(north: Scene) -> None:
    north.service(TCP)
    outcome = arrive(north, dialled(north, TCP))
    assert (outcome.action, outcome.reason) == (Action.REDIRECT, Reason.NO_BACKEND)
    reset = read(outcome.packet)
    assert reset.checksums_hold
    assert (reset.src, reset.sport, reset.dst, reset.flags) == (
        north.at.vip, 80, north.at.outside, RST | ACK,
    )  # fmt: skip
    north.service(UDP)
    outcome = arrive(north, dialled(north, UDP))
    assert (outcome.action, outcome.reason) == (Action.REDIRECT, Reason.NO_BACKEND)
    refusal = read(outcome.packet)
    assert refusal.checksums_hold
    assert (refusal.src, refusal.dst) == (north.at.vip, north.at.outside)
    assert (refusal.sport, refusal.dport) == ((3, 3) if north.version == 4 else (1, 4))


@BOTH
def test_policy_local_gives_clients_outside_what_is_here(north: Scene, proto: int) -> None:
    north.service(proto, north.at.c)
    key = FrontendKey(north.at.vip, 80, proto)
    flags = FrontendFlag.EXTERNAL | FrontendFlag.LOCAL_OUTSIDE
    north.node.put("slots", SlotKey(SERVICE + 1, 0), Slot(1, north.at.a, 8080))
    north.node.put("frontends", key, Frontend(SERVICE, SERVICE + 1, 1, 1, 0, flags, 0))
    assert read(arrive(north, dialled(north, proto)).packet).dst == north.at.a
    flags |= FrontendFlag.ELSEWHERE
    north.node.put("frontends", key, Frontend(SERVICE, SERVICE + 1, 1, 0, 0, flags, 0))
    outcome = arrive(north, replace(dialled(north, proto), sport=4001))
    assert (outcome.action, outcome.reason) == (Action.DROP, Reason.NO_LOCAL_BACKEND)


def test_source_ranges_hold_for_clients_outside(north: Scene) -> None:
    north.service(TCP, north.at.a)
    flags = FrontendFlag.EXTERNAL | FrontendFlag.RANGES
    key = FrontendKey(north.at.vip, 80, TCP)
    north.node.put("frontends", key, Frontend(SERVICE, 0, 1, 0, 0, flags, 0))
    outcome = arrive(north, dialled(north, TCP))
    assert (outcome.action, outcome.reason) == (Action.DROP, Reason.SOURCE_RANGE)
    within = RangeKey(64 + 128, SERVICE, 0, north.at.outside)
    north.node.put("source_ranges", within, pack_u32(1))
    assert arrive(north, dialled(north, TCP)).reason is Reason.DELIVERED


def test_what_only_the_nodes_sockets_may_dial_is_none_of_ours(north: Scene) -> None:
    north.service(TCP, north.at.a)
    key = FrontendKey(north.at.vip, 80, TCP)
    north.node.put("frontends", key, Frontend(SERVICE, 0, 1, 0, 0, FrontendFlag.LOOPBACK, 0))
    assert arrive(north, dialled(north, TCP)).reason is Reason.NOT_OURS


def test_an_unserved_port_of_a_vip_refuses_and_of_the_node_is_the_nodes(north: Scene) -> None:
    north.service(TCP, north.at.a)
    assert arrive(north, dialled(north, TCP, dport=81)).reason is Reason.NO_BACKEND
    own = replace(dialled(north, TCP, dport=81), dst=north.at.uplink)
    outcome = arrive(north, own)
    assert (outcome.action, outcome.reason) == (Action.NEXT, Reason.NOT_OURS)


def test_a_service_ranges_address_without_service_is_dropped(north: Scene) -> None:
    north.prefix(north.at.services, PrefixFlag.SERVICE)
    outcome = arrive(north, dialled(north, TCP))
    assert (outcome.action, outcome.reason) == (Action.DROP, Reason.NO_SERVICE)


def test_the_middle_of_a_connection_that_nobody_remembers_is_reset(north: Scene) -> None:
    north.service(TCP, north.at.a)
    outcome = arrive(north, dialled(north, TCP, flags=ACK))
    assert (outcome.action, outcome.reason) == (Action.REDIRECT, Reason.NO_BACKEND)
    assert read(outcome.packet).flags == RST


@pytest.mark.parametrize("source", ["a", "b", "c", "uplink", "gateway"])
def test_nobody_outside_passes_for_a_pod_or_the_node(north: Scene, source: str) -> None:
    north.service(UDP, north.at.a)
    north.pod(north.at.a, ifindex=OTHER_LINK)
    forged = replace(dialled(north, UDP), src=getattr(north.at, source))
    north.settings(overlay_ifindex=OTHER_LINK + 1)
    outcome = arrive(north, forged)
    assert (outcome.action, outcome.reason) == (Action.DROP, Reason.SOURCE_SPOOFED)


def test_a_switchs_copy_for_another_host_is_not_translated(north: Scene) -> None:
    north.service(UDP, north.at.a)
    outcome = arrive(north, replace(dialled(north, UDP), eth_dst=MAC_A))
    assert (outcome.action, outcome.reason) == (Action.NEXT, Reason.NOT_OURS)


def test_a_clients_error_about_an_answer_reaches_the_backend(north: Scene) -> None:
    north.service(UDP, north.at.a)
    sent = dialled(north, UDP)
    arrive(north, sent)
    left = read(north.send(reply(north, sent)).packet)
    error = unreachable(north.at.outside, north.at.vip, left.network)
    error = replace(error, eth_src=HOST_MAC, eth_dst=UPLINK_MAC)
    outcome = arrive(north, error)
    assert outcome.reason is Reason.DELIVERED
    got = read(outcome.packet)
    assert (got.src, got.dst, got.checksums_hold) == (north.at.outside, north.at.a, True)
    about = north.embedded(got)
    assert (about.src, about.sport, about.dst) == (north.at.a, 8080, north.at.outside)
    assert embedded_header_holds(got)


def test_a_backends_error_comes_from_the_vip(north: Scene) -> None:
    north.service(UDP, north.at.a)
    got = read(arrive(north, dialled(north, UDP)).packet)
    error = replace(
        unreachable(north.at.a, north.at.outside, got.network), eth_src=MAC_A, eth_dst=HOST_MAC
    )
    outcome = north.send(error)
    assert outcome.reason is Reason.ANSWERED
    left = read(outcome.packet)
    assert (left.src, left.dst, left.checksums_hold) == (north.at.vip, north.at.outside, True)
    about = north.embedded(left)
    assert (about.dst, about.dport) == (north.at.vip, 80)
    outcome = north.node.run("to_uplink", outcome.packet, received_on=LINK)
    assert (outcome.action, outcome.reason) == (Action.NEXT, Reason.NOT_OURS)


def test_fragments_of_a_client_go_with_their_first(north: Scene) -> None:
    north.service(UDP, north.at.a)
    first = replace(dialled(north, UDP), ident=9, more=True)
    later = replace(first, data=b"the rest", offset=1400 // 8 * 8, more=False)
    assert arrive(north, later).reason is Reason.NOT_OURS
    assert arrive(north, first).reason is Reason.DELIVERED
    outcome = arrive(north, later)
    assert outcome.reason is Reason.DELIVERED
    assert read(outcome.packet).dst == north.at.a


def test_a_pod_that_must_not_be_redirected_takes_the_stack_both_ways(north: Scene) -> None:
    north.service(UDP, north.at.a)
    north.pod(north.at.a, flags=WorkloadFlag.NO_REDIRECT)
    sent = dialled(north, UDP)
    outcome = arrive(north, sent)
    assert (outcome.action, outcome.reason) == (Action.NEXT, Reason.STACK)
    assert read(outcome.packet).dst == north.at.a
    replied = reply(north, sent)
    outcome = north.send(replied)
    assert (outcome.reason, outcome.packet) == (Reason.STACK, replied.frame)
    outcome = north.node.run("to_uplink", replied.frame, received_on=LINK)
    assert outcome.counted == {(Reason.ANSWERED, Direction.TO_UPLINK): 1}
    left = read(outcome.packet)
    assert (left.src, left.sport, left.checksums_hold) == (north.at.vip, 80, True)


def test_a_client_outside_keeps_its_backend_by_affinity(north: Scene) -> None:
    north.two_pods()
    north.service(UDP, north.at.a, north.at.b)
    key = FrontendKey(north.at.vip, 80, UDP)
    north.node.put("frontends", key, Frontend(SERVICE, 0, 2, 0, 60, 0, 0))
    for backend in (1, 2):
        north.node.put("backends", backend, Backend(SERVICE, BackendFlag.CHOSEN))
    sent = [replace(dialled(north, UDP), sport=port) for port in range(5000, 5020)]
    assert len({read(arrive(north, one).packet).dst for one in sent}) == 1


def ringed(scene: Scene, *backends: Address, proto: int = TCP, affinity_s: int = 0) -> None:
    """The VIP has a ring whose places alternate between the backends."""
    scene.service(proto, *backends)
    key = FrontendKey(scene.at.vip, 80, proto)
    flags = FrontendFlag.EXTERNAL
    size = 251 if len(backends) > 1 else 1
    scene.node.put(
        "frontends", key, Frontend(SERVICE, 0, len(backends), 0, affinity_s, flags, size)
    )
    for chunk in range(size // 64 + 1 if size > 1 else 0):
        row = Ring(tuple(place % len(backends) for place in range(64)))
        scene.node.put("rings", RingKey(SERVICE, chunk), row)


@BOTH
def test_a_client_that_outlived_its_affinity_is_not_bound_by_the_ring(
    north: Scene, proto: int
) -> None:
    north.two_pods()
    ringed(north, north.at.a, north.at.b, proto=proto, affinity_s=60)
    for backend in (1, 2):
        north.node.put("backends", backend, Backend(SERVICE, BackendFlag.CHOSEN_OUTSIDE))
    sent = [replace(dialled(north, proto), sport=port) for port in range(5000, 5040)]
    assert len({read(arrive(north, one).packet).dst for one in sent}) == 1
    reached = set()
    for one in sent:
        north.age("affinities", 62)
        reached.add(read(arrive(north, replace(one, sport=one.sport + 1000)).packet).dst)
    assert reached == {north.at.a, north.at.b}


@BOTH
def test_a_ring_gives_a_client_the_same_backend_on_any_node(north: Scene, proto: int) -> None:
    north.two_pods()
    ringed(north, north.at.a, north.at.b, proto=proto)
    sent = [replace(dialled(north, proto), sport=port) for port in range(5000, 5040)]
    first = [read(arrive(north, one).packet).dst for one in sent]
    assert set(first) == {north.at.a, north.at.b}
    for table in ("translations", "flows"):
        north.node.tables[table].delete(list(north.node.rows(table)))
    assert [read(arrive(north, one).packet).dst for one in sent] == first


@pytest.mark.parametrize("count", [1, 2])
def test_the_middle_of_a_connection_is_taken_over_by_the_ring(north: Scene, count: int) -> None:
    north.two_pods()
    ringed(north, *[north.at.a, north.at.b][:count])
    first = read(arrive(north, dialled(north, TCP)).packet).dst
    for table in ("translations", "flows"):
        north.node.tables[table].delete(list(north.node.rows(table)))
    outcome = arrive(north, dialled(north, TCP, flags=ACK))
    assert outcome.reason is Reason.DELIVERED
    assert read(outcome.packet).dst == first
    assert len(north.node.rows("flows")) == 1
