"""Clients outside over a Service's endpoints, by the rows that nodes plan: how few of their flows
move when one endpoint goes, and that nodes agree, whatever hints of zones say to each."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from itertools import product

import pytest

from tests.packet.packets import ACK, SYN, TCP, UDP, Address, read
from tests.packet.scene import UPLINK, Scene
from tests.packet.test_north import dialled
from weft.proxy.model.objects import (
    EndpointSlice,
    Kind,
    Node,
    Protocol,
    Ref,
    Service,
    ServicePort,
    SliceEndpoint,
    SlicePort,
)
from weft.proxy.model.world import Change, Settings, World
from weft.proxy.plan import services

WEB, ZONES = Ref("shop", "web"), ("z1", "z2", "z3")
COUNT, FLOWS = 100, 5_000


@pytest.fixture
def entry(scene: Scene) -> Scene:
    scene.uplink()
    scene.remote_range()
    return scene


def world(scene: Scene, numbers: Iterable[int], *, zone: str = "", affinity_s: int = 0) -> World:
    """As a node of a zone knows it: the VIP and its endpoints, each meant for a zone by turns."""
    at, name = scene.at, f"node-{zone}"
    endpoints = tuple(
        SliceEndpoint(
            at.c + number, True, True, False, "far", None,
            for_zones=(ZONES[number % len(ZONES)],) if zone else (),
        )
        for number in numbers
    )  # fmt: skip
    ports = tuple(ServicePort(p.lower(), p, 80) for p in (Protocol.TCP, Protocol.UDP))
    listed = tuple(SlicePort(port.name, port.protocol, 8080) for port in ports)
    own = Node(Ref("", name), (at.uplink,), (at.own_range,), {"topology.kubernetes.io/zone": zone})
    service = Service(WEB, "ClusterIP", (at.services[99],), ports, external_ips=(at.vip,),
                      affinity_s=affinity_s)  # fmt: skip
    made = World(Settings(name))
    for kind, key, record in (
        (Kind.NODE, own.ref, own),
        (Kind.SERVICE, WEB, service),
        (
            Kind.SLICE,
            Ref("shop", "web-1"),
            EndpointSlice(Ref("shop", "web-1"), "web", listed, endpoints),
        ),
    ):
        made = made.with_change(Change(kind, key, None, record))
    return made


def serve(scene: Scene, known: World) -> None:
    """The node has the rows that it plans, and remembers no client."""
    for table in ("frontends", "slots", "rings", "backends", "translations", "flows"):
        scene.node.tables[table].delete(list(scene.node.rows(table)))
    for row in services.PLANNER.rows(known, WEB):
        assert isinstance(row.key, bytes)
        assert isinstance(row.value, bytes)
        scene.node.tables[row.table].update({row.key: row.value})


def backend(scene: Scene, proto: int, client: int, sport: int, flags: int = SYN) -> Address:
    sent = replace(dialled(scene, proto, flags=flags), src=scene.at.outside + client, sport=sport)
    links = {"ifindex": UPLINK, "received_on": UPLINK}
    return read(scene.node.repeat("from_uplink", sent.frame, 1, **links).packet).dst


def clients(count: int) -> Iterable[tuple[int, int]]:
    return product(range(count // 100), range(20_000, 20_100))


@pytest.mark.parametrize("gone", [0, 42])
def test_of_a_hundred_one_goes_and_at_most_one_percent_of_the_others_flows_move(
    entry: Scene, gone: int
) -> None:
    found: list[list[Address]] = []
    for numbers in (range(COUNT), (n for n in range(COUNT) if n != gone)):
        serve(entry, world(entry, numbers))
        found.append([backend(entry, UDP, *one) for one in clients(FLOWS)])
    before, after = found
    lost = entry.at.c + gone
    others = [(was, now) for was, now in zip(before, after, strict=True) if was != lost]
    assert lost not in after
    assert len(others) < FLOWS
    assert sum(was != now for was, now in others) <= len(others) / 100
    assert len(set(before)) == COUNT
    assert max(Counter(before).values()) < 2 * FLOWS / COUNT


@pytest.mark.parametrize("flags", [SYN, ACK], ids=["new", "in its middle"])
def test_nodes_of_all_zones_give_a_client_the_same_endpoint(entry: Scene, flags: int) -> None:
    """Each gives pods those that are meant for its zone."""
    given = []
    for zone in ZONES:
        serve(entry, world(entry, range(12), zone=zone))
        given.append([backend(entry, TCP, *one, flags) for one in clients(200)])
    assert given[0] == given[1] == given[2]
    assert len(set(given[0])) == 12


def test_affinity_keeps_an_endpoint_that_is_meant_for_another_zone(entry: Scene) -> None:
    serve(entry, world(entry, range(12), zone="z1", affinity_s=60))
    first = [backend(entry, UDP, client, 20_000) for client in range(40)]
    assert len(set(first)) > 4
    # Nothing but what is remembered could tell now.
    entry.node.tables["rings"].delete(list(entry.node.rows("rings")))
    assert [backend(entry, UDP, client, 20_001) for client in range(40)] == first
