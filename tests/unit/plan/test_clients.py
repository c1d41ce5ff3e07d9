"""What a client elsewhere gets is what the rows on its node say."""

from dataclasses import replace
from ipaddress import ip_address, ip_network

import pytest

from weft.bpf.layout import Frontend, FrontendKey, Slot, SlotKey
from weft.proxy.model.objects import (
    EndpointSlice,
    Kind,
    Link,
    Node,
    Pod,
    Protocol,
    Ref,
    Service,
    ServicePort,
    SliceEndpoint,
    SlicePort,
)
from weft.proxy.model.world import (
    Change,
    ClientAddress,
    Mode,
    Record,
    Settings,
    World,
    apply_changes,
)
from weft.proxy.plan import services
from weft.proxy.plan.clients import OWN, Client, Gets, Where, client_at, outcomes, seen_as
from weft.proxy.plan.services_frontends import Claim, Origin, Place

WEB, VIP, BALANCER = Ref("shop", "web"), ip_address("10.96.0.1"), ip_address("198.51.100.1")
ZONE = "topology.kubernetes.io/zone"
NODES = tuple(
    Node(
        Ref("", f"n{n}"),
        (ip_address(f"192.0.2.{n}"),),
        (ip_network(f"10.244.{n}.0/24"),),
        {ZONE: f"z{n}"},
    )
    for n in (1, 2, 3)
)
PODS = {n: ip_address(f"10.244.{n}.5") for n in (1, 2, 3)}
ETH0 = Link(
    "eth0", 2, 1500, NODES[0].addresses, default_route=True, networks=(ip_network("192.0.2.0/24"),)
)
SERVICE = Service(
    WEB, "LoadBalancer", (VIP,), (ServicePort("http", Protocol.TCP, 80, 30080),),
    load_balancer_ips=(BALANCER,),
)  # fmt: skip

AT_VIP = (Origin.CLUSTER_IP, SERVICE.ports[0])


def endpoint(on: int, **more: object) -> SliceEndpoint:
    said = SliceEndpoint(PODS[on], True, True, False, f"n{on}", None)
    return replace(said, **more)  # type: ignore[arg-type]


def world_of(
    service: Service, *endpoints: SliceEndpoint, node: str = "n1", mode: Mode = Mode.VXLAN
) -> World:
    """As the daemon on `node` knows it."""
    piece = Ref("shop", "web-1")
    client = Pod(Ref("shop", "client"), "u", "n2", {}, (ip_address("10.244.2.9"),), False, False)
    records: list[tuple[Kind, Ref | str, Record]] = [
        (Kind.SERVICE, WEB, service),
        (Kind.SLICE, piece,
         EndpointSlice(piece, "web", (SlicePort("http", Protocol.TCP, 8080),), endpoints)),
        (Kind.POD, client.ref, client),
        *((Kind.NODE, one.ref, one) for one in NODES),
    ]  # fmt: skip
    if node == "n1":
        records.append((Kind.LINK, ETH0.name, ETH0))
    changes = (Change(kind, key, None, record) for kind, key, record in records)
    return apply_changes(World(Settings(node, mode=mode)), changes)


def got(world: World, client: Client) -> dict[str, object]:
    """By the kind of address: the endpoints' last octets but one, or what else it gets."""
    return {
        one.claim.origin.name: (
            {int(address) >> 8 & 0xFF for address, _ in one.endpoints} or one.gets
        )
        for one in outcomes(world, SERVICE, client)
        if one.gets is not Gets.NOTHING and not one.claim.place.address.is_loopback
    }


