"""Owns what a Service is in the datapath: frontends, the slots that new flows are spread over, the
backends that live, and who may reach a load balancer's address.

A key is a Service's Ref. The two families of a Service are two services, as in kube-proxy. What
SCTP has of this is services_sctp's. Which endpoints: services_choice; which addresses:
services_frontends.
"""

from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain, product
from typing import NamedTuple, cast

from weft.bpf.layout import (
    Backend,
    BackendFlag,
    Frontend,
    FrontendFlag,
    FrontendKey,
    RangeKey,
    Ring,
    RingKey,
    Slot,
    SlotKey,
    pack_u32,
    pack_u64,
)
from weft.proxy.model.ids import content_id
from weft.proxy.model.index import service_of
from weft.proxy.model.lastknown import API_SERVER
from weft.proxy.model.objects import (
    PROTOCOL_NUMBERS,
    Address,
    EndpointSlice,
    Kind,
    Network,
    Node,
    Protocol,
    Record,
    Ref,
    Service,
    ServicePort,
)
from weft.proxy.model.world import Change, World
from weft.proxy.plan.maglev import ring, ring_size
from weft.proxy.plan.node import internal_ips
from weft.proxy.plan.rows import Planner, Row, prefix_bits
from weft.proxy.plan.services_choice import Choice, Endpoint, Standpoint, categorize, endpoints
from weft.proxy.plan.services_frontends import (
    LOOPBACKS,
    Claim,
    Origin,
    node_port_addresses,
    others_addresses,
    owned_addresses,
    refs,
    rivals_of,
    taken,
)
from weft.proxy.plan.shares import beyond, moved

_WHOLE_ADDRESS = Frontend(0, 0, 0, 0, 0, 0, 0)
_EXPOSED = (Origin.LOAD_BALANCER, Origin.EXTERNAL_IP)
_ALLOWED = pack_u32(1)
_RING_CHUNK = Ring.SIZE // 2
_CHOSEN, _CHOSEN_LOCAL = int(BackendFlag.CHOSEN), int(BackendFlag.CHOSEN_LOCAL)
_CHOSEN_OUTSIDE = int(BackendFlag.CHOSEN_OUTSIDE)


class Served(NamedTuple):
    """One family of a service port with all its endpoints, and the choice among them."""

    id: int
    local_id: int
    """Whose slots the local endpoints are; 0: nobody asks for them."""
    version: int
    every: tuple[Endpoint, ...]
    choice: Choice
    ring_size: int
    """Of the ring that clients outside are spread by; 0: none comes to this service."""

    @property
    def slots(self) -> tuple[Endpoint, ...]:
        """Those for clients in the cluster, then what the ring names besides."""
        cluster = self.choice.cluster or ()
        known = {endpoint.id for endpoint in cluster}
        return cluster + tuple(e for e in self.choice.outside if e.id not in known)


def service_id(service: Ref, port: ServicePort, version: int) -> int:
    """The id of one port of a Service in one family (`version` 4 or 6)."""
    return content_id(service.namespace, service.name, port.name, port.protocol, version)


def standpoint(world: World) -> Standpoint:
    """Where this node stands."""
    own = world.own_node()
    return Standpoint(world.settings.node, own.zone if own is not None else "")


def serve(world: World, service: Service, version: int, claims: Sequence[Claim]) -> Served:
    """The choice for one service port in one family, which `claims` reach.

    Of policy Local too, pods and this node get the whole cluster's endpoints at external addresses:
    the short circuit.
    """
    port, external = claims[0].port, any(claim.is_external for claim in claims)
    identity = service_id(service.ref, port, version)
    every = endpoints(identity, port, version, world.slices_of(service.ref))
    uses_local = service.internal_local or (service.external_local and external)
    choice = categorize(
        every,
        standpoint(world),
        uses_cluster=not service.internal_local or external,
        uses_local=uses_local,
        uses_outside=external and not service.external_local,
    )
    local_id = content_id(identity, "local") if uses_local else 0
    return Served(identity, local_id, version, every, choice, ring_size(len(choice.outside)))


def families(world: World, service: Service) -> Iterator[tuple[int, list[Claim]]]:
    """The claims that are served, by service port and family."""
    found: dict[tuple[ServicePort, int], list[Claim]] = {}
    for claim in taken(world, service):
        found.setdefault((claim.port, claim.place.address.version), []).append(claim)
    for (_, version), claims in found.items():
        yield version, claims


