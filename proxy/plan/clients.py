"""Owns what a client in the cluster, or outside of it, gets of a Service: for each address the
endpoints that its new flows go to, or why it gets none, and the address that they see.

Read off the rows that the client's node has, or would have, by the rules of the programs
(bpf/include/service.h, north.h). Another node's links are not known here: its node ports only at
its InternalIPs. Yields no rows of its own.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum

from weft.bpf.layout import (
    Frontend,
    FrontendFlag,
    FrontendKey,
    RangeKey,
    Slot,
    SlotKey,
)
from weft.proxy.model.objects import PROTOCOL_NUMBERS, Address, Kind, Node, Ref, Service
from weft.proxy.model.owners import owner
from weft.proxy.model.world import ClientAddress, World
from weft.proxy.plan import services
from weft.proxy.plan.node import gateway, pod_cidr
from weft.proxy.plan.reach import Direct, Tunnel, reach
from weft.proxy.plan.services_frontends import LOOPBACKS, Claim, taken


class Where(StrEnum):
    """Which of a node's programs a client's packets meet."""

    POD = "pod"
    NODE = "node"
    """The node's own processes, and pods on the host network."""
    OUTSIDE = "outside"
    """Beyond the cluster; what it sends comes in by the node."""


@dataclass(frozen=True, slots=True)
class Client:
    """addresses: a pod's own; of others nothing is known but the node."""

    where: Where
    node: str
    addresses: tuple[Address, ...] = ()


class Gets(StrEnum):
    ENDPOINTS = "endpoints"
    REFUSED = "refused"
    SILENCE = "silence"
    """Policy Local: endpoints elsewhere, none on the node."""
    NOT_IN_RANGES = "not-in-ranges"
    NOTHING = "nothing"
    """The address is for others: a loopback, or the node has no such row."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one address of a Service is to the client.

    endpoints: (address, port), in the order of the slots. only_from: of clients outside these
    alone; (): all.
    """

    claim: Claim
    gets: Gets
    endpoints: tuple[tuple[Address, int], ...] = ()
    only_from: tuple[str, ...] = ()


def client_at(world: World, name: str, namespace: str) -> Client | None:
    """Whom a person means: "outside" (by this node), a node, a pod (`namespace`/name); None: nobody
    of that name.
    """
    if name == Where.OUTSIDE:
        return Client(Where.OUTSIDE, world.settings.node)
    if world.node(name) is not None:
        return Client(Where.NODE, name)
    space, _, pod_name = name.rpartition("/")
    pod = world.pod(Ref(space or namespace or "default", pod_name))
    if pod is None:
        return None
    return Client(Where.NODE if pod.host_network else Where.POD, pod.node, pod.addresses)


def world_at(world: World, node: str) -> World:
    """`world` as the daemon on another node knows it, but for that node's links."""
    if node == world.settings.node:
        return world
    tables = world.tables
    if Kind.LINK in tables:
        tables = tables.delete(Kind.LINK)
    return replace(world, settings=replace(world.settings, node=node), tables=tables)


def outcomes(world: World, service: Service, client: Client) -> Iterator[Outcome]:
    """For every address that `service` has at the client's node."""
    there = world_at(world, client.node)
    rows = {(row.table, row.key): row.value for row in services.PLANNER.rows(there, service.ref)}
    for claim in taken(there, service):
        place = claim.place
        key = FrontendKey(place.address, place.number, PROTOCOL_NUMBERS[place.protocol]).pack()
        value = rows.get(("frontends", key))
        is_for_it = client.where is Where.NODE or place.address not in LOOPBACKS
        if is_for_it and isinstance(value, bytes):
            yield _outcome(rows, claim, Frontend.unpack(value), client)
        else:
            yield Outcome(claim, Gets.NOTHING)


def _outcome(
    rows: Mapping[tuple[str, object], object], claim: Claim, row: Frontend, client: Client
) -> Outcome:
    if row.flags & FrontendFlag.RANGES and not _may_come(rows, claim, row, client):
        return Outcome(claim, Gets.NOT_IN_RANGES)
    only_from = tuple(_ranges(rows, row)) if row.flags & FrontendFlag.RANGES else ()
    if client.where is not Where.OUTSIDE:
        only_from = ()
    local = FrontendFlag.LOCAL_INSIDE
    if client.where is Where.OUTSIDE:
        local |= FrontendFlag.LOCAL_OUTSIDE
    is_local = row.flags & local
    set_, count = (
        (row.local_service, row.local_backends) if is_local else (row.service, row.backends)
    )
    if not count:
        gets = Gets.SILENCE if row.flags & FrontendFlag.ELSEWHERE else Gets.REFUSED
        return Outcome(claim, gets, (), only_from)
    return Outcome(claim, Gets.ENDPOINTS, tuple(_slots(rows, set_, count)), only_from)


