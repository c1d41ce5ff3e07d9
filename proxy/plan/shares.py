"""Owns how much of the Services' tables one namespace may take, and which Services go beyond it.

A tenant who makes endless Services, or one of endless endpoints, must not take the rows of others.
What a Service costs is counted from its record and its slices alone, never less than its rows at a
node's InternalIPs and loopback. Where all of a namespace would not fit, its Services are admitted
whole, the oldest first; one that does not fit makes no room for what comes after it unless that is
smaller. `advanced` remembers its answers; what is remembered is a function of World, so forgetting
costs time only. Pure otherwise.
"""

from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from typing import NamedTuple

from immutables import Map

from weft.bpf.layout import TABLES, Ring
from weft.proxy.model.index import service_of
from weft.proxy.model.objects import EndpointSlice, Kind, Record, Ref, Service
from weft.proxy.model.world import Change, Settings, World
from weft.proxy.plan.maglev import ring_size
from weft.proxy.plan.services_frontends import ports

FLOOR_ROWS = 1024
"""Of a small table a namespace may take so many, whatever its share."""

_NODE_PORT_PLACES = 2
_RING_CHUNK = Ring.SIZE // 2
_KEPT = 8


class Cost(NamedTuple):
    """Rows by table; the names are the tables'."""

    frontends: int = 0
    slots: int = 0
    backends: int = 0
    rings: int = 0
    source_ranges: int = 0

    def plus(self, other: "Cost") -> "Cost":
        return Cost(*(a + b for a, b in zip(self, other, strict=True)))

    def minus(self, other: "Cost") -> "Cost":
        return Cost(*(a - b for a, b in zip(self, other, strict=True)))


NOTHING = Cost()


class Tenant(NamedTuple):
    """One namespace: what its Services cost, together and each, and those that are not served."""

    costs: Map[Ref, Cost] = Map()
    total: Cost = NOTHING
    beyond: Map[Ref, str] = Map()


Census = Map[str, Tenant]
"""Every namespace that has Services."""


def beyond(world: World, namespace: str) -> Mapping[Ref, str]:
    """The Services of `namespace` that are beyond its share, with the reason, to a person."""
    tenant = _census_of(world).get(namespace)
    return tenant.beyond if tenant is not None else {}


def every_beyond(world: World) -> Iterator[tuple[Ref, str]]:
    """Those of all namespaces."""
    for tenant in _census_of(world).values():
        yield from tenant.beyond.items()


def moved(change: Change, before: World, after: World) -> Iterator[Ref]:
    """The Services that `change` admits, or puts beyond the share of their namespace."""
    if change.kind in (Kind.SERVICE, Kind.SLICE):
        was, now = _census_of(before), _advanced(change, before, after)
        for namespace in _namespaces(change):
            held, holds = was.get(namespace, Tenant()).beyond, now.get(namespace, Tenant()).beyond
            if held is not holds:
                yield from set(held) ^ set(holds)


# --- What a Service costs -----------------------------------------------------------------------
def cost_of(service: Service, slices: Iterable[EndpointSlice]) -> Cost:
    """The rows that one Service may have, of both families; one for each address as such."""
    total = Cost(frontends=len(service.cluster_ips))
    if service.proxied:
        pieces = tuple(slices)
        for version in {address.version for address in service.cluster_ips}:
            total = total.plus(_family_cost(service, pieces, version))
    return _same(total)