def rows_say(world: World, port: int, address: object, *, local: bool) -> set[int]:
    """The same from the rows that the node's own daemon plans."""
    rows = {(row.table, row.key): row.value for row in services.PLANNER.rows(world, WEB)}
    key = FrontendKey(ip_address(str(address)), port, 6).pack()
    value = rows[("frontends", key)]
    assert isinstance(value, bytes)
    row = Frontend.unpack(value)
    set_, count = (row.local_service, row.local_backends) if local else (row.service, row.backends)
    found = set()
    for index in range(count):
        slot = rows[("slots", SlotKey(set_, index).pack())]
        assert isinstance(slot, bytes)
        found.add(int(Slot.unpack(slot).addr) >> 8 & 0xFF)
    return found


@pytest.mark.parametrize("node", ["n1", "n2", "n3"])
@pytest.mark.parametrize("hinted", [False, True])
@pytest.mark.parametrize("internal_local", [False, True])
def test_a_client_on_any_node_gets_what_that_nodes_daemon_would_write(
    node: str, hinted: bool, internal_local: bool
) -> None:
    service = replace(SERVICE, internal_local=internal_local)
    zones = {n: (f"z{n}",) if hinted else () for n in (1, 2, 3)}
    some = [endpoint(n, for_zones=zones[n]) for n in (1, 2, 3)]
    said = {
        one.claim.origin.name: {int(a) >> 8 & 0xFF for a, _ in one.endpoints}
        for one in outcomes(world_of(service, *some), service, Client(Where.NODE, node))
        if not one.claim.place.address.is_loopback
    }
    there = world_of(service, *some, node=node)
    own = next(one.addresses[0] for one in NODES if one.ref.name == node)
    assert said == {
        "CLUSTER_IP": rows_say(there, 80, VIP, local=internal_local),
        "NODE_PORT": rows_say(there, 30080, own, local=False),
        "LOAD_BALANCER": rows_say(there, 80, BALANCER, local=False),
    }
    only_own = hinted or internal_local
    assert said["CLUSTER_IP"] == ({int(node[1])} if only_own else {1, 2, 3})


def test_policy_local_is_silent_where_the_endpoints_are_elsewhere() -> None:
    service = replace(SERVICE, external_local=True)
    world = world_of(service, endpoint(2))
    outside = {
        one.claim.origin.name: one.gets
        for one in outcomes(world, service, Client(Where.OUTSIDE, "n1"))
        if one.gets is not Gets.NOTHING
    }
    assert outside == {
        "CLUSTER_IP": Gets.ENDPOINTS, "NODE_PORT": Gets.SILENCE, "LOAD_BALANCER": Gets.SILENCE
    }  # fmt: skip
    assert got(world, Client(Where.POD, "n1"))  # the short circuit
    inside = outcomes(world, service, Client(Where.POD, "n1"))
    assert {one.gets for one in inside} == {Gets.ENDPOINTS, Gets.NOTHING}


def test_without_endpoints_it_is_refused() -> None:
    assert set(got(world_of(SERVICE), Client(Where.NODE, "n3")).values()) == {Gets.REFUSED}


def test_source_ranges_are_for_the_load_balancers_address_alone() -> None:
    service = replace(SERVICE, source_ranges=(ip_network("10.244.2.0/24"),))
    world = world_of(service, endpoint(1))

    def gets(client: Client) -> Gets:
        return next(
            one.gets for one in outcomes(world, service, client)
            if one.claim.origin.name == "LOAD_BALANCER"
        )  # fmt: skip

    assert gets(Client(Where.POD, "n2", (PODS[2],))) is Gets.ENDPOINTS
    assert gets(Client(Where.POD, "n3", (PODS[3],))) is Gets.NOT_IN_RANGES
    assert gets(Client(Where.NODE, "n2")) is Gets.NOT_IN_RANGES
    outside = [*outcomes(world, service, Client(Where.OUTSIDE, "n1"))]
    assert {one.only_from for one in outside if one.claim.origin.name == "LOAD_BALANCER"} == {
        ("10.244.2.0/24",)
    }
    assert {one.only_from for one in outside if one.claim.origin.name != "LOAD_BALANCER"} == {()}


