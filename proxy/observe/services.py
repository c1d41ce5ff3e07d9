"""Services and their endpoints, as the kernel serves them, and why not otherwise."""

from collections.abc import AsyncIterator, Iterable, Iterator, Set
from typing import NamedTuple

from weft.bpf.layout import Frontend, FrontendFlag, FrontendKey, Slot, SlotKey, pack_u64
from weft.proxy.api import weft_pb2 as pb
from weft.proxy.loop import View
from weft.proxy.model.objects import PROTOCOL_NUMBERS, Ref, Service, ServicePort, SliceEndpoint
from weft.proxy.model.world import World
from weft.proxy.observe.clients import client_of, outcomes_of
from weft.proxy.observe.reading import DONE, Reading, read
from weft.proxy.plan import services as planned
from weft.proxy.plan import services_sctp
from weft.proxy.plan.rows import Row
from weft.proxy.plan.services_choice import (
    Choice,
    Endpoint,
    Hints,
    endpoints,
    why_unused,
)
from weft.proxy.plan.services_frontends import LOOPBACKS, Claim, Place, claims, refusal, taken
from weft.proxy.plan.shares import beyond

_TABLES = ("frontends", "slots", "backends")
_NOT_SERVED = Choice(None, None, Hints.NONE, anywhere=False)


class _Family(NamedTuple):
    """One family of a service port as it is listed."""

    port: ServicePort
    every: tuple[Endpoint, ...]
    choice: Choice
    chosen: frozenset[int]
    """Backends that new flows go to in the kernel."""

    @property
    def wanted(self) -> frozenset[int]:
        """Those that they are to go to."""
        sets = self.choice.cluster or (), self.choice.local or ()
        return frozenset(endpoint.id for one in sets for endpoint in one)


async def list_services(view: View, request: pb.ListRequest) -> AsyncIterator[pb.Service]:
    """Services by name, each with what the kernel has of it. Raises UnknownClient."""
    wanted, client = _wanted(view.world, request), client_of(view.world, request)
    reading = await read(view, _TABLES, whole=not request.name)
    for service in wanted:
        message = _service(reading, service)
        message.outcomes.extend(outcomes_of(reading.world, service, client))
        yield message


async def list_endpoints(view: View, request: pb.ListRequest) -> AsyncIterator[pb.Endpoint]:
    """The endpoints of Services, `request.name` being a Service's."""
    wanted = _wanted(view.world, request)
    reading = await read(view, _TABLES, whole=not request.name)
    for service in wanted:
        for endpoint in _endpoints(reading, service):
            yield endpoint


def _wanted(world: World, request: pb.ListRequest) -> list[Service]:
    if request.name and request.namespace:
        found = world.service(Ref(request.namespace, request.name))
        return [found] if found else []
    return sorted(
        (
            service
            for service in world.services()
            if request.namespace in ("", service.ref.namespace)
            and request.name in ("", service.ref.name)
        ),
        key=lambda service: service.ref,
    )


# --- Services -----------------------------------------------------------------------------------
def _service(reading: Reading, service: Service) -> pb.Service:
    rows = list(_rows(reading.world, service.ref))
    asked = list(claims(reading.world, service))
    why = beyond(reading.world, service.ref.namespace).get(service.ref, "")
    served = set() if why else set(taken(reading.world, service))
    external = any(claim.is_external for claim in asked)
    return pb.Service(
        namespace=service.ref.namespace,
        name=service.ref.name,
        type=service.type,
        cluster_ips=[str(address) for address in service.cluster_ips],
        ports=[_port(reading, service, port, asked, served, rows) for port in service.ports],
        status=_not_served(why) if why else reading.status(rows),
        internal_traffic_policy=_policy(local=service.internal_local),
        external_traffic_policy=_policy(local=service.external_local) if external else "",
        affinity_s=service.affinity_s,
        traffic_distribution=service.traffic_distribution,
        source_ranges=map(str, service.source_ranges),
        publishes_not_ready=service.publishes_not_ready,
        health_check_node_port=service.health_check_node_port,
        broken=service.broken,
    )


def _not_served(why: str) -> pb.RowStatus:
    return pb.RowStatus(state=pb.RowStatus.ERROR, reason=f"not served: {why}")


def _why_not(world: World, ref: Ref, claim: Claim) -> str:
    return beyond(world, ref.namespace).get(ref) or refusal(world, ref, claim)


def _rows(world: World, ref: Ref) -> Iterator[Row]:
    for planner in (planned.PLANNER, services_sctp.PLANNER):
        yield from planner.rows(world, ref)


def _policy(*, local: bool) -> str:
    return "Local" if local else "Cluster"


def _port(
    reading: Reading,
    service: Service,
    port: ServicePort,
    asked: Iterable[Claim],
    served: Set[Claim],
    rows: Iterable[Row],
) -> pb.ServicePort:
    return pb.ServicePort(
        name=port.name,
        protocol=port.protocol,
        port=port.port,
        frontends=[
            _frontend(reading, service.ref, claim, rows, served=claim in served)
            for claim in asked
            if claim.port == port and claim.place.address not in LOOPBACKS
        ],
    )


