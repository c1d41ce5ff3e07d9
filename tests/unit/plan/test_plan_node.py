"""What follows from Nodes: gateways, tunnel ends, MTU, the overlay's MAC."""

from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.plan.law import change
from weft.proxy.model.objects import Kind, Link, Node, Ref
from weft.proxy.model.world import Settings, World
from weft.proxy.plan.links import overlay_mac
from weft.proxy.plan.node import gateway, underlay, underlay_link

V4, V6 = ip_address("192.0.2.1"), ip_address("2001:db8::1")
VXLAN = Settings("n1")


def node(*addresses: str) -> Node:
    return Node(Ref("", "n1"), tuple(map(ip_address, addresses)), ())


def world_of(own: Node, *links: Link, of: Settings = VXLAN) -> World:
    world = World(of).with_change(change(World(of), Kind.NODE, own.ref, own))
    for link in links:
        world = world.with_change(change(world, Kind.LINK, link.name, link))
    return world


@pytest.mark.parametrize(
    ("cidr", "means"),
    [
        ("10.244.1.0/24", "10.244.1.1"),
        ("10.244.1.0/30", "10.244.1.1"),
        ("fd00:1::/64", "fd00:1::1"),
    ],
)
def test_the_gateway_is_the_first_address_of_the_pod_cidr(cidr: str, means: str) -> None:
    assert gateway(ip_network(cidr)) == ip_address(means)


@pytest.mark.parametrize("cidr", ["10.244.1.0/31", "10.244.1.0/32", "fd00::/127"])
def test_a_pod_cidr_without_room_has_no_gateway(cidr: str) -> None:
    assert gateway(ip_network(cidr)) is None


@pytest.mark.parametrize(
    ("ours", "theirs", "end"),
    [
        (("192.0.2.1", "2001:db8::1"), ("2001:db8::2", "192.0.2.2"), "192.0.2.2"),
        (("192.0.2.1",), ("2001:db8::2", "192.0.2.2"), "192.0.2.2"),
        (("2001:db8::1",), ("192.0.2.2", "2001:db8::2"), "2001:db8::2"),
        (("2001:db8::1",), ("192.0.2.2",), "192.0.2.2"),
    ],
)
def test_a_tunnel_ends_in_the_first_family_that_both_nodes_have(
    ours: tuple[str, ...], theirs: tuple[str, ...], end: str
) -> None:
    assert underlay(node(*theirs), node(*ours)) == ip_address(end)


def test_a_node_without_an_internal_ip_ends_no_tunnel() -> None:
    assert underlay(node(), node("192.0.2.1")) is None


families = st.lists(st.sampled_from((V4, V6)), unique=True, min_size=1).map(tuple)


@given(one=families, other=families)
def test_both_ends_of_a_tunnel_choose_one_family(
    one: tuple[object, ...], other: tuple[object, ...]
) -> None:
    here, there = node(*map(str, one)), node(*map(str, other))
    ends = underlay(there, here), underlay(here, there)
    if set(one) & set(other):
        assert len({end.version for end in ends if end is not None}) == 1


def test_an_internal_ip_on_the_loopback_is_reached_by_the_default_route() -> None:
    own = node("192.0.2.1")
    loopback = Link("lo", 1, 65536, own.addresses)
    uplink = Link("eth0", 2, 1500, (ip_address("198.51.100.1"),), default_route=True)
    assert underlay_link(world_of(own, loopback, uplink)) == uplink
    assert underlay_link(world_of(own, loopback)) is None


@given(name=st.text())
def test_the_overlays_mac_is_a_local_unicast_address(name: str) -> None:
    mac = overlay_mac(name)
    assert len(mac) == 6
    assert mac[0] & 0x03 == 0x02


def test_the_overlays_mac_differs_per_node() -> None:
    assert len({overlay_mac(f"node-{n}") for n in range(1000)}) == 1000
