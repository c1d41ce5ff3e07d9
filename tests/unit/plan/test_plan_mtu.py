"""How large packets may be: on pods' links, in the overlay, on pods' routes."""

from ipaddress import ip_address, ip_network

import pytest

from tests.unit.plan.law import change
from weft.proxy.model.objects import Kind, Link, Node, Ref
from weft.proxy.model.world import Mode, Settings, World
from weft.proxy.plan.mtu import overlay_mtu_bytes, pod_mtu_bytes, route_mtu_bytes

SHARED = (ip_network("192.0.2.0/24"), ip_network("2001:db8::/64"))
OWN4, OWN6 = "192.0.2.1", "2001:db8::1"
NEAR4, NEAR6, FAR4, FAR6 = "192.0.2.2", "2001:db8::2", "198.51.100.2", "2001:db8:1::2"
NO_OVERLAY = Settings("n1", mode=Mode.BRIDGE, overlay=False)


def node(name: str, *addresses: str) -> Node:
    cidrs = (f"10.244.{name[1:]}.0/24", f"fd00:{name[1:]}::/64")
    return Node(Ref("", name), tuple(map(ip_address, addresses)), tuple(map(ip_network, cidrs)))


def world_of(own: Node, *peers: Node, mtu: int = 1500, of: Settings | Mode = Mode.AUTO) -> World:
    world = World(Settings("n1", mode=of) if isinstance(of, Mode) else of)
    link = Link("eth0", 2, mtu, own.addresses, networks=SHARED)
    for each in (own, *peers):
        world = world.with_change(change(world, Kind.NODE, each.ref, each))
    return world.with_change(change(world, Kind.LINK, link.name, link))


@pytest.mark.parametrize("mtu", [1450, 1500, 9001])
@pytest.mark.parametrize("of", [*Mode, NO_OVERLAY])
def test_pods_links_carry_what_the_underlay_does(mtu: int, of: Mode | Settings) -> None:
    assert pod_mtu_bytes(world_of(node("n1", OWN4), node("n2", FAR4), mtu=mtu, of=of)) == mtu


def test_before_any_link_is_known_it_is_ethernets() -> None:
    world = World(Settings("n1"))
    assert (pod_mtu_bytes(world), overlay_mtu_bytes(world)) == (1500, 1450)


@pytest.mark.parametrize("mtu", [1450, 1500, 9001])
@pytest.mark.parametrize(
    ("own", "peers", "overhead_bytes"),
    [
        ((OWN4,), [(FAR4,)], 50),
        ((OWN6,), [(FAR6,)], 70),
        ((OWN4, OWN6), [(FAR4, FAR6)], 50),
        ((OWN4, OWN6), [(FAR4,), (FAR6,)], 70),
        ((OWN4, OWN6), [(NEAR4, NEAR6), (FAR6,)], 70),
        ((OWN4,), [], 50),
        ((OWN6,), [], 70),
    ],
)
def test_the_overlay_takes_what_its_costliest_tunnel_leaves(
    own: tuple[str, ...], peers: list[tuple[str, ...]], overhead_bytes: int, mtu: int
) -> None:
    others = [node(f"n{number}", *addresses) for number, addresses in enumerate(peers, 2)]
    assert overlay_mtu_bytes(world_of(node("n1", *own), *others, mtu=mtu)) == mtu - overhead_bytes


@pytest.mark.parametrize(
    ("of", "peers", "mtu"),
    [
        (Mode.VXLAN, [], 1450),
        (Mode.BRIDGE, [], 1450),
        (NO_OVERLAY, [(FAR4,)], 0),
        (Mode.DIRECT, [(FAR4,)], 0),
        (Mode.AUTO, [], 0),
        (Mode.AUTO, [(NEAR4, NEAR6)], 0),
        (Mode.AUTO, [(NEAR4,)], 1450),
        (Mode.AUTO, [(NEAR4, NEAR6), (FAR4,)], 1450),
    ],
)
def test_pods_routes_say_the_overlays_mtu_while_a_tunnel_is_used(
    of: Mode | Settings, peers: list[tuple[str, ...]], mtu: int
) -> None:
    others = [node(f"n{number}", *addresses) for number, addresses in enumerate(peers, 2)]
    assert route_mtu_bytes(world_of(node("n1", OWN4, OWN6), *others, of=of)) == mtu


@pytest.mark.parametrize(
    ("of", "peer", "path", "mtu"),
    [
        (Mode.AUTO, FAR4, 1400, 1350),
        (Mode.AUTO, NEAR4, 1400, 1400),
        (Mode.DIRECT, FAR4, 1400, 1400),
        (Mode.VXLAN, FAR4, 1600, 1450),
        (Mode.DIRECT, FAR4, 1600, 0),
    ],
)
def test_a_narrow_path_between_nodes_narrows_routes_and_not_links(
    of: Mode, peer: str, path: int, mtu: int
) -> None:
    other = Node(Ref("", "n2"), (ip_address(peer),), (ip_network("10.244.2.0/24"),))
    of_path = Settings("n1", mode=of, path_mtu_bytes=path)
    world = world_of(node("n1", OWN4), other, of=of_path)
    assert (pod_mtu_bytes(world), route_mtu_bytes(world)) == (1500, mtu)


def test_what_one_world_used_is_not_said_of_the_next() -> None:
    own, far = node("n1", OWN4), node("n2", FAR4)
    with_peer, alone = world_of(own, far), world_of(own)
    assert (route_mtu_bytes(with_peer), route_mtu_bytes(alone)) == (1450, 0)
    gone = with_peer.with_change(change(with_peer, Kind.NODE, far.ref, None))
    assert route_mtu_bytes(gone) == 0
    assert route_mtu_bytes(with_peer) == 1450
