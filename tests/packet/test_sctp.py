"""SCTP to a Service: programs say who may and let it by as it is; what netfilter made of it is
judged where it is handed on."""

from dataclasses import replace
from ipaddress import ip_network

import pytest

from tests.packet.packets import Address, Packet, read
from tests.packet.runner import Action, Outcome
from tests.packet.scene import (
    EGRESS,
    HOST_MAC,
    INGRESS,
    LINK,
    MAC_A,
    MAC_B,
    OTHER_LINK,
    SERVICE,
    UPLINK,
    Port,
    Scene,
)
from weft.bpf.layout import (
    Direction,
    Flow,
    FlowPath,
    Frontend,
    FrontendFlag,
    FrontendKey,
    Mark,
    PrefixFlag,
    Reason,
    Slot,
    SlotKey,
)

SCTP, INIT, DATA = 132, 1, 0
CLIENT_PORT, PORT, TARGET = 40_000, 80, 8080
SOME_LINK = 5
UPLINK_MAC = bytes(6)


def sctp(
    scene: Scene, src: Address, dst: Address, *, chunk: int = INIT, sport: int = CLIENT_PORT,
    dport: int = PORT,
) -> Packet:  # fmt: skip
    """A packet of one chunk; nobody here looks at its checksum."""
    common = sport.to_bytes(2, "big") + dport.to_bytes(2, "big") + bytes(8)
    data = common + bytes((chunk, 0, 0, 20)) + bytes(16)
    return replace(scene.udp(src, dst), proto=SCTP, sport=0, dport=0, data=data)


def back(scene: Scene, src: Address, dst: Address, *, sport: int = TARGET) -> Packet:
    return sctp(scene, src, dst, sport=sport, dport=CLIENT_PORT, chunk=DATA)


def serve(scene: Scene, *, backends: int = 1, own: int = 0, **row: int) -> None:
    """The VIP's port for SCTP; own: so many of the first slots are the node's own endpoints."""
    flags = FrontendFlag.STACK | row.pop("flags", 0)
    frontend = replace(Frontend(SERVICE, 0, backends, 0, 0, flags, own), **row)
    scene.node.put("frontends", FrontendKey(scene.at.vip, PORT, SCTP), frontend)
    scene.node.put(
        "frontends", FrontendKey(scene.at.vip, 0, 0), Frontend(SERVICE, 0, 0, 0, 0, 0, 0)
    )


def delivered(scene: Scene, packet: Packet, *, came_by: int = LINK, mark: int = 0) -> Outcome:
    frame = replace(packet, eth_src=HOST_MAC, eth_dst=MAC_A).frame
    return scene.node.run("to_pod", frame, received_on=came_by, mark=mark)


def only_flow(scene: Scene) -> Flow:
    (row,) = scene.node.rows("flows").values()
    return Flow.unpack(row)


def arrive(scene: Scene, packet: Packet) -> Outcome:
    """By the uplink."""
    frame = replace(packet, eth_src=HOST_MAC, eth_dst=UPLINK_MAC).frame
    return scene.node.run("from_uplink", frame, ifindex=UPLINK, received_on=UPLINK)


@pytest.fixture
def dialling(scene: Scene) -> Scene:
    """The pod a may dial the VIP; b is another pod of the node."""
    scene.two_pods()
    serve(scene)
    return scene


def test_a_pods_goes_to_the_stack_as_it_is(dialling: Scene) -> None:
    sent = sctp(dialling, dialling.at.a, dialling.at.vip)
    outcome = dialling.send(sent)
    assert (outcome.action, outcome.reason) == (Action.NEXT, Reason.STACK)
    assert outcome.packet == sent.frame
    flow = only_flow(dialling)
    assert (flow.path, flow.vip) == (FlowPath.NAT, dialling.at.vip)


def test_the_answer_from_the_vip_reaches_an_isolated_pod_that_dialled_it(scene: Scene) -> None:
    scene.rule_set(INGRESS, {})
    scene.pod(scene.at.a, ingress=(INGRESS, 1))
    serve(scene)
    answer = back(scene, scene.at.vip, scene.at.a, sport=PORT)
    assert delivered(scene, answer).reason is Reason.POLICY_INGRESS
    scene.send(sctp(scene, scene.at.a, scene.at.vip))
    assert delivered(scene, answer).reason is Reason.STACK
    other = back(scene, scene.at.vip, scene.at.a, sport=PORT + 1)
    assert delivered(scene, other).reason is Reason.POLICY_INGRESS


