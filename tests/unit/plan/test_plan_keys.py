"""A change names only what it can alter: nothing is planned again for news that do not matter."""

from collections.abc import Hashable
from dataclasses import replace
from ipaddress import ip_address, ip_network
from typing import Any

from tests.unit.plan.law import change
from weft.proxy.model.objects import (
    EndpointSlice,
    Kind,
    Link,
    Need,
    Node,
    Pod,
    Protocol,
    Ref,
    Service,
    ServiceCIDR,
    ServicePort,
    Shaping,
    SliceEndpoint,
    Workload,
)
from weft.proxy.model.world import Key, Record, Settings, World
from weft.proxy.plan import PLANNERS

OF = Settings("n1", never_masquerade=(ip_network("10.244.2.0/26"), ip_network("172.16.0.0/12")))
WEB, API, FAR = Ref("shop", "web"), Ref("shop", "api"), Ref("shop", "far")
VIP = ip_address("10.96.0.1")


def named(world: World, kind: Kind, key: Key, after: Record | None) -> dict[str, set[Hashable]]:
    """The keys that a change names, by planner; planners that it does not concern are left out."""
    step = change(world, kind, key, after)
    keys = {p.name: set(p.keys(step, world, world.with_change(step))) for p in PLANNERS}
    return {name: found for name, found in keys.items() if found}


def world_of(*records: tuple[Kind, Key, Record]) -> World:
    world = World(OF)
    for kind, key, record in records:
        world = world.with_change(change(world, kind, key, record))
    return world


def service(ref: Ref) -> Service:
    return Service(ref, "ClusterIP", (VIP,), (ServicePort("", Protocol.TCP, 80),))


def node(name: str, address: str, cidr: str) -> Node:
    return Node(Ref("", name), (ip_address(address),), (ip_network(cidr),))


def test_a_slice_concerns_its_service_only() -> None:
    piece = EndpointSlice(Ref("shop", "web-1"), "web", (), ())
    assert named(World(OF), Kind.SLICE, piece.ref, piece) == {"services": {WEB}}


def test_a_slice_that_moves_concerns_both_services() -> None:
    ref = Ref("shop", "web-1")
    world = world_of((Kind.SLICE, ref, EndpointSlice(ref, "web", (), ())))
    moved = EndpointSlice(ref, "api", (), ())
    assert named(world, Kind.SLICE, ref, moved) == {"services": {WEB, API}}


def test_a_service_concerns_itself_and_its_rivals_for_an_address() -> None:
    world = world_of((Kind.SERVICE, WEB, service(WEB)))
    assert named(world, Kind.SERVICE, WEB, service(WEB)) == {"services": {WEB}}
    assert named(world, Kind.SERVICE, API, service(API)) == {"services": {WEB, API}}


def exposed(ref: Ref, vip: str, **more: Any) -> Service:
    return replace(service(ref), cluster_ips=(ip_address(vip),), **more)


def test_a_node_port_concerns_who_wants_the_same_one() -> None:
    port = ServicePort("", Protocol.TCP, 80, 30080)
    api = exposed(API, "10.96.0.2", ports=(port,))
    world = world_of((Kind.SERVICE, WEB, service(WEB)), (Kind.SERVICE, API, api))
    same = exposed(WEB, "10.96.0.1", ports=(port,))
    assert named(world, Kind.SERVICE, WEB, same) == {"services": {WEB, API}}
    other = replace(same, ports=(replace(port, node_port=30081),))
    assert named(world, Kind.SERVICE, WEB, other) == {"services": {WEB}}


def test_a_cluster_ip_concerns_who_claims_it_as_an_external_one() -> None:
    api = exposed(API, "10.96.0.2", external_ips=(VIP,))
    world = world_of((Kind.SERVICE, API, api))
    assert named(world, Kind.SERVICE, WEB, service(WEB)) == {"services": {WEB, API}}


def test_the_api_servers_endpoints_concern_who_claims_their_addresses() -> None:
    claimed = ip_address("192.0.2.9")
    api = exposed(API, "10.96.0.2", external_ips=(claimed,))
    world = world_of((Kind.SERVICE, API, api), (Kind.SERVICE, WEB, service(WEB)))
    server = SliceEndpoint(claimed, True, True, False, "", None)
    piece = EndpointSlice(Ref("default", "kubernetes"), "kubernetes", (), (server,))
    concerned = named(world, Kind.SLICE, piece.ref, piece)
    assert concerned["services"] == {API, Ref("default", "kubernetes")}


def test_the_own_zone_concerns_every_service_and_another_nodes_none() -> None:
    own, other = (node(name, f"192.0.2.{n}", f"10.244.{n}.0/24")
                  for n, name in ((1, "n1"), (2, "n2")))  # fmt: skip
    world = world_of(
        (Kind.NODE, own.ref, own),
        (Kind.NODE, other.ref, other),
        (Kind.SERVICE, WEB, service(WEB)),
        (Kind.SERVICE, API, exposed(API, "10.96.0.2")),
    )
    zone = {"topology.kubernetes.io/zone": "z1"}
    assert named(world, Kind.NODE, own.ref, replace(own, labels=zone))["services"] == {WEB, API}
    assert "services" not in named(world, Kind.NODE, other.ref, replace(other, labels=zone))
    assert "services" not in named(world, Kind.NODE, own.ref, replace(own, labels={"a": "b"}))


