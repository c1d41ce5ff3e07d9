"""Where sockets are looked at when a Service or its endpoints move."""

from ipaddress import ip_address

import pytest

from weft.proxy.model.objects import (
    EndpointSlice,
    Kind,
    Protocol,
    Record,
    Ref,
    Service,
    ServicePort,
    SliceEndpoint,
    SlicePort,
)
from weft.proxy.model.world import Change, Settings, World
from weft.proxy.plan.sockets import Target, concerned

DNS, VIP = Ref("kube-system", "dns"), ip_address("10.96.0.10")
ONE, OTHER = map(ip_address, ("10.244.1.5", "10.244.2.5"))


def slice_of(*endpoints: SliceEndpoint, protocol: Protocol = Protocol.UDP) -> EndpointSlice:
    ports = (SlicePort("dns", protocol, 5353),)
    return EndpointSlice(Ref(DNS.namespace, "dns-1"), DNS.name, ports, endpoints)


def endpoint(address: object, *, ready: bool = True, serving: bool = True) -> SliceEndpoint:
    return SliceEndpoint(ip_address(str(address)), ready, serving, not ready, "n1", None)


def service(protocol: Protocol = Protocol.UDP) -> Service:
    return Service(DNS, "ClusterIP", (VIP,), (ServicePort("dns", protocol, 53),))


def targets(kind: Kind, before: Record | None, after: Record | None, *known: Record) -> set[Target]:
    world = World(Settings("n1"))
    for record in (*known, *([after] if after else [])):
        of = Kind.SLICE if isinstance(record, EndpointSlice) else Kind.SERVICE
        world = world.with_change(Change(of, record.ref, None, record))  # type: ignore[union-attr]
    key = Ref(DNS.namespace, "dns-1") if kind is Kind.SLICE else DNS
    return set(concerned(Change(kind, key, before, after), world))


def test_an_endpoint_that_goes_or_serves_no_more_is_looked_for() -> None:
    both = slice_of(endpoint(ONE), endpoint(OTHER))
    gone = slice_of(endpoint(OTHER))
    failed = slice_of(endpoint(ONE, ready=False, serving=False), endpoint(OTHER))
    for after in (gone, failed):
        assert targets(Kind.SLICE, both, after) == {Target(ONE, 5353)}
    assert targets(Kind.SLICE, both, None) == {Target(ONE, 5353), Target(OTHER, 5353)}


def test_an_endpoint_that_drains_or_comes_is_not() -> None:
    both = slice_of(endpoint(ONE), endpoint(OTHER))
    draining = slice_of(endpoint(ONE, ready=False), endpoint(OTHER))
    assert targets(Kind.SLICE, both, draining) == set()
    assert targets(Kind.SLICE, None, both) == set()


def test_every_endpoint_of_a_service_that_changes_is_looked_for_and_who_dials_it() -> None:
    world = slice_of(endpoint(ONE))
    assert targets(Kind.SERVICE, service(), None, world) == {Target(ONE, 5353)}
    assert targets(Kind.SERVICE, None, service(), world) == {Target(VIP, 53)}


@pytest.mark.parametrize("protocol", [Protocol.TCP, Protocol.SCTP])
def test_other_protocols_are_not_looked_at(protocol: Protocol) -> None:
    one = slice_of(endpoint(ONE), protocol=protocol)
    assert targets(Kind.SLICE, one, None) == set()
    assert targets(Kind.SERVICE, service(protocol), None, one) == set()
    assert targets(Kind.SERVICE, None, service(protocol), one) == set()