def _frontend(
    reading: Reading, ref: Ref, claim: Claim, rows: Iterable[Row], *, served: bool
) -> pb.Frontend:
    place, key = claim.place, _key(claim.place)
    planned_rows = [row for row in rows if row.table == "frontends" and row.key == key]
    actual = reading.row("frontends", key) if served else None
    row = Frontend.unpack(actual) if actual else Frontend(0, 0, 0, 0, 0, 0, 0)
    inside = row.local_backends if row.flags & FrontendFlag.LOCAL_INSIDE else row.backends
    outside = row.local_backends if row.flags & FrontendFlag.LOCAL_OUTSIDE else row.backends
    return pb.Frontend(
        address=str(place.address),
        port=place.number,
        endpoints=inside,
        outside_endpoints=outside if row.flags & FrontendFlag.EXTERNAL else inside,
        status=reading.status(planned_rows) if served else DONE,
        origin=claim.origin.name.lower().replace("_", "-"),
        not_served="" if served else _why_not(reading.world, ref, claim),
    )


def _key(place: Place) -> bytes:
    return FrontendKey(place.address, place.number, PROTOCOL_NUMBERS[place.protocol]).pack()


# --- Endpoints ----------------------------------------------------------------------------------
def _endpoints(reading: Reading, service: Service) -> Iterator[pb.Endpoint]:
    slices = reading.world.slices_of(service.ref)
    said = {e.address: e for piece in slices for e in piece.endpoints}
    rows = {row.key: row for row in _rows(reading.world, service.ref)}
    for family in _families(reading, service):
        for endpoint in sorted(family.every, key=_place):
            message = _endpoint(
                reading.world, service, family.port, endpoint, said[endpoint.address]
            )
            message.chosen = endpoint.id in family.chosen
            at = planned.standpoint(reading.world)
            message.unused = why_unused(endpoint, family.choice, at)
            message.status.CopyFrom(_status(reading, family, endpoint, rows))
            yield message


def _families(reading: Reading, service: Service) -> Iterator[_Family]:
    """Those that are served, and of those that are not (headless) what there would be."""
    world, slices = reading.world, reading.world.slices_of(service.ref)
    served = {
        (claims[0].port, version): (planned.serve(world, service, version, claims), claims)
        for version, claims in planned.families(world, service)
    }
    versions = sorted({e.address.version for piece in slices for e in piece.endpoints})
    for port in service.ports:
        for version in versions:
            if found := served.get((port, version)):
                family, reached = found
                chosen = frozenset(_chosen(reading, reached))
                yield _Family(port, family.every, family.choice, chosen)
            else:
                identity = planned.service_id(service.ref, port, version)
                every = endpoints(identity, port, version, slices)
                yield _Family(port, every, _NOT_SERVED, frozenset())


def _chosen(reading: Reading, reached: Iterable[Claim]) -> Iterator[int]:
    """The backends that the kernel spreads new flows over, by any of a port's frontends."""
    counts: dict[int, int] = {}
    for claim in reached:
        if (actual := reading.row("frontends", _key(claim.place))) is not None:
            row = Frontend.unpack(actual)
            counts |= {row.service: row.backends, row.local_service: row.local_backends}
    for service, count in counts.items():
        for index in range(count):
            slot = reading.row("slots", SlotKey(service, index).pack())
            if slot is not None:
                yield Slot.unpack(slot).backend


def _place(endpoint: Endpoint) -> tuple[int, int]:
    return int(endpoint.address), endpoint.port


def _endpoint(
    world: World, service: Service, port: ServicePort, endpoint: Endpoint, said: SliceEndpoint
) -> pb.Endpoint:
    pod = next(iter(world.pods_at(endpoint.address)), None)
    target = said.target or (pod.ref if pod else None)
    return pb.Endpoint(
        namespace=service.ref.namespace,
        service=service.ref.name,
        port_name=port.name,
        protocol=port.protocol,
        address=str(endpoint.address),
        port=endpoint.port,
        pod=str(target) if target else "",
        node=said.node or (pod.node if pod else ""),
        zone=said.zone,
        ready=endpoint.ready,
        serving=endpoint.serving,
        terminating=endpoint.terminating,
    )


def _status(
    reading: Reading, family: _Family, endpoint: Endpoint, rows: dict[object, Row]
) -> pb.RowStatus:
    """A Service without an address (headless) has no rows to be late with."""
    alive = rows.get(pack_u64(endpoint.id))
    status = reading.status([alive] if alive else [])
    wanted, chosen = endpoint.id in family.wanted, endpoint.id in family.chosen
    if status.state == pb.RowStatus.DONE and chosen != wanted:
        said = "still gets" if chosen else "gets no"
        return pb.RowStatus(state=pb.RowStatus.PENDING, reason=f"{said} new flows in the kernel")
    return status
