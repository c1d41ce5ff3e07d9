"""What a frontend's flags make of a client: local endpoints, source ranges, affinity, silence."""

from collections.abc import Sequence
from dataclasses import replace
from ipaddress import ip_network

import pytest

from tests.packet.packets import TCP, UDP, Packet, read
from tests.packet.scene import SERVICE, Scene
from weft.bpf.layout import (
    Backend,
    BackendFlag,
    Frontend,
    FrontendFlag,
    FrontendKey,
    Reason,
    Slot,
    SlotKey,
    pack_u64,
)
from weft.proxy.model.objects import Address
from weft.proxy.plan.services import range_key

LOCAL = SERVICE + 1
BOTH = BackendFlag.CHOSEN | BackendFlag.CHOSEN_LOCAL


def serve(
    scene: Scene,
    proto: int,
    cluster: Sequence[Address],
    local: Sequence[Address] = (),
    flags: int = 0,
    affinity_s: int = 0,
) -> None:
    """The VIP's port 80 with both sets; backend ids are 1, 2, ... in the order of `cluster`."""
    for service, chosen in ((SERVICE, cluster), (LOCAL, local)):
        for index, address in enumerate(chosen):
            slot = Slot(cluster.index(address) + 1, address, 8080)
            scene.node.put("slots", SlotKey(service, index), slot)
    for number, address in enumerate(cluster):
        chosen_flags = BOTH if address in local else BackendFlag.CHOSEN
        scene.node.put("backends", number + 1, Backend(SERVICE, chosen_flags))
    row = Frontend(SERVICE, LOCAL, len(cluster), len(local), affinity_s, flags, 0)
    scene.node.put("frontends", FrontendKey(scene.at.vip, 80, proto), row)


def to_vip(scene: Scene, proto: int, sport: int = 2000) -> Packet:
    make = scene.tcp if proto == TCP else scene.udp
    return replace(make(scene.at.a, scene.at.vip), sport=sport)


def reached(scene: Scene, proto: int, sports: Sequence[int] = range(2000, 2020)) -> set[object]:
    """Where new flows of pod a go."""
    return {read(scene.send(to_vip(scene, proto, sport)).packet).dst for sport in sports}


@pytest.fixture
def pods(scene: Scene) -> Scene:
    scene.two_pods()
    scene.remote_range()
    return scene


@pytest.mark.parametrize("proto", [TCP, UDP])
def test_policy_local_inside_gives_pods_only_this_nodes_endpoints(pods: Scene, proto: int) -> None:
    both = (pods.at.b, pods.at.c)
    serve(pods, proto, both, (pods.at.b,), FrontendFlag.LOCAL_INSIDE)
    assert reached(pods, proto) == {pods.at.b}


@pytest.mark.parametrize("proto", [TCP, UDP])
def test_policy_local_outside_gives_pods_all_endpoints(pods: Scene, proto: int) -> None:
    flags = FrontendFlag.EXTERNAL | FrontendFlag.LOCAL_OUTSIDE | FrontendFlag.ELSEWHERE
    serve(pods, proto, (pods.at.b, pods.at.c), (), flags)
    assert reached(pods, proto) == {pods.at.b, pods.at.c}


@pytest.mark.parametrize("proto", [TCP, UDP])
def test_where_endpoints_are_elsewhere_only_policy_local_drops_in_silence(
    pods: Scene, proto: int
) -> None:
    serve(pods, proto, (pods.at.c,), (), FrontendFlag.LOCAL_INSIDE | FrontendFlag.ELSEWHERE)
    outcome = pods.send(to_vip(pods, proto))
    assert outcome.reason is Reason.NO_LOCAL_BACKEND
    assert read(outcome.packet) == to_vip(pods, proto), "no answer was made of it"


@pytest.mark.parametrize("proto", [TCP, UDP])
def test_where_no_endpoint_is_anywhere_policy_local_refuses(pods: Scene, proto: int) -> None:
    serve(pods, proto, (), (), FrontendFlag.LOCAL_INSIDE)
    assert pods.send(to_vip(pods, proto)).reason is Reason.NO_BACKEND


