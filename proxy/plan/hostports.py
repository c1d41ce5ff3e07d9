"""Owns the frontends of pods' hostPorts: where this node takes connections in for its own pods.

A key is a (protocol, number) that some local pod asks for. To the datapath each is a Service of one
endpoint; where a real Service may be reached there is none, whatever a pod asks for. SCTP is not
planned: no program can mend its checksum.
"""

from collections.abc import Hashable, Iterable, Iterator
from typing import NamedTuple

from weft.bpf.layout import (
    Backend,
    BackendFlag,
    Frontend,
    FrontendFlag,
    FrontendKey,
    Slot,
    SlotKey,
    pack_u64,
)
from weft.proxy.model.ids import content_id
from weft.proxy.model.objects import (
    PROTOCOL_NUMBERS,
    Address,
    HostPort,
    Kind,
    Pod,
    Protocol,
    Record,
    Service,
    Workload,
)
from weft.proxy.model.world import Change, World
from weft.proxy.plan.node import host_addresses
from weft.proxy.plan.policy_judge import pod_of
from weft.proxy.plan.rows import Planner, Row
from weft.proxy.plan.services_choice import backend_id
from weft.proxy.plan.services_frontends import LOOPBACKS, Place, node_port_addresses, place_owner

_PLANNED = (Protocol.TCP, Protocol.UDP)
Key = tuple[Protocol, int]


class _Mapping(NamedTuple):
    place: Place
    target: Address
    target_port: int


def _rows(world: World, key: Hashable) -> Iterator[Row]:
    found: dict[Place, _Mapping] = {}
    for workload, port in sorted(_asked(world), key=lambda asked: asked[0].key):
        if (port.protocol, port.number) == key:
            for mapping in _mappings(world, workload, port):
                found.setdefault(mapping.place, mapping)
    for mapping in found.values():
        if place_owner(world, mapping.place) is None:
            yield from _mapped(mapping)


def _asked(world: World) -> Iterator[tuple[Workload, HostPort]]:
    """The hostPorts of this node's pods. Few pods have any; a node has some hundred pods."""
    for workload in world.workloads():
        pod = pod_of(world, workload)
        for port in pod.host_ports if pod is not None else ():
            if port.protocol in _PLANNED:
                yield workload, port


def _mappings(world: World, workload: Workload, port: HostPort) -> Iterator[_Mapping]:
    """One for each address of the node, to the pod's address of its family."""
    targets = {address.version: address for address in reversed(workload.addresses)}
    every = (*host_addresses(world), *LOOPBACKS)
    for address in every if port.address is None else (port.address,):
        if target := targets.get(address.version):
            yield _Mapping(Place(address, port.number, port.protocol), target, port.target)


def _mapped(mapping: _Mapping) -> Iterator[Row]:
    place = mapping.place
    service = content_id("hostport", place.address.packed, place.number, place.protocol)
    backend = backend_id(service, mapping.target, mapping.target_port)
    flags = FrontendFlag.EXTERNAL | FrontendFlag.NODE_PORT
    if place.address.is_loopback:
        flags |= FrontendFlag.LOOPBACK
    key = FrontendKey(place.address, place.number, PROTOCOL_NUMBERS[place.protocol])
    row = Frontend(service, 0, 1, 0, 0, flags, ring_size=1)
    yield Row("frontends", key.pack(), row.pack())
    slot = Slot(backend, mapping.target, mapping.target_port)
    yield Row("slots", SlotKey(service, 0).pack(), slot.pack())
    yield Row("backends", pack_u64(backend), Backend(service, BackendFlag.CHOSEN).pack())


# --- What a change concerns ---------------------------------------------------------------------
def _keys(change: Change, before: World, after: World) -> Iterable[Hashable]:
    match change.kind:
        case Kind.POD | Kind.ATTACHMENT:
            return {*_of_pod(change.before, before), *_of_pod(change.after, after)}
        case Kind.SERVICE:
            numbers = {*_numbers(change.before), *_numbers(change.after)}
            return numbers.intersection(_all_keys(after)) if numbers else ()
        case Kind.NODE | Kind.LINK if _places(before) != _places(after):
            return _all_keys(after)
    return ()


def _of_pod(record: Record | None, world: World) -> Iterator[Key]:
    pod = world.pod(record.ref) if isinstance(record, Workload) else record
    for port in pod.host_ports if isinstance(pod, Pod) else ():
        yield port.protocol, port.number


def _numbers(record: Record | None) -> Iterator[Key]:
    """Where outside of its cluster IPs a Service may be reached."""
    if isinstance(record, Service):
        exposed = record.load_balancer_ips or record.external_ips
        for port in record.ports:
            if port.node_port:
                yield port.protocol, port.node_port
            if exposed:
                yield port.protocol, port.port


def _places(world: World) -> object:
    return host_addresses(world), node_port_addresses(world)


def _all_keys(world: World) -> Iterable[Hashable]:
    return {(port.protocol, port.number) for _, port in _asked(world)}


PLANNER = Planner("hostports", _keys, _rows, _all_keys)