def test_a_node_concerns_who_claims_an_address_of_it_or_of_its_pods() -> None:
    world = world_of(
        (Kind.SERVICE, WEB, exposed(WEB, "10.96.0.1", external_ips=(ip_address("192.0.2.2"),))),
        (Kind.SERVICE, API, exposed(API, "10.96.0.2", external_ips=(ip_address("10.244.2.9"),))),
        (Kind.SERVICE, FAR, exposed(FAR, "10.96.0.3", external_ips=(ip_address("203.0.113.1"),))),
    )
    other = node("n2", "192.0.2.2", "10.244.2.0/24")
    assert named(world, Kind.NODE, other.ref, other)["services"] == {WEB, API}


def test_an_address_of_the_node_concerns_node_ports_only_where_they_are_there() -> None:
    port = ServicePort("", Protocol.TCP, 80, 30080)
    records = (
        (Kind.SERVICE, WEB, exposed(WEB, "10.96.0.1", ports=(port,))),
        (Kind.SERVICE, API, exposed(API, "10.96.0.2")),
    )
    link = Link("eth0", 2, 1500, (ip_address("192.0.2.1"),))
    assert "services" not in named(world_of(*records), Kind.LINK, "eth0", link)
    world = World(replace(OF, node_port_addresses=(ip_network("192.0.2.0/24"),)))
    for kind, key, record in records:
        world = world.with_change(change(world, kind, key, record))
    assert named(world, Kind.LINK, "eth0", link)["services"] == {WEB}
    away = replace(link, addresses=(ip_address("198.51.100.1"),))
    assert "services" not in named(world, Kind.LINK, "eth0", away)


def test_a_range_of_services_concerns_itself_and_what_is_inside() -> None:
    ranges = ServiceCIDR(Ref("", "kubernetes"), (ip_network("172.0.0.0/10"),))
    concerned = named(World(OF), Kind.SERVICE_CIDR, ranges.ref, ranges)
    assert concerned == {"nodes": {ip_network("172.0.0.0/10"), ip_network("172.16.0.0/12")}}


def test_a_pod_that_no_policy_concerns_is_no_news_to_services_or_the_network() -> None:
    pod = Pod(WEB, "uid", "n2", {}, (ip_address("10.244.2.5"),), False, False)
    concerned = named(World(OF), Kind.POD, WEB, pod)
    assert not concerned.keys() & {"services", "nodes", "links", "routes", "hooks", "settings"}
    assert "workloads" not in concerned


def test_what_a_local_pod_needs_concerns_its_links_rows() -> None:
    link = Workload("weft1", WEB, "uid", (ip_address("10.244.1.5"),), 7, bytes(6), bytes(6))
    pod = Pod(WEB, "uid", "n1", {}, (ip_address("10.244.1.5"),), False, False)
    world = world_of((Kind.ATTACHMENT, "weft1", link), (Kind.POD, WEB, pod))
    shaped = replace(pod, needs=(Need.SHAPED,))
    concerned = named(world, Kind.POD, WEB, shaped)
    assert concerned["workloads"] == concerned["sandboxes"] == {"weft1"}
    assert concerned["hooks"] == {("workload", "weft1")}
    concerned = named(world, Kind.SHAPING, "weft1", Shaping("weft1", ("tbf",)))
    assert concerned["workloads"] == {"weft1"}
    assert concerned["hooks"] == {("workload", "weft1")}


def test_another_node_concerns_its_own_prefixes_and_those_inside_them() -> None:
    own = node("n1", "192.0.2.1", "10.244.1.0/24")
    other = node("n2", "192.0.2.2", "10.244.2.0/24")
    concerned = named(world_of((Kind.NODE, own.ref, own)), Kind.NODE, other.ref, other)
    cidr, inside = ip_network("10.244.2.0/24"), ip_network("10.244.2.0/26")
    assert concerned["nodes"] == {cidr, inside, ip_network("192.0.2.2/32")}
    assert concerned["routes"] == {cidr}
    assert concerned["links"] == {"weft.vx"}, "its tunnel may take more of each packet"
    assert not concerned.keys() & {"settings", "uplinks", "hooks", "services"}


def test_a_pods_link_concerns_its_row_and_its_hooks() -> None:
    link = Workload("weft1", WEB, "uid", (ip_address("10.244.1.5"),), 7, bytes(6), bytes(6))
    concerned = named(World(OF), Kind.ATTACHMENT, "weft1", link)
    assert concerned["workloads"] == {"weft1"}
    assert concerned["hooks"] == {("workload", "weft1")}
    assert not concerned.keys() & {"services", "nodes", "settings", "uplinks", "links", "routes"}


def test_the_overlays_own_link_concerns_the_settings_and_not_the_devices_wanted() -> None:
    concerned = named(World(OF), Kind.LINK, "weft.vx", Link("weft.vx", 7, 1450, ()))
    assert concerned.keys() == {"settings", "uplinks", "hooks"}