def ranges(service: Service, version: int) -> tuple[Network, ...]:
    """Who may reach a load balancer's address of one family; none: everybody."""
    found = tuple(n for n in service.source_ranges if n.version == version)
    return () if any(network.prefixlen == 0 for network in found) else found


# --- The planner --------------------------------------------------------------------------------
def _rows(world: World, key: Hashable) -> Iterator[Row]:
    service = world.service(cast(Ref, key))
    if service is None or service.ref in beyond(world, service.ref.namespace):
        return
    for address in owned_addresses(world, service):
        yield _whole(address, FrontendFlag(0))
    for address in others_addresses(world, service):
        yield _whole(address, FrontendFlag.OTHER_PROXY)
    for version, claims in families(world, service):
        yield from _exposed(world, claims)
        if claims[0].port.protocol is Protocol.SCTP:
            continue
        served = serve(world, service, version, claims)
        for claim in claims:
            yield frontend_row(claim, frontend(world, service, served, claim))
        yield from slot_rows(served)
        yield from _ring(served)
        yield from backend_rows(served)
        yield from range_rows(service, served, claims)


def _whole(address: Address, flags: FrontendFlag) -> Row:
    """What `address` is where none of its ports is meant."""
    row = replace(_WHOLE_ADDRESS, flags=flags)
    return Row("frontends", FrontendKey(address, 0, 0).pack(), row.pack())


def _exposed(world: World, claims: Iterable[Claim]) -> Iterator[Row]:
    """Addresses from outside answer echoes; a node's own does so by itself."""
    for address in {claim.place.address for claim in claims if claim.origin in _EXPOSED}:
        if not any(world.nodes_at(address)):
            yield _whole(address, FrontendFlag.OPEN)


def range_rows(service: Service, served: Served, claims: Iterable[Claim]) -> Iterator[Row]:
    """Who may reach a load balancer's address that is among `claims`."""
    if any(claim.origin is Origin.LOAD_BALANCER for claim in claims):
        for network in ranges(service, served.version):
            yield Row("source_ranges", range_key(served.id, network), _ALLOWED)


def frontend_row(claim: Claim, row: Frontend) -> Row:
    """`row` at the place of `claim`."""
    place = claim.place
    key = FrontendKey(place.address, place.number, PROTOCOL_NUMBERS[place.protocol])
    return Row("frontends", key.pack(), row.pack())


def frontend(world: World, service: Service, served: Served, claim: Claim) -> Frontend:
    """What clients get at the place of `claim`."""
    choice = served.choice
    return Frontend(
        service=served.id,
        local_service=served.local_id,
        backends=len(choice.cluster or ()),
        local_backends=len(choice.local or ()),
        affinity_s=service.affinity_s,
        ring_size=served.ring_size,
        flags=_flags(world, service, served, claim),
    )


def _flags(world: World, service: Service, served: Served, claim: Claim) -> FrontendFlag:
    flags, local = FrontendFlag(0), service.internal_local
    if claim.is_external:
        flags, local = FrontendFlag.EXTERNAL, service.external_local
    if local:
        flags |= FrontendFlag.LOCAL_OUTSIDE if claim.is_external else FrontendFlag.LOCAL_INSIDE
        if served.choice.anywhere and not served.choice.local:
            flags |= FrontendFlag.ELSEWHERE
    if claim.origin is Origin.NODE_PORT:
        flags |= FrontendFlag.NODE_PORT
        if claim.place.address in LOOPBACKS:
            flags |= FrontendFlag.LOOPBACK
    if claim.origin is Origin.LOAD_BALANCER and (allowed := ranges(service, served.version)):
        flags |= FrontendFlag.RANGES
        if any(address in network for address in internal_ips(world) for network in allowed):
            flags |= FrontendFlag.NODE_IN_RANGES
    return flags


def slot_rows(served: Served) -> Iterator[Row]:
    """The endpoints that new flows go to, in the order of the choice."""
    yield from _slots(served.id, served.slots)
    yield from _slots(served.local_id, served.choice.local or ())


def _slots(service: int, targets: Iterable[Endpoint]) -> Iterator[Row]:
    for index, target in enumerate(targets):
        slot = Slot(target.id, target.address, target.port)
        yield Row("slots", SlotKey(service, index).pack(), slot.pack())


