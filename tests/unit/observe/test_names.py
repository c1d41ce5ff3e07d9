"""Whose an address is, as people are told."""

from ipaddress import ip_address, ip_network

import pytest

from tests.unit.plan.law import change
from weft.proxy.model.objects import Address, Kind, Node, Protocol, Ref, Service, ServicePort
from weft.proxy.model.world import Settings, World
from weft.proxy.observe.names import whose

WEB = Ref("shop", "web")
PORT = ServicePort("", Protocol.TCP, 80)
VIP, BALANCER, EXTERNAL, NODE = (
    ip_address(text) for text in ("10.96.0.1", "198.51.100.1", "203.0.113.1", "192.0.2.1")
)


@pytest.mark.parametrize(
    ("address", "kind", "name"),
    [
        (VIP, "service", "shop/web"),
        (BALANCER, "service", "shop/web"),
        (EXTERNAL, "service", "shop/web"),
        (NODE, "node", "n1"),
        (ip_address("203.0.113.2"), "outside", ""),
    ],
)
def test_an_address_is_a_services_at_whatever_it_is_reached_by(
    address: Address, kind: str, name: str
) -> None:
    web = Service(
        WEB, "LoadBalancer", (VIP,), (PORT,),
        load_balancer_ips=(BALANCER, NODE), external_ips=(EXTERNAL,),
    )  # fmt: skip
    own = Node(Ref("", "n1"), (NODE,), (ip_network("10.244.1.0/24"),))
    world = World(Settings("n1"))
    world = world.with_change(change(world, Kind.SERVICE, WEB, web))
    world = world.with_change(change(world, Kind.NODE, own.ref, own))
    assert whose(world, address) == (kind, name)