def _family_cost(service: Service, slices: Iterable[EndpointSlice], version: int) -> Cost:
    exposed = {*service.load_balancer_ips, *service.external_ips}
    outside = sum(address.version == version for address in exposed)
    places = outside + sum(address.version == version for address in service.cluster_ips)
    sets = 1 + (service.internal_local or service.external_local)
    ranged = sum(network.version == version for network in service.source_ranges)
    total = Cost(frontends=outside)
    for port in ports(service):
        behind = sum(
            _alive(piece, version)
            for piece in slices
            for said in piece.ports
            if said.name == port.name and said.protocol is port.protocol
        )
        is_external = outside or port.node_port
        row = Cost(
            frontends=places + (_NODE_PORT_PLACES if port.node_port else 0),
            slots=behind * sets,
            backends=behind,
            rings=-(-ring_size(behind) // _RING_CHUNK) if is_external and behind > 1 else 0,
            source_ranges=ranged if service.load_balancer_ips else 0,
        )
        total = total.plus(row)
    return total


def _alive(piece: EndpointSlice, version: int) -> int:
    return sum(e.address.version == version and (e.serving or e.ready) for e in piece.endpoints)


@lru_cache(maxsize=4096)
def _same(cost: Cost) -> Cost:
    """Most Services cost what others do: kept once."""
    return cost


# --- Who is admitted ----------------------------------------------------------------------------
def limits(settings: Settings) -> Cost:
    """What one namespace may take of each table."""
    return Cost(*(_limit(settings, table) for table in Cost._fields))


def _limit(settings: Settings, table: str) -> int:
    entries = settings.table_sizes.get(table, TABLES[table].entries)
    return max(entries * settings.namespace_share // 100, min(entries, FLOOR_ROWS))


def _judged(world: World, namespace: str, costs: Map[Ref, Cost], total: Cost) -> Tenant:
    most = limits(world.settings)
    if _fits(total, most):
        return Tenant(costs, total)
    taken, found = NOTHING, {}
    for ref in sorted(costs, key=lambda ref: _age(world, ref)):
        would = taken.plus(costs[ref])
        if _fits(would, most):
            taken = would
        else:
            found[ref] = _why(namespace, would, most)
    return Tenant(costs, total, Map(found))


def _age(world: World, ref: Ref) -> tuple[int, Ref]:
    service = world.service(ref)
    return (service.created_ns if service is not None else 0), ref


def _fits(cost: Cost, most: Cost) -> bool:
    return all(rows <= limit for rows, limit in zip(cost, most, strict=True))


def _why(namespace: str, would: Cost, most: Cost) -> str:
    table, rows, limit = next(
        one for one in zip(Cost._fields, would, most, strict=True) if one[1] > one[2]
    )
    return (
        f"beyond the share of namespace {namespace}: with it {rows:,} rows of {table}, of which a "
        f"namespace may have {limit:,} (settings namespace-share, table-sizes)"
    )


# --- From World to World ------------------------------------------------------------------------
class _Entry(NamedTuple):
    services: object
    slices: object
    settings: Settings
    census: Census


_entries: tuple[_Entry, ...] = ()


def _census_of(world: World) -> Census:
    """That of a World: remembered, else made from nothing."""
    found = _remembered(world)
    return found if found is not None else _remember(world, _afresh(world))


def _advanced(change: Change, before: World, after: World) -> Census:
    found = _remembered(after)
    if found is not None:
        return found
    census = _census_of(before)
    for ref in _concerned(change):
        census = _moved(census, after, ref)
    return _remember(after, census)


def _moved(census: Census, world: World, ref: Ref) -> Census:
    """The census once `ref`, or what is behind it, has become what `world` says."""
    held = census.get(ref.namespace, Tenant())
    service, costs, total = world.service(ref), held.costs, held.total
    if (was := costs.get(ref)) is not None:
        costs, total = costs.delete(ref), total.minus(was)
    if service is not None:
        now = cost_of(service, world.slices_of(ref))
        costs, total = costs.set(ref, now), total.plus(now)
    if not costs:
        return census.delete(ref.namespace) if ref.namespace in census else census
    return census.set(ref.namespace, _judged(world, ref.namespace, costs, total))


def _afresh(world: World) -> Census:
    costs: dict[str, dict[Ref, Cost]] = {}
    for service in world.services():
        of = costs.setdefault(service.ref.namespace, {})
        of[service.ref] = cost_of(service, world.slices_of(service.ref))
    tenants = {}
    for namespace, of in costs.items():
        total = Cost(*map(sum, zip(*of.values(), strict=True)))
        tenants[namespace] = _judged(world, namespace, Map(of), total)
    return Map(tenants)


def _concerned(change: Change) -> Iterator[Ref]:
    for record in (change.before, change.after):
        yield from _service(record)


def _service(record: Record | None) -> tuple[Ref, ...]:
    if isinstance(record, Service):
        return (record.ref,)
    return service_of(record) if isinstance(record, EndpointSlice) else ()


def _namespaces(change: Change) -> set[str]:
    return {ref.namespace for ref in _concerned(change)}


def _remembered(world: World) -> Census | None:
    parts = world.tables.get(Kind.SERVICE), world.tables.get(Kind.SLICE)
    for entry in _entries:
        if (entry.services is parts[0] and entry.slices is parts[1]) and (
            entry.settings is world.settings
        ):
            return entry.census
    return None


def _remember(world: World, census: Census) -> Census:
    global _entries
    parts = world.tables.get(Kind.SERVICE), world.tables.get(Kind.SLICE)
    _entries = (_Entry(*parts, world.settings, census), *_entries[: _KEPT - 1])
    return census
