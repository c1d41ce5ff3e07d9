"""Owns where a Service may be reached: which addresses and ports it claims, and which of them are
its own to have. Yields no rows of its own.

The guard against a man in the middle: an externalIP is whatever a tenant writes. One that is a
Service's, a node's, a pod's or the API server's is not taken.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import IntEnum
from functools import partial
from ipaddress import IPv4Address, IPv6Address
from typing import NamedTuple

from weft.proxy.model.lastknown import API_SERVER
from weft.proxy.model.objects import Address, Network, Protocol, Record, Ref, Service, ServicePort
from weft.proxy.model.owners import owner
from weft.proxy.model.world import World
from weft.proxy.plan.node import internal_ips

LOOPBACKS: tuple[Address, ...] = (IPv4Address("127.0.0.1"), IPv6Address("::1"))


class Origin(IntEnum):
    """What makes an address a Service's. Of several Services at one place the first origin wins."""

    CLUSTER_IP = 0
    NODE_PORT = 1
    LOAD_BALANCER = 2
    EXTERNAL_IP = 3


class Place(NamedTuple):
    """Where clients dial; a Service's own number, or its node port's."""

    address: Address
    number: int
    protocol: Protocol


@dataclass(frozen=True, slots=True)
class Claim:
    """One place where a Service wants one of its ports reached."""

    place: Place
    origin: Origin
    port: ServicePort

    @property
    def is_external(self) -> bool:
        return self.origin is not Origin.CLUSTER_IP


def ports(service: Service) -> Iterable[ServicePort]:
    """One service port per number and protocol; the API allows no second one."""
    found: dict[tuple[int, Protocol], ServicePort] = {}
    for port in service.ports:
        found.setdefault((port.port, port.protocol), port)
    return found.values()


def owned_addresses(world: World, service: Service) -> tuple[Address, ...]:
    """The cluster IPs that `service` answers at: where several claim one, the first by name."""
    if not service.proxied:
        return ()
    return tuple(a for a in service.cluster_ips if _cluster_owner(world, a) == service.ref)


def others_addresses(world: World, service: Service) -> tuple[Address, ...]:
    """The cluster IPs of a Service that another proxy serves, where none of ours claims them."""
    if service.proxied:
        return ()
    return tuple(a for a in service.cluster_ips if _cluster_owner(world, a) is None)


def _cluster_owner(world: World, address: Address) -> Ref | None:
    claims = (service.ref for service in world.services_at(address) if service.proxied)
    return min(claims, default=None)


# --- The node's own addresses -------------------------------------------------------------------
def node_port_addresses(world: World) -> tuple[Address, ...]:
    """Where node ports are served: the Node's InternalIPs, or what the setting's prefixes hold of
    the addresses on the node's links. A family that no prefix is of has all of its own.
    """
    wanted = world.settings.node_port_addresses
    if not wanted:
        return internal_ips(world)
    held = {a for link in world.links() for a in link.addresses if not a.is_loopback}
    return tuple(sorted(filter(partial(_is_wanted, wanted), held), key=_order))


def _is_wanted(wanted: Iterable[Network], address: Address) -> bool:
    of_family = [network for network in wanted if network.version == address.version]
    return not of_family or any(address in network for network in of_family)


def _order(address: Address) -> tuple[int, int]:
    return address.version, int(address)


# --- Claims and who has them --------------------------------------------------------------------
def claims(world: World, service: Service) -> Iterator[Claim]:
    """All that `service` asks for, node ports at this node's addresses. Each family of a Service is
    a service of its own, which a family without a cluster IP has none of.
    """
    if not service.proxied:
        return
    versions = {address.version for address in service.cluster_ips}
    for port in ports(service):
        for origin, address in _addresses(service):
            if address.version in versions:
                yield Claim(Place(address, port.port, port.protocol), origin, port)
        if port.node_port:
            for address in (*node_port_addresses(world), *LOOPBACKS):
                if address.version in versions:
                    place = Place(address, port.node_port, port.protocol)
                    yield Claim(place, Origin.NODE_PORT, port)


def _addresses(service: Service) -> Iterator[tuple[Origin, Address]]:
    for address in service.cluster_ips:
        yield Origin.CLUSTER_IP, address
    for address in service.load_balancer_ips:
        yield Origin.LOAD_BALANCER, address
    for address in service.external_ips:
        yield Origin.EXTERNAL_IP, address