def test_a_nodes_loopback_is_its_own() -> None:
    world = world_of(SERVICE, endpoint(1))
    for where, gets in ((Where.NODE, Gets.ENDPOINTS), (Where.POD, Gets.NOTHING)):
        (loopback,) = (
            one for one in outcomes(world, SERVICE, Client(where, "n2"))
            if one.claim.place.address.is_loopback
        )  # fmt: skip
        assert loopback.gets is gets


def test_whom_a_name_means() -> None:
    world = world_of(SERVICE)
    assert client_at(world, "outside", "") == Client(Where.OUTSIDE, "n1")
    assert client_at(world, "n3", "") == Client(Where.NODE, "n3")
    pod = Client(Where.POD, "n2", (ip_address("10.244.2.9"),))
    assert client_at(world, "shop/client", "") == client_at(world, "client", "shop") == pod
    assert client_at(world, "client", "") is None


@pytest.mark.parametrize(
    ("mode", "client", "on", "seen"),
    [
        (Mode.VXLAN, Client(Where.POD, "n1", (PODS[1],)), PODS[2], OWN),
        (Mode.VXLAN, Client(Where.POD, "n1", (PODS[1],)), PODS[1], "node n1's 10.244.1.1"),
        (Mode.VXLAN, Client(Where.POD, "n1", (PODS[1],)), NODES[0].addresses[0], OWN),
        (Mode.VXLAN, Client(Where.POD, "n1", (PODS[1],)), NODES[1].addresses[0],
         "node n1's 192.0.2.1"),
        (Mode.VXLAN, Client(Where.NODE, "n1"), PODS[1], "node n1's 192.0.2.1"),
        (Mode.VXLAN, Client(Where.NODE, "n1"), PODS[2], "node n1's 10.244.1.1"),
        (Mode.DIRECT, Client(Where.NODE, "n1"), PODS[2], "node n1's 192.0.2.1"),
        (Mode.AUTO, Client(Where.NODE, "n2"), PODS[3], "node n2's"),
        (Mode.VXLAN, Client(Where.OUTSIDE, "n1"), PODS[1], OWN),
        (Mode.VXLAN, Client(Where.OUTSIDE, "n1"), PODS[2], OWN),
        (Mode.DIRECT, Client(Where.OUTSIDE, "n1"), PODS[2], "node n1's 192.0.2.1"),
    ],
)  # fmt: skip
def test_whom_the_endpoint_sees(mode: Mode, client: Client, on: object, seen: str) -> None:
    """As the table of paths has it (ARCHITECTURE)."""
    world, claim = world_of(SERVICE, mode=mode), Claim(Place(VIP, 80, Protocol.TCP), *AT_VIP)
    assert seen_as(world, SERVICE, client, claim, ip_address(str(on))).startswith(seen)


@pytest.mark.parametrize(
    ("where", "origin", "local", "masked"),
    [
        (Where.OUTSIDE, Origin.CLUSTER_IP, True, True),
        (Where.OUTSIDE, Origin.LOAD_BALANCER, False, True),
        (Where.OUTSIDE, Origin.LOAD_BALANCER, True, False),
        (Where.POD, Origin.CLUSTER_IP, False, False),
        (Where.POD, Origin.NODE_PORT, False, True),
        (Where.POD, Origin.NODE_PORT, True, False),
    ],
)
def test_whom_it_sees_where_clients_are_masqueraded(
    where: Where, origin: Origin, local: bool, masked: bool
) -> None:
    """kube-proxy's rows of the matrix (services 1.3)."""
    made = world_of(SERVICE)
    of = replace(made.settings, client_address=ClientAddress.MASQUERADE)
    service, client = replace(SERVICE, external_local=local), Client(where, "n1")
    claim = Claim(Place(VIP, 80, Protocol.TCP), origin, SERVICE.ports[0])
    seen = seen_as(replace(made, settings=of), service, client, claim, PODS[1])
    assert seen == ("node n1's 192.0.2.1" if masked else OWN)