def _ring(served: Served) -> Iterator[Row]:
    """Whose a place is, all nodes agree on; in which slot that one is here, they do not."""
    if served.ring_size > 1:
        at_slot = {endpoint.id: index for index, endpoint in enumerate(served.slots)}
        members = tuple(endpoint.id for endpoint in served.choice.outside)
        slots = [at_slot[member] for member in members]
        places = [slots[index] for index in ring(members)]
        for chunk, at in enumerate(range(0, len(places), _RING_CHUNK)):
            some = tuple(places[at : at + _RING_CHUNK])
            row = Ring(some + (0,) * (_RING_CHUNK - len(some)))
            yield Row("rings", RingKey(served.id, chunk).pack(), row.pack())


def backend_rows(served: Served) -> Iterator[Row]:
    """The endpoints that live."""
    cluster = {endpoint.id for endpoint in served.choice.cluster or ()}
    local = {endpoint.id for endpoint in served.choice.local or ()}
    outside = {endpoint.id for endpoint in served.choice.outside}
    rows = {
        (chosen, here, beyond): Backend(
            served.id, chosen * _CHOSEN | here * _CHOSEN_LOCAL | beyond * _CHOSEN_OUTSIDE
        ).pack()
        for chosen, here, beyond in product((False, True), repeat=3)
    }
    for endpoint in served.every:
        # Ready without serving: publishNotReadyAddresses of a pod that is not ready.
        if endpoint.serving or endpoint.ready:
            row = rows[endpoint.id in cluster, endpoint.id in local, endpoint.id in outside]
            yield Row("backends", pack_u64(endpoint.id), row)


def range_key(service: int, network: Network) -> bytes:
    """`network` of one service as the key of an LPM table: IPv4 is counted from bit 96."""
    low, high = service & 0xFFFFFFFF, service >> 32
    return RangeKey(64 + prefix_bits(network), low, high, network.network_address).pack()


# --- What a change concerns ---------------------------------------------------------------------
def _keys(change: Change, before: World, after: World) -> Iterable[Hashable]:
    match change.kind:
        case Kind.SERVICE:
            rivals = (*rivals_of(change.before, before), *rivals_of(change.after, after))
            return {cast(Ref, change.key), *rivals, *moved(change, before, after)}
        case Kind.SLICE:
            named = {*_of_slice(change.before, after), *_of_slice(change.after, after)}
            return named.union(moved(change, before, after))
        case Kind.NODE:
            return {*_of_node(change, before, after)}
        case Kind.LINK if node_port_addresses(before) != node_port_addresses(after):
            return {*refs(after.exposed_services())}
    return ()


def _of_slice(record: Record | None, world: World) -> Iterator[Ref]:
    """Its Service; of the API server's also who would take its addresses."""
    if isinstance(record, EndpointSlice):
        yield from service_of(record)
        if API_SERVER in service_of(record):
            for endpoint in record.endpoints:
                yield from refs(world.services_exposed_at(endpoint.address))


def _of_node(change: Change, before: World, after: World) -> Iterator[Ref]:
    """All, where this node moved; else who claims an address that is, or was, the node's."""
    if before.own_node() != after.own_node():
        if standpoint(before) != standpoint(after):
            yield from cast(Iterable[Ref], after.table(Kind.SERVICE))
        elif internal_ips(before) != internal_ips(after):
            yield from refs(after.exposed_services())
    held, now = _held(change.before), _held(change.after)
    if held != now:
        for service in after.exposed_services():
            exposed = chain(service.external_ips, service.load_balancer_ips)
            if any(_is_held(address, held) or _is_held(address, now) for address in exposed):
                yield service.ref


def _held(record: Record | None) -> tuple[tuple[Address, ...], tuple[Network, ...]]:
    return (record.addresses, record.pod_cidrs) if isinstance(record, Node) else ((), ())


def _is_held(address: Address, by: tuple[tuple[Address, ...], tuple[Network, ...]]) -> bool:
    addresses, networks = by
    return address in addresses or any(address in network for network in networks)


def _all_keys(world: World) -> Mapping[Hashable, object]:
    return cast(Mapping[Hashable, object], world.table(Kind.SERVICE))


PLANNER = Planner("services", _keys, _rows, _all_keys)