@pytest.mark.parametrize("direction", ["egress", "ingress"])
def test_who_delivers_judges_both_ends_at_every_revision(scene: Scene, direction: str) -> None:
    number, peer = (EGRESS, scene.at.a) if direction == "egress" else (INGRESS, scene.at.b)
    scene.peer(peer, 7)
    scene.rule_set(number, {7: 1})
    scene.two_pods()

    def judge(revision: int) -> None:
        who, mac = (scene.at.b, MAC_B) if direction == "egress" else (scene.at.a, MAC_A)
        scene.pod(who, mac=mac, **{direction: (number, revision)})  # type: ignore[arg-type]

    judge(1)
    forward = sctp(scene, scene.at.b, scene.at.a, dport=TARGET)
    assert delivered(scene, forward).reason is Reason.STACK
    assert only_flow(scene).path == FlowPath.NAT
    scene.rule_set(number, {7: 0})
    judge(2)
    wanted = Reason.POLICY_EGRESS if direction == "egress" else Reason.POLICY_INGRESS
    assert delivered(scene, forward).reason is wanted


def test_an_answer_that_netfilter_left_as_it_was_is_kept_from_its_client(scene: Scene) -> None:
    scene.two_pods()
    delivered(scene, sctp(scene, scene.at.b, scene.at.a, dport=TARGET))
    answer = back(scene, scene.at.a, scene.at.b)
    assert scene.send(answer).reason is Reason.STACK
    outcome = delivered(scene, answer)
    assert (outcome.action, outcome.reason) == (Action.DROP, Reason.UNTRANSLATED)


def test_a_hairpin_bears_netfilters_mark_and_is_never_judged(scene: Scene) -> None:
    scene.local_range()
    scene.rule_set(INGRESS, {})
    scene.pod(scene.at.a, ingress=(INGRESS, 1))
    masked = sctp(scene, scene.at.gateway, scene.at.a, dport=TARGET)
    assert delivered(scene, masked, came_by=SOME_LINK).reason is Reason.SOURCE_SPOOFED
    outcome = delivered(scene, masked, came_by=SOME_LINK, mark=Mark.HAIRPIN)
    assert (outcome.reason, outcome.mark) == (Reason.STACK, 0)
    assert scene.send(back(scene, scene.at.a, scene.at.gateway)).reason is Reason.STACK


def test_without_endpoint_it_is_refused_and_from_without_its_ranges_dropped(scene: Scene) -> None:
    scene.pod(scene.at.a)
    sent = sctp(scene, scene.at.a, scene.at.vip)
    serve(scene, backends=0)
    outcome = scene.send(sent)
    assert (outcome.action, outcome.reason) == (Action.REDIRECT, Reason.NO_BACKEND)
    serve(scene, backends=0, flags=FrontendFlag.ELSEWHERE)
    assert scene.send(sent).reason is Reason.NO_LOCAL_BACKEND
    serve(scene, flags=FrontendFlag.RANGES)
    assert scene.send(sent).reason is Reason.SOURCE_RANGE


def test_an_association_outlives_its_service(dialling: Scene) -> None:
    dialling.send(sctp(dialling, dialling.at.a, dialling.at.vip))
    later = sctp(dialling, dialling.at.a, dialling.at.vip, chunk=DATA)
    serve(dialling, backends=0)
    assert dialling.send(later).reason is Reason.STACK
    dialling.node.tables["frontends"].delete(list(dialling.node.rows("frontends")))
    assert dialling.send(later).reason is Reason.STACK


