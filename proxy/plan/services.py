"""Owns what a Service is in the datapath: frontends, the slots that new flows are spread over, and
the backends that live.

A key is a Service's Ref. The two families of a Service are two services, as in kube-proxy. SCTP is
not planned: no program can mend its checksum. Which endpoints: kube-proxy's CategorizeEndpoints.
"""

from collections.abc import Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from typing import cast

from weft.bpf.layout import Backend, Frontend, FrontendKey, Slot, SlotKey, pack_u64
from weft.proxy.model.ids import content_id
from weft.proxy.model.index import service_of
from weft.proxy.model.objects import (
    PROTOCOL_NUMBERS,
    Address,
    EndpointSlice,
    Kind,
    Protocol,
    Record,
    Ref,
    Service,
    ServicePort,
    SliceEndpoint,
)
from weft.proxy.model.world import Change, World
from weft.proxy.plan.rows import Planner, Row

_PLANNED = (Protocol.TCP, Protocol.UDP)
_WHOLE_ADDRESS = Frontend(service=0, backends=0, flags=0).pack()


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One address and port behind one family of a service port, from all slices together."""

    id: int
    address: Address
    port: int
    ready: bool
    serving: bool
    terminating: bool


def service_id(service: Ref, port: ServicePort, version: int) -> int:
    """The id of one port of a Service in one family (`version` 4 or 6)."""
    return content_id(service.namespace, service.name, port.name, port.protocol, version)


def backend_id(service: int, address: Address, port: int) -> int:
    """The id of an endpoint as a backend of `service`."""
    return content_id(pack_u64(service) + address.packed + port.to_bytes(2, "big"))


def endpoints(
    service: int, port: ServicePort, version: int, slices: Iterable[EndpointSlice]
) -> tuple[Endpoint, ...]:
    """What `slices` say of one family of a service port, sorted by content.

    A slice's port belongs to the service port of its name and protocol, and slices may differ in
    the number behind a name. An address and port that two slices name is one endpoint.
    """
    found: dict[tuple[int, int], SliceEndpoint] = {}
    for piece in slices:
        numbers = [
            p.port for p in piece.ports if p.name == port.name and p.protocol is port.protocol
        ]
        for number in numbers:
            for said in piece.endpoints:
                if said.address.version == version:
                    place = int(said.address), number
                    held = found.get(place)
                    found[place] = said if held is None else max(held, said, key=_liveliness)
    built = (_endpoint(service, number, said) for (_, number), said in found.items())
    return tuple(sorted(built, key=_by_id))


def _liveliness(said: SliceEndpoint) -> tuple[bool, bool, bool]:
    """An address may be used again at once: the pod that is not terminating is the one there."""
    return not said.terminating, said.ready, said.serving


def _by_id(endpoint: Endpoint) -> int:
    return endpoint.id


def _endpoint(service: int, number: int, said: SliceEndpoint) -> Endpoint:
    identity = backend_id(service, said.address, number)
    return Endpoint(identity, said.address, number, said.ready, said.serving, said.terminating)


def chosen(every: Iterable[Endpoint]) -> tuple[Endpoint, ...]:
    """Those that new flows go to: the ready ones; without any, those that serve to their end."""
    every = tuple(every)
    ready = tuple(e for e in every if e.ready)
    return ready or tuple(e for e in every if e.serving and e.terminating)


def owned_addresses(world: World, service: Service) -> tuple[Address, ...]:
    """The cluster IPs that `service` answers at: where several claim one, the first by name."""
    if not service.proxied:
        return ()
    return tuple(a for a in service.cluster_ips if _owner(world, a) == service.ref)


def _owner(world: World, address: Address) -> Ref | None:
    claims = (service.ref for service in world.services_at(address) if service.proxied)
    return min(claims, default=None)


# --- The planner --------------------------------------------------------------------------------
def _rows(world: World, key: Hashable) -> Iterator[Row]:
    service = world.service(cast(Ref, key))
    if service is None:
        return
    addresses = owned_addresses(world, service)
    slices = world.slices_of(service.ref) if addresses else ()
    for address in addresses:
        yield Row("frontends", FrontendKey(address, 0, 0).pack(), _WHOLE_ADDRESS)
        for port in _ports(service):
            yield from _port_rows(service.ref, address, port, slices)


def _ports(service: Service) -> Iterable[ServicePort]:
    """One service port per number and protocol; the API allows no second one."""
    found: dict[tuple[int, Protocol], ServicePort] = {}
    for port in service.ports:
        if port.protocol in _PLANNED:
            found.setdefault((port.port, port.protocol), port)
    return found.values()


def _port_rows(
    ref: Ref, address: Address, port: ServicePort, slices: Iterable[EndpointSlice]
) -> Iterator[Row]:
    service = service_id(ref, port, address.version)
    every = endpoints(service, port, address.version, slices)
    targets = chosen(every)
    frontend = FrontendKey(address, port.port, PROTOCOL_NUMBERS[port.protocol])
    yield Row("frontends", frontend.pack(), Frontend(service, len(targets), 0).pack())
    for index, target in enumerate(targets):
        slot = Slot(target.id, target.address, target.port)
        yield Row("slots", SlotKey(service, index).pack(), slot.pack())
    alive = Backend(service).pack()
    for endpoint in every:
        # Ready without serving: publishNotReadyAddresses of a pod that is not ready.
        if endpoint.serving or endpoint.ready:
            yield Row("backends", pack_u64(endpoint.id), alive)


def _keys(change: Change, before: World, after: World) -> Iterable[Hashable]:
    if change.kind is Kind.SERVICE:
        return {change.key, *_rivals(change.before, before), *_rivals(change.after, after)}
    if change.kind is Kind.SLICE:
        return {*_services_of(change.before), *_services_of(change.after)}
    return ()


def _rivals(record: Record | None, world: World) -> Iterator[Ref]:
    """The other Services at this one's addresses: who answers there may change with it."""
    if isinstance(record, Service):
        for other in chain.from_iterable(map(world.services_at, record.cluster_ips)):
            yield other.ref


def _services_of(record: Record | None) -> Iterable[Ref]:
    return service_of(record) if isinstance(record, EndpointSlice) else ()


def _all_keys(world: World) -> Mapping[Hashable, object]:
    return cast(Mapping[Hashable, object], world.table(Kind.SERVICE))


PLANNER = Planner("services", _keys, _rows, _all_keys)