@pytest.mark.parametrize("proto", [TCP, UDP])
def test_a_pod_outside_of_the_source_ranges_is_dropped(pods: Scene, proto: int) -> None:
    serve(pods, proto, (pods.at.b,), (), FrontendFlag.EXTERNAL | FrontendFlag.RANGES)
    bits = pods.at.a.max_prefixlen
    pods.node.tables["source_ranges"].update(
        {range_key(SERVICE, ip_network(f"{pods.at.b}/{bits}")): b"\1\0\0\0",
         range_key(SERVICE + 1, ip_network(f"{pods.at.a}/{bits}")): b"\1\0\0\0"}
    )  # fmt: skip
    assert pods.send(to_vip(pods, proto)).reason is Reason.SOURCE_RANGE
    around = ip_network(f"{pods.at.a}/{bits - 8}", strict=False)
    pods.node.tables["source_ranges"].update({range_key(SERVICE, around): b"\1\0\0\0"})
    assert pods.send(to_vip(pods, proto)).reason is Reason.DELIVERED


def test_a_node_port_of_the_loopback_is_not_pods_to_dial(pods: Scene) -> None:
    flags = FrontendFlag.EXTERNAL | FrontendFlag.NODE_PORT | FrontendFlag.LOOPBACK
    serve(pods, UDP, (pods.at.b,), (), flags)
    assert pods.send(to_vip(pods, UDP)).reason is Reason.STACK


# --- Affinity -----------------------------------------------------------------------------------
@pytest.mark.parametrize("proto", [TCP, UDP])
def test_a_client_gets_its_backend_again_by_every_port(pods: Scene, proto: int) -> None:
    serve(pods, proto, (pods.at.b, pods.at.c), affinity_s=60)
    assert len(reached(pods, proto, range(2000, 2040))) == 1


@pytest.mark.parametrize("proto", [TCP, UDP])
def test_affinity_ends_when_the_client_was_idle_for_its_time(pods: Scene, proto: int) -> None:
    serve(pods, proto, (pods.at.b, pods.at.c), affinity_s=60)
    first = reached(pods, proto, [2000])
    pods.age("affinities", 58)
    assert reached(pods, proto, [2001]) == first
    pods.age("affinities", 58)
    assert reached(pods, proto, [2002]) == first, "each new connection counts anew"
    seen = set()
    for sport in range(3000, 3040):
        pods.age("affinities", 62)
        seen |= reached(pods, proto, [sport])
    assert seen == {pods.at.b, pods.at.c}


def test_packets_of_one_connection_do_not_prolong_affinity(pods: Scene) -> None:
    serve(pods, UDP, (pods.at.b, pods.at.c), affinity_s=60)
    pods.send(to_vip(pods, UDP))
    pods.age("affinities", 30)
    before = dict(pods.node.tables["affinities"].items())
    pods.send(to_vip(pods, UDP))
    assert dict(pods.node.tables["affinities"].items()) == before


@pytest.mark.parametrize("flags", [0, BackendFlag.CHOSEN_LOCAL])
def test_a_client_leaves_a_backend_that_new_flows_no_longer_go_to(pods: Scene, flags: int) -> None:
    serve(pods, TCP, (pods.at.b,), affinity_s=60)
    assert reached(pods, TCP, [2000]) == {pods.at.b}
    serve(pods, TCP, (pods.at.c,), affinity_s=60)
    pods.node.put("backends", 1, Backend(SERVICE, flags))
    pods.node.put("backends", 2, Backend(SERVICE, BackendFlag.CHOSEN))
    pods.node.put("slots", SlotKey(SERVICE, 0), Slot(2, pods.at.c, 8080))
    assert reached(pods, TCP, [2001]) == {pods.at.c}
    pods.node.put("backends", 1, Backend(SERVICE, BackendFlag.CHOSEN))
    assert reached(pods, TCP, [2002]) == {pods.at.c}, "the new choice is the one that counts"


def test_policy_local_does_not_follow_affinity_to_another_node(pods: Scene) -> None:
    serve(pods, TCP, (pods.at.c,), affinity_s=60)
    assert reached(pods, TCP, [2000]) == {pods.at.c}
    serve(pods, TCP, (pods.at.c, pods.at.b), (pods.at.b,), FrontendFlag.LOCAL_INSIDE, 60)
    assert reached(pods, TCP, [2001]) == {pods.at.b}


def test_what_policy_denies_makes_no_affinity(pods: Scene) -> None:
    pods.pod(pods.at.a, egress=(5, 1))
    serve(pods, TCP, (pods.at.b,), affinity_s=60)
    assert pods.send(to_vip(pods, TCP)).reason is Reason.POLICY_EGRESS
    assert not list(pods.node.tables["affinities"].items())


def test_affinity_is_a_clients_own(pods: Scene) -> None:
    serve(pods, TCP, (pods.at.c,), affinity_s=60)
    pods.send(to_vip(pods, TCP))
    (key,) = (key for key, _ in pods.node.tables["affinities"].items())
    assert key.startswith(pack_u64(SERVICE))
    assert pods.at.a.packed in key