def test_what_goes_to_the_nodes_own_endpoints_is_judged_where_it_leaves_the_pod(
    scene: Scene,
) -> None:
    allowed, denied = scene.at.peer_node, scene.at.uplink
    scene.peer(allowed, 7)
    scene.rule_set(EGRESS, {7: 0b10}, [Port(1, SCTP, TARGET)])
    scene.pod(scene.at.a, egress=(EGRESS, 1))
    serve(scene, backends=3, own=1)
    sent = sctp(scene, scene.at.a, scene.at.vip)
    scene.node.put("slots", SlotKey(SERVICE, 0), Slot(1, allowed, TARGET))
    scene.node.put("slots", SlotKey(SERVICE, 1), Slot(2, denied, TARGET))
    assert scene.send(sent).reason is Reason.STACK
    serve(scene, backends=3, own=2)
    assert scene.send(sent).reason is Reason.POLICY_EGRESS
    scene.node.put("slots", SlotKey(SERVICE, 1), Slot(2, allowed, TARGET + 1))
    assert scene.send(sent).reason is Reason.POLICY_EGRESS
    serve(scene, backends=30, own=9)
    assert scene.send(sent).reason is Reason.POLICY_EGRESS


@pytest.mark.parametrize("hook", ["to_overlay", "to_uplink"])
def test_who_hands_it_on_to_another_node_judges_its_sender(scene: Scene, hook: str) -> None:
    scene.uplink()
    scene.remote_range() if hook == "to_overlay" else scene.direct_range()
    scene.rule_set(EGRESS, {})
    scene.pod(scene.at.a, egress=(EGRESS, 1))
    sent = sctp(scene, scene.at.a, scene.at.c, dport=TARGET)
    outcome = scene.node.run(hook, sent.frame, received_on=LINK)
    assert (outcome.action, outcome.reason) == (Action.DROP, Reason.POLICY_EGRESS)
    scene.pod(scene.at.a, egress=(0, 2))
    outcome = scene.node.run(hook, sent.frame, received_on=LINK)
    assert outcome.action is Action.NEXT
    assert only_flow(scene).path == FlowPath.NAT


def test_the_answer_of_another_nodes_pod_goes_to_netfilter_first(scene: Scene) -> None:
    scene.remote_range()
    scene.pod(scene.at.a)
    scene.node.run("to_overlay", sctp(scene, scene.at.a, scene.at.c, dport=TARGET).frame,
                   received_on=LINK)  # fmt: skip
    scene.direct_range()
    outcome = arrive(scene, back(scene, scene.at.c, scene.at.a))
    assert (outcome.action, outcome.reason) == (Action.NEXT, Reason.STACK)


def test_what_is_for_a_vip_still_does_not_leave_the_node(scene: Scene) -> None:
    scene.uplink()
    serve(scene)
    for source in (scene.at.a, scene.at.uplink, scene.at.outside):
        sent = sctp(scene, source, scene.at.vip)
        outcome = scene.node.run("to_uplink", sent.frame)
        assert (outcome.action, outcome.reason) == (Action.DROP, Reason.UNTRANSLATED)


@pytest.mark.parametrize("backends", [1, 0])
def test_a_client_outside_is_let_by_or_refused(scene: Scene, backends: int) -> None:
    scene.uplink()
    serve(scene, backends=backends)
    sent = sctp(scene, scene.at.outside, scene.at.vip)
    outcome = arrive(scene, sent)
    wanted = (Reason.STACK, Action.NEXT) if backends else (Reason.NO_BACKEND, Action.REDIRECT)
    assert (outcome.reason, outcome.action) == wanted
    assert outcome.counted == {(wanted[0], Direction.FROM_UPLINK): 1}


def test_no_client_outside_passes_for_a_pod(scene: Scene) -> None:
    """Netfilter may give it another source, which nobody could tell from a pod's then."""
    scene.settings(overlay_ifindex=OTHER_LINK)
    scene.uplink()
    scene.local_range()
    scene.remote_range()
    serve(scene)
    for forged in (scene.at.a, scene.at.c, scene.at.gateway):
        sent = sctp(scene, forged, scene.at.vip)
        outcome = arrive(scene, sent)
        assert (outcome.action, outcome.reason) == (Action.DROP, Reason.SOURCE_SPOOFED)


def test_a_node_that_is_a_client_is_masked_on_its_way_to_another_nodes_pod(scene: Scene) -> None:
    scene.remote_range()
    scene.prefix(ip_network(scene.at.peer_node), PrefixFlag.NODE)
    sent = sctp(scene, scene.at.peer_node, scene.at.c, dport=TARGET)
    outcome = scene.node.run("to_overlay", sent.frame, received_on=SOME_LINK)
    assert outcome.reason is Reason.TUNNELLED
    assert read(outcome.packet).src == scene.at.gateway
