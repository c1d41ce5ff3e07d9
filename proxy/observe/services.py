"""Services and their endpoints, as the kernel serves them."""

from collections.abc import AsyncIterator, Iterable, Iterator

from weft.bpf.layout import Backend, Frontend, FrontendKey, Slot, SlotKey, pack_u64
from weft.proxy.api import weft_pb2 as pb
from weft.proxy.loop import View
from weft.proxy.model.objects import (
    PROTOCOL_NUMBERS,
    Address,
    Ref,
    Service,
    ServicePort,
    SliceEndpoint,
)
from weft.proxy.model.world import World
from weft.proxy.observe.reading import DONE, Reading, read
from weft.proxy.plan import services as planned
from weft.proxy.plan.rows import Row

_TABLES = ("frontends", "slots", "backends")


async def list_services(view: View, request: pb.ListRequest) -> AsyncIterator[pb.Service]:
    """Services by name, each with what the kernel has of it."""
    wanted = _wanted(view.world, request)
    reading = await read(view, _TABLES, whole=not request.name)
    for service in wanted:
        yield _service(reading, service)


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


def _service(reading: Reading, service: Service) -> pb.Service:
    rows = list(planned.PLANNER.rows(reading.world, service.ref))
    return pb.Service(
        namespace=service.ref.namespace,
        name=service.ref.name,
        type=service.type,
        cluster_ips=[str(address) for address in service.cluster_ips],
        ports=[_port(reading, service, port, rows) for port in service.ports],
        status=reading.status(rows),
    )


def _port(
    reading: Reading, service: Service, port: ServicePort, rows: Iterable[Row]
) -> pb.ServicePort:
    frontends = (_frontend(reading, address, port, rows) for address in service.cluster_ips)
    return pb.ServicePort(
        name=port.name,
        protocol=port.protocol,
        port=port.port,
        frontends=[frontend for frontend in frontends if frontend is not None],
    )


def _frontend(
    reading: Reading, address: Address, port: ServicePort, rows: Iterable[Row]
) -> pb.Frontend | None:
    """None where neither the plan nor the kernel has such a frontend (SCTP, another's address)."""
    key = _key(address, port)
    planned_rows = [row for row in rows if row.table == "frontends" and row.key == key]
    actual = reading.row("frontends", key)
    if actual is None and not planned_rows:
        return None
    return pb.Frontend(
        address=str(address),
        port=port.port,
        endpoints=Frontend.unpack(actual).backends if actual else 0,
        status=reading.status(planned_rows),
    )


def _key(address: Address, port: ServicePort) -> bytes:
    return FrontendKey(address, port.port, PROTOCOL_NUMBERS[port.protocol]).pack()


def _endpoints(reading: Reading, service: Service) -> Iterator[pb.Endpoint]:
    slices = reading.world.slices_of(service.ref)
    said = {e.address: e for piece in slices for e in piece.endpoints}
    served = {a.version for a in planned.owned_addresses(reading.world, service)}
    versions = sorted({address.version for address in said})
    for port in service.ports:
        for version in versions:
            identity = planned.service_id(service.ref, port, version)
            every = planned.endpoints(identity, port, version, slices)
            chosen = set(_chosen(reading, service, port, version))
            wanted = {endpoint.id for endpoint in planned.chosen(every)}
            for endpoint in sorted(every, key=_place):
                message = _endpoint(reading.world, service, port, endpoint, said[endpoint.address])
                message.chosen = endpoint.id in chosen
                # A Service without an address (headless) has no rows to be late with.
                late = version in served
                status = _status(reading, identity, endpoint, chosen, wanted) if late else DONE
                message.status.CopyFrom(status)
                yield message


def _chosen(reading: Reading, service: Service, port: ServicePort, version: int) -> Iterator[int]:
    """The backends that the kernel spreads new flows of one family over."""
    for address in (a for a in service.cluster_ips if a.version == version):
        row = reading.row("frontends", _key(address, port))
        frontend = Frontend.unpack(row) if row else Frontend(0, 0, 0)
        for index in range(frontend.backends):
            slot = reading.row("slots", SlotKey(frontend.service, index).pack())
            if slot is not None:
                yield Slot.unpack(slot).backend


def _place(endpoint: planned.Endpoint) -> tuple[int, int]:
    return int(endpoint.address), endpoint.port


def _endpoint(
    world: World,
    service: Service,
    port: ServicePort,
    endpoint: planned.Endpoint,
    said: SliceEndpoint,
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
        ready=endpoint.ready,
        serving=endpoint.serving,
        terminating=endpoint.terminating,
    )


def _status(
    reading: Reading, service: int, endpoint: planned.Endpoint, chosen: set[int], wanted: set[int]
) -> pb.RowStatus:
    alive = Row("backends", pack_u64(endpoint.id), Backend(service).pack())
    status = reading.status([alive] if endpoint.ready or endpoint.serving else [])
    if status.state == pb.RowStatus.DONE and (endpoint.id in chosen) != (endpoint.id in wanted):
        said = "still gets" if endpoint.id in chosen else "gets no"
        return pb.RowStatus(state=pb.RowStatus.PENDING, reason=f"{said} new flows in the kernel")
    return status
