"""How another node's pods are reached, and that both ends agree."""

from collections.abc import Sequence
from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.plan.law import change
from weft.proxy.model.objects import Address, Kind, Link, Network, Node, Ref
from weft.proxy.model.world import Mode, Settings, World
from weft.proxy.plan.reach import Direct, Nowhere, Tunnel, reach

NETWORK4, NETWORK6 = ip_network("192.0.2.0/24"), ip_network("2001:db8::/64")
OWN4, NEAR4, FAR4 = map(ip_address, ("192.0.2.1", "192.0.2.2", "198.51.100.2"))
OWN6, NEAR6, FAR6 = map(ip_address, ("2001:db8::1", "2001:db8::2", "2001:db8:1::2"))
ETH0 = Link("eth0", 2, 1500, (OWN4, OWN6), networks=(NETWORK4, NETWORK6))
TUNNELS, DIRECT = Settings("n1", mode=Mode.VXLAN), Settings("n1", mode=Mode.DIRECT)
AUTO = Settings("n1")
BRIDGES = Settings("n1", mode=Mode.BRIDGE), Settings("n1", mode=Mode.BRIDGE, overlay=False)


def node(name: str, *addresses: Address) -> Node:
    return Node(Ref("", name), addresses, ())


def world_of(of: Settings, own: Node | None, *links: Link) -> World:
    world = World(of)
    if own is not None:
        world = world.with_change(change(world, Kind.NODE, own.ref, own))
    for link in links:
        world = world.with_change(change(world, Kind.LINK, link.name, link))
    return world


OWN = node("n1", OWN4, OWN6)


@pytest.mark.parametrize("of", [AUTO, DIRECT, BRIDGES[1]])
def test_a_node_on_the_same_network_is_reached_without_a_tunnel(of: Settings) -> None:
    world, peer = world_of(of, OWN, ETH0), node("n2", NEAR4, NEAR6)
    assert reach(world, peer, 4) == Direct(NEAR4, "eth0", 2)
    assert reach(world, peer, 6) == Direct(NEAR6, "eth0", 2)


@pytest.mark.parametrize("of", [TUNNELS, BRIDGES[0]])
def test_some_modes_always_tunnel(of: Settings) -> None:
    world, peer = world_of(of, OWN, ETH0), node("n2", NEAR6, NEAR4)
    assert reach(world, peer, 4) == reach(world, peer, 6) == Tunnel(NEAR4)


def test_behind_a_router_auto_tunnels_and_direct_leaves_it_to_the_network() -> None:
    peer = node("n2", FAR4, FAR6)
    assert reach(world_of(AUTO, OWN, ETH0), peer, 6) == Tunnel(FAR4)
    there = reach(world_of(DIRECT, OWN, ETH0), peer, 6)
    assert isinstance(there, Nowhere)
    assert str(FAR6) in there.why


def test_a_family_that_one_end_lacks_is_tunnelled_in_the_other() -> None:
    peer = node("n2", NEAR4)
    world = world_of(AUTO, OWN, ETH0)
    assert reach(world, peer, 4) == Direct(NEAR4, "eth0", 2)
    assert reach(world, peer, 6) == Tunnel(NEAR4)
    assert reach(world_of(AUTO, node("n1", OWN6), ETH0), node("n2", NEAR4, NEAR6), 4) == Tunnel(
        NEAR6
    )


@pytest.mark.parametrize(
    ("own", "peer", "why"),
    [
        (None, node("n2", NEAR4), "n1 is not known"),
        (OWN, node("n2", NEAR6), "n2 has no IPv4 InternalIP"),
        (node("n1", OWN6), node("n2", NEAR4), "n1 has no IPv4 InternalIP"),
    ],
)
def test_nowhere_says_why(own: Node | None, peer: Node, why: str) -> None:
    there = reach(world_of(DIRECT, own, ETH0), peer, 4)
    assert isinstance(there, Nowhere)
    assert why in there.why


def test_a_network_without_an_internal_ip_of_this_node_would_be_one_way() -> None:
    link = Link("eth0", 2, 1500, (ip_address("203.0.113.1"),), networks=(NETWORK4,))
    own = node("n1", ip_address("198.51.100.1"))
    assert reach(world_of(AUTO, own, link), node("n2", NEAR4), 4) == Tunnel(NEAR4)


def test_an_address_of_its_own_is_nobodys_network() -> None:
    link = Link("eth0", 2, 1500, (OWN4,), networks=(ip_network("192.0.2.1/32"),))
    assert reach(world_of(AUTO, OWN, link), node("n2", OWN4), 4) == Tunnel(OWN4)


def test_of_two_links_in_a_network_the_one_with_the_internal_ip_leads() -> None:
    other = Link("eth1", 1, 1500, (ip_address("192.0.2.9"),), networks=(NETWORK4,))
    assert reach(world_of(AUTO, OWN, other, ETH0), node("n2", NEAR4), 4) == Direct(NEAR4, "eth0", 2)


@pytest.mark.parametrize("name", ["weft.vx", "weft0", "lo"])
def test_the_nodes_own_devices_lead_to_nobody(name: str) -> None:
    link = Link(name, 2, 1500, (OWN4,), networks=(NETWORK4,))
    assert reach(world_of(AUTO, OWN, link), node("n2", NEAR4), 4) == Tunnel(NEAR4)


def test_a_link_without_neighbours_leads_to_no_pod() -> None:
    link = Link("wg0", 2, 1420, (OWN4,), networks=(NETWORK4,), has_ethernet=False)
    assert reach(world_of(AUTO, OWN, link), node("n2", NEAR4), 4) == Tunnel(NEAR4)


@st.composite
def ends(draw: st.DrawFn) -> tuple[Address, ...]:
    chosen = [draw(st.sampled_from(group)) for group in ((OWN4, NEAR4, FAR4), (OWN6, NEAR6, FAR6))]
    return tuple(draw(st.permutations(chosen))[: draw(st.integers(0, 2))])


def _link(addresses: Sequence[Address]) -> Link:
    networks: list[Network] = [
        ip_network((a, 24 if a.version == 4 else 64), strict=False) for a in addresses
    ]
    return Link("eth0", 2, 1500, tuple(addresses), networks=tuple(networks))


@given(here=ends(), there=ends(), version=st.sampled_from((4, 6)))
def test_two_nodes_whose_links_say_the_same_agree(
    here: tuple[Address, ...], there: tuple[Address, ...], version: int
) -> None:
    one, other = node("n1", *here), node("n2", *there)
    away = reach(world_of(AUTO, one, _link(here)), other, version)
    back = reach(world_of(Settings("n2"), other, _link(there)), one, version)
    if here and there:
        assert type(away) is type(back)
