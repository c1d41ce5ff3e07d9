"""Where a node is asked about its Services."""

from ipaddress import IPv6Address, ip_address, ip_network

import pytest

from weft.proxy.model.objects import Kind, Link
from weft.proxy.model.world import Change, Settings, World
from weft.proxy.plan.health_checks import asked_at

HELD = tuple(map(ip_address, ("192.0.2.1", "198.51.100.1", "127.0.0.1", "2001:db8::1", "fe80::1")))


def world(*prefixes: str) -> World:
    """A node that holds HELD, its node ports at `prefixes`."""
    settings = Settings("n1", node_port_addresses=tuple(map(ip_network, prefixes)))
    link = Link("eth0", 2, 1500, HELD, default_route=True)
    return World(settings).with_change(Change(Kind.LINK, link.name, None, link))


@pytest.mark.parametrize(("version", "every"), [(4, "0.0.0.0"), (6, "::")])
def test_without_a_setting_a_node_is_asked_at_every_address(version: int, every: str) -> None:
    assert asked_at(world(), version) == (ip_address(every),)


def test_where_node_ports_are_at_some_addresses_it_is_asked_there_alone() -> None:
    assert asked_at(world("192.0.2.0/24"), 4) == (ip_address("192.0.2.1"),)
    assert asked_at(world("203.0.113.0/24"), 4) == ()


def test_it_is_never_asked_at_an_address_that_needs_a_link_beside() -> None:
    assert asked_at(world("192.0.2.0/24"), 6) == (IPv6Address("2001:db8::1"),)
