"""Owns where to look for connected UDP sockets of the node that no longer talk to whom a Service
says, and by what id their backend is known. Never asks the kernel. Yields no rows.

connect() translates once: what is sent afterwards goes to the backend that was chosen then, or to
the address itself where no Service had it yet. Pods' sockets and unconnected ones are translated
datagram by datagram, and follow by themselves.
"""

from collections.abc import Iterator
from typing import NamedTuple

from weft.bpf.layout import Frontend
from weft.proxy.model.objects import Address, EndpointSlice, Protocol, Record, Service
from weft.proxy.model.world import Change, World
from weft.proxy.plan.services_choice import backend_id
from weft.proxy.plan.services_frontends import claims


class Target(NamedTuple):
    """Whom sockets are connected to."""

    address: Address
    port: int


def concerned(change: Change, world: World) -> Iterator[Target]:
    """The UDP backends that `change` may have taken from a Service, and the addresses that it may
    have given to one; `world` is a later one.
    """
    if isinstance(change.before, EndpointSlice):
        yield from frozenset(_alive(change.before)) - frozenset(_alive(change.after))
    if isinstance(change.before, Service) and _has_udp(change.before):
        for piece in world.slices_of(change.before.ref):
            yield from _alive(piece)
    if isinstance(change.after, Service):
        for claim in claims(world, change.after):
            if claim.place.protocol is Protocol.UDP:
                yield Target(claim.place.address, claim.place.number)


def _has_udp(service: Service) -> bool:
    return any(port.protocol is Protocol.UDP for port in service.ports)


def _alive(record: Record | None) -> Iterator[Target]:
    """Those that have a row in `backends` (services._backends)."""
    if isinstance(record, EndpointSlice):
        numbers = [port.port for port in record.ports if port.protocol is Protocol.UDP]
        for endpoint in record.endpoints:
            if endpoint.serving or endpoint.ready:
                yield from (Target(endpoint.address, number) for number in numbers)


def backend_of(frontend: Frontend, target: Target) -> int:
    """The id by which `target` is one of the frontend's backends, as long as it is."""
    return backend_id(frontend.service, target.address, target.port)