def _may_come(
    rows: Mapping[tuple[str, object], object], claim: Claim, row: Frontend, client: Client
) -> bool:
    """Of a client outside it is not known: the ranges are said."""
    if client.where is Where.OUTSIDE:
        return True
    if client.where is Where.NODE:
        return bool(row.flags & FrontendFlag.NODE_IN_RANGES)
    version = claim.place.address.version
    found = [a for a in client.addresses if a.version == version]
    return any(_covers(key, row.service, a) for key in _range_keys(rows) for a in found)


def _range_keys(rows: Mapping[tuple[str, object], object]) -> Iterator[RangeKey]:
    for table, key in rows:
        if table == "source_ranges" and isinstance(key, bytes):
            yield RangeKey.unpack(key)


def _covers(key: RangeKey, service: int, address: Address) -> bool:
    bits = key.prefix_len - 64
    if (key.service_low | key.service_high << 32) != service:
        return False
    return _mapped(key.addr) >> (128 - bits) == _mapped(address) >> (128 - bits)


def _mapped(address: Address) -> int:
    return int(address) | (0xFFFF << 32 if address.version == 4 else 0)


def _ranges(rows: Mapping[tuple[str, object], object], row: Frontend) -> Iterator[str]:
    for key in _range_keys(rows):
        if (key.service_low | key.service_high << 32) == row.service:
            bits = key.prefix_len - 64
            yield f"{key.addr}/{bits - 96 if key.addr.version == 4 else bits}"


def _slots(
    rows: Mapping[tuple[str, object], object], service: int, count: int
) -> Iterator[tuple[Address, int]]:
    for index in range(count):
        value = rows[("slots", SlotKey(service, index).pack())]
        if isinstance(value, bytes):
            slot = Slot.unpack(value)
            yield slot.addr, slot.port


# --- Whom the endpoint sees ---------------------------------------------------------------------
OWN = "the client's own"


def seen_as(world: World, service: Service, client: Client, claim: Claim, endpoint: Address) -> str:
    """The source address that reaches `endpoint`, to a person (ARCHITECTURE, table of paths)."""
    there = world_at(world, client.node)
    own, version = there.own_node(), endpoint.version
    if endpoint in client.addresses:
        return f"node {client.node}'s {gateway(pod_cidr(own, version))}: the client is the endpoint"
    if _is_masked(world, service, client, claim):
        return _node(own, version)
    host = next(iter(world.nodes_at(endpoint)), None)
    home = owner(world, endpoint)
    is_here = client.node in (one.ref.name for one in (host, home) if one is not None)
    if client.where is Where.POD:
        masked = home is None and not is_here and _is_masqueraded(world, endpoint)
        return _node(own, version) if masked else OWN
    if client.where is Where.OUTSIDE:
        is_kept = is_here or (home is not None and isinstance(reach(there, home, version), Tunnel))
        return OWN if is_kept else _node(own, version)
    if home is None or is_here:
        return _node(own, version)
    match reach(there, home, version):
        case Tunnel() if client.node == world.settings.node:
            return f"node {client.node}'s {gateway(pod_cidr(own, version))}"
        case Direct():
            return _node(own, version)
    return f"node {client.node}'s"


def _is_masked(world: World, service: Service, client: Client, claim: Claim) -> bool:
    """Setting client-address: whether kube-proxy would masquerade it."""
    if world.settings.client_address is not ClientAddress.MASQUERADE:
        return False
    if claim.is_external and service.external_local:
        return False
    return client.where is Where.OUTSIDE or (client.where is Where.POD and claim.is_external)


def _is_masqueraded(world: World, endpoint: Address) -> bool:
    spared = any(endpoint in network for network in world.settings.never_masquerade)
    return world.settings.masquerade and not spared


def _node(node: Node | None, version: int) -> str:
    if node is None:
        return "its node's"
    found = next((a for a in node.addresses if a.version == version), None)
    return f"node {node.ref.name}'s {found}" if found else f"node {node.ref.name}'s"
