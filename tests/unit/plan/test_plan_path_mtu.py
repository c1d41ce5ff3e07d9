"""Tunnels whose path is narrower than the link that they begin by: what fits, and who is told."""

from ipaddress import ip_address, ip_network

import pytest

from tests.unit.plan.law import change
from tests.unit.plan.test_plan_mtu import FAR4, FAR6, NEAR4, NEAR6, OWN4, OWN6, node, world_of
from weft.bpf.layout import Prefix
from weft.proxy.model.objects import Address, Kind, Network, PathMtu
from weft.proxy.model.world import Mode, Settings, World
from weft.proxy.plan import nodes, routes
from weft.proxy.plan.path_mtu import routed_ends
from weft.proxy.plan.routes import Route

CIDR4, CIDR6 = ip_network("10.244.2.0/24"), ip_network("fd00:2::/64")


def learned(world: World, end: str, mtu_bytes: int) -> World:
    record = PathMtu(ip_address(end), mtu_bytes)
    return world.with_change(change(world, Kind.PATH_MTU, record.key, record))


def limits(world: World, cidr: Network) -> tuple[int, int]:
    """Of the prefix's row and of the route."""
    (row,) = nodes.PLANNER.rows(world, cidr)
    (route,) = routes.PLANNER.rows(world, cidr)
    assert isinstance(row.value, bytes)
    assert isinstance(route.value, Route)
    return Prefix.unpack(row.value).mtu, route.value.mtu_bytes


@pytest.mark.parametrize(
    ("own", "far", "path", "inner4", "inner6"),
    [
        (OWN4, FAR4, 1400, 1350, 1350),
        (OWN6, FAR6, 1400, 1330, 1330),
        (OWN4, FAR4, 1300, 1250, 1280),
        (OWN6, FAR6, 1280, 1210, 1280),
        (OWN4, FAR4, 552, 576, 1280),
        (OWN4, FAR4, 1500, 0, 0),
    ],
)
def test_a_tunnel_takes_what_its_path_carries_less_its_headers(
    own: str, far: str, path: int, inner4: int, inner6: int
) -> None:
    world = learned(world_of(node("n1", own), node("n2", far)), far, path)
    assert limits(world, CIDR4) == (inner4, inner4)
    assert limits(world, CIDR6) == (inner6, inner6)


def test_only_the_node_behind_the_narrow_link_is_limited() -> None:
    world = world_of(node("n1", OWN4), node("n2", FAR4), node("n3", "198.51.100.3"))
    world = learned(world, "198.51.100.3", 1400)
    assert limits(world, CIDR4) == (0, 0)
    assert limits(world, ip_network("10.244.3.0/24")) == (1350, 1350)


def size_of_end(world: World, end: str) -> int:
    (row,) = nodes.PLANNER.rows(world, ip_network(end))
    assert isinstance(row.value, bytes)
    return Prefix.unpack(row.value).mtu


@pytest.mark.parametrize(("own", "near", "inner"), [(OWN4, NEAR4, 1450), (OWN6, NEAR6, 1430)])
def test_to_a_neighbour_only_clients_from_outside_are_limited_by_a_tunnel(
    own: str, near: str, inner: int
) -> None:
    world, cidr = world_of(node("n1", own), node("n2", near)), CIDR4 if "." in own else CIDR6
    assert limits(world, cidr) == (inner, 0)
    assert limits(learned(world, near, 1400), cidr) == (inner - 100, 0)
    assert limits(world_of(node("n1", own), node("n2", near), of=Mode.DIRECT), cidr) == (0, 0)


@pytest.mark.parametrize(("end", "inner"), [(FAR4, 1450), (FAR6, 1430)])
def test_a_nodes_address_says_what_a_tunnel_to_it_carries(end: str, inner: int) -> None:
    world = world_of(node("n1", OWN4, OWN6), node("n2", FAR4, FAR6))
    assert size_of_end(world, end) == inner
    assert size_of_end(learned(world, end, 1400), end) == inner - 100
    named = Settings("n1", path_mtu_bytes=1300)
    assert size_of_end(world_of(node("n1", OWN4), node("n2", FAR4), of=named), FAR4) == 1250
    direct = world_of(node("n1", OWN4), node("n2", FAR4), of=Mode.DIRECT)
    assert size_of_end(direct, FAR4) == 0


def ends(world: World) -> dict[Address, int]:
    return dict(routed_ends(world))


@pytest.mark.parametrize("of", [Mode.AUTO, Mode.VXLAN])
def test_asked_about_are_tunnel_ends_behind_routers(of: Mode) -> None:
    world = world_of(node("n1", OWN4, OWN6), node("n2", FAR4), node("n3", NEAR4), of=of, mtu=9001)
    assert ends(world) == {ip_address(FAR4): 9001}


@pytest.mark.parametrize(
    "of", [Settings("n1", path_mtu_bytes=1400), Settings("n1", mode=Mode.DIRECT)]
)
def test_nothing_is_asked_where_the_size_is_set_or_nothing_is_tunnelled(of: Settings) -> None:
    assert ends(world_of(node("n1", OWN4), node("n2", FAR4), of=of)) == {}