def taken(world: World, service: Service) -> Iterator[Claim]:
    """The claims of `service` that are served, one for each place."""
    found: dict[Place, Claim] = {}
    for claim in claims(world, service):
        held = found.get(claim.place)
        if (held is None or claim.origin < held.origin) and not refusal(world, service.ref, claim):
            found[claim.place] = claim
    yield from found.values()


def refusal(world: World, ref: Ref, claim: Claim) -> str:
    """Why a place that the Service `ref` claims is not served for it, to a person; "" if it is."""
    if claim.origin is Origin.CLUSTER_IP:
        first = _cluster_owner(world, claim.place.address)
        return "" if first == ref else f"the ClusterIP of Service {first}"
    if claim.origin is Origin.NODE_PORT:
        first = _node_port_owner(world, claim.place)
        return "" if first == ref else f"the node port of Service {first}"
    if why := _unfit(world, claim.place.address, claim.origin):
        return why
    if claim.place.address in node_port_addresses(world) and (
        first := _node_port_owner(world, claim.place)
    ):
        return f"the node port of Service {first}"
    _, first = min(_rivals(world, claim.place))
    return "" if first == ref else f"served for Service {first}"


def _node_port_owner(world: World, place: Place) -> Ref | None:
    version = place.address.version
    return min(
        (
            service.ref
            for service in world.services_on_node_port(place.protocol, place.number)
            if service.proxied and any(a.version == version for a in service.cluster_ips)
        ),
        default=None,
    )


def place_owner(world: World, place: Place) -> Ref | None:
    """The Service that may be reached at a place of the node's own, or that asks for it."""
    own = (*node_port_addresses(world), *LOOPBACKS)
    if place.address in own and (first := _node_port_owner(world, place)):
        return first
    exposed = (
        service.ref
        for service in world.services_exposed_at(place.address)
        if service.proxied and any((p.port, p.protocol) == place[1:] for p in ports(service))
    )
    return min(exposed, default=None)


def _rivals(world: World, place: Place) -> Iterator[tuple[Origin, Ref]]:
    """Who claims a place that is no cluster IP's, with what makes it theirs."""
    for service in world.services_exposed_at(place.address):
        numbers = {(port.port, port.protocol) for port in ports(service)}
        if (
            service.proxied
            and (place.number, place.protocol) in numbers
            and any(a.version == place.address.version for a in service.cluster_ips)
        ):
            for origin, address in _addresses(service):
                if address == place.address and not _unfit(world, address, origin):
                    yield origin, service.ref


def _unfit(world: World, address: Address, origin: Origin) -> str:
    """Why `address` may be no load balancer's or externalIP; "" if it may."""
    for service in world.services_at(address):
        if service.proxied:
            return f"the ClusterIP of Service {service.ref}"
    if origin is not Origin.EXTERNAL_IP:
        return ""
    if not world.settings.external_ips:
        return "setting external-ips is false"
    return _somebodys(world, address)


def _somebodys(world: World, address: Address) -> str:
    """Whose an externalIP is already: nobody is to get traffic that is meant for these."""
    if address.is_unspecified or address.is_loopback or address.is_multicast:
        return "not an address of a host"
    if address.is_link_local:
        return "a link-local address"
    if any(address == e.address for s in world.slices_of(API_SERVER) for e in s.endpoints):
        return "an address of the API server"
    for node in world.nodes_at(address):
        return f"an address of node {node.ref.name}"
    holder = owner(world, address)
    return f"within the podCIDR of node {holder.ref.name}" if holder is not None else ""


# --- What moves whose claims --------------------------------------------------------------------
def rivals_of(record: Record | None, world: World) -> Iterator[Ref]:
    """The other Services whose claims may be affected by this one's."""
    if not isinstance(record, Service):
        return
    for _, address in _addresses(record):
        yield from refs(world.services_at(address))
        yield from refs(world.services_exposed_at(address))
    numbers = {(port.protocol, port.node_port) for port in record.ports if port.node_port}
    for protocol, number in numbers:
        yield from refs(world.services_on_node_port(protocol, number))
    if numbers:
        for address in node_port_addresses(world):
            yield from refs(world.services_exposed_at(address))


def refs(services: Iterable[Service]) -> Iterator[Ref]:
    return (service.ref for service in services)
