"""Owns what a Service's SCTP ports are: netfilter's rules for them, and the frontends that tell the
programs to leave them to it.

No program can mend SCTP's checksum. The choice of endpoints and of addresses is that of every
other protocol (services); a client keeps its address wherever the answer comes back by this node.
Without an SCTP Service there is nothing: netfilter's connection tracking costs all that the stack
carries.
"""

from collections.abc import Hashable, Iterable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import replace
from ipaddress import ip_address
from typing import cast

from weft.bpf.layout import Frontend, FrontendFlag
from weft.bpf.layout import Mark as MarkValue
from weft.proxy.model.objects import Address, Kind, Link, Protocol, Ref, Service
from weft.proxy.model.world import Change, World
from weft.proxy.plan import services
from weft.proxy.plan.nft import (
    TABLE,
    Act,
    Base,
    Chain,
    ChainKey,
    Field,
    Hook,
    In,
    Is,
    Mark,
    Masquerade,
    Member,
    OneIn,
    Refuse,
    Remember,
    Rule,
    Set,
    SetKey,
    Shape,
    Step,
    Translate,
    Verdict,
    Within,
)
from weft.proxy.plan.node import gateway, internal_ips, pod_cidr
from weft.proxy.plan.rows import Planner, Row
from weft.proxy.plan.services import Served
from weft.proxy.plan.services_choice import Endpoint
from weft.proxy.plan.services_frontends import LOOPBACKS, Claim, owned_addresses
from weft.proxy.plan.shares import beyond

_SCTP = 132
_FAMILY = {4: 2, 6: 10}
_LINKS = "weft"
"""What the names of pods' links, the bridge and the overlay begin with."""
_MASKS = {4: ip_address("169.254.1.1"), 6: ip_address("fe80::1")}
"""A hairpin's source where the node has no address in the pods' range."""
_PLACE = (Field.DESTINATION, Field.PORT)
_LOCAL = FrontendFlag.LOCAL_INSIDE | FrontendFlag.LOCAL_OUTSIDE
_REFUSE, _DROP = "refuse", Verdict(Act.DROP)


# --- What holds for all Services: hooks, and the maps that they ask ------------------------------
def _base(world: World) -> Iterator[Row]:
    yield from _chain("prerouting", _prerouting(), Base(Hook.PREROUTING, -100, translates=True))
    yield from _chain("output", _output(), Base(Hook.OUTPUT, -100, translates=True))
    postrouting = Base(Hook.POSTROUTING, 100, translates=True)
    yield from _chain("postrouting", _postrouting(world), postrouting)
    yield from _chain("marks", _marks(world), Base(Hook.POSTROUTING, 150, translates=False))
    yield from _chain(_REFUSE, [(Refuse(),)])
    for version in (4, 6):
        for name in ("pods", "node", "outside"):
            yield Row(TABLE, SetKey(f"{name}{version}"), Set(Shape.PLACE, version, is_map=True))
        yield Row(TABLE, SetKey(f"frontends{version}"), Set(Shape.PLACE, version))
        yield Row(TABLE, SetKey(f"itself{version}"), Set(Shape.PAIR, version))
        yield Row(TABLE, SetKey(f"owned{version}"), Set(Shape.ADDRESS, version))


def _chain(name: str, rules: Iterable[Rule], base: Base | None = None) -> Iterator[Row]:
    yield Row(TABLE, ChainKey(name), Chain(tuple(rules), base))


def _sctp(version: int) -> tuple[Step, ...]:
    return Is(Field.PROTOCOL, _SCTP), Is(Field.FAMILY, _FAMILY[version])


def _asks(name: str, version: int) -> In:
    return In(_PLACE, f"{name}{version}", is_map=True, version=version)


def _prerouting() -> Iterator[Rule]:
    from_pod = Is(Field.IN_LINK, _LINKS)
    for version in (4, 6):
        yield (*_sctp(version), from_pod, _asks("pods", version))
    yield from_pod, Verdict(Act.RETURN)
    for version in (4, 6):
        yield (*_sctp(version), _asks("outside", version))


def _output() -> Iterator[Rule]:
    for version in (4, 6):
        yield (*_sctp(version), _asks("node", version))
        owned = In((Field.DESTINATION,), f"owned{version}", version=version)
        yield (*_sctp(version), owned, Verdict(Act.JUMP, _REFUSE))


def _postrouting(world: World) -> Iterator[Rule]:
    """Whose source is not kept: a pod's that reaches itself; and where the answer would not come
    back by this node, that of clients outside. A pod's is to_uplink's to masquerade, and what
    leaves by the overlay to_overlay's.
    """
    for version in (4, 6):
        itself = In((Field.SOURCE, Field.DESTINATION), f"itself{version}", version=version)
        mask = Translate(_mask(world, version), source=True)
        yield (*_sctp(version), itself, mask)
    yield Is(Field.OUT_LINK, _LINKS), Verdict(Act.RETURN)
    for version in (4, 6):
        own = pod_cidr(world.own_node(), version)
        if own is not None:
            yield (*_sctp(version), Within(own), Verdict(Act.RETURN))
        dialled = (Field.DIALLED, Field.DIALLED_PORT)
        ours = In(dialled, f"frontends{version}", version=version)
        yield (*_sctp(version), ours, Masquerade())


def _marks(world: World) -> Iterator[Rule]:
    """A hairpin: the program at the pod's link knows it by nothing else."""
    for version in (4, 6):
        masked = Is(Field.SOURCE, _mask(world, version))
        itself = In((Field.DIALLING, Field.DESTINATION), f"itself{version}", version=version)
        yield (*_sctp(version), masked, itself, Mark(MarkValue.HAIRPIN))


def _mask(world: World, version: int) -> Address:
    return gateway(pod_cidr(world.own_node(), version)) or _MASKS[version]


# --- One Service --------------------------------------------------------------------------------
def _rows(world: World, key: Hashable) -> Iterator[Row]:
    service = world.service(cast(Ref, key))
    if service is None or not _has_sctp(service):
        return
    if service.ref in beyond(world, service.ref.namespace):
        return
    families = [*_families(world, service)]
    if families:
        yield from _base(world)
        for address in owned_addresses(world, service):
            yield Row(TABLE, Member(f"owned{address.version}", (address,)), True)
    own = _own_addresses(world)
    for version, claims in families:
        served = _own_first(services.serve(world, service, version, claims), own)
        yield from _endpoints(world, service, served)
        for claim in claims:
            yield from _frontend(world, service, served, claim, own)
        yield from services.slot_rows(served)
        yield from services.backend_rows(served)
        yield from services.range_rows(service, served, claims)


def _families(world: World, service: Service) -> Iterator[tuple[int, list[Claim]]]:
    """As services.families. What the node dials at its loopback has no way to an endpoint."""
    for version, claims in services.families(world, service):
        reached = [claim for claim in claims if claim.place.address not in LOOPBACKS]
        if reached and reached[0].port.protocol is Protocol.SCTP:
            yield version, reached


def _has_sctp(service: Service | None) -> bool:
    ports = service.ports if service is not None else ()
    return any(port.protocol is Protocol.SCTP for port in ports)


def _frontend(
    world: World, service: Service, served: Served, claim: Claim, own: AbstractSet[Address]
) -> Iterator[Row]:
    row = services.frontend(world, service, served, claim)
    inside = served.choice.local if row.flags & FrontendFlag.LOCAL_INSIDE else served.choice.cluster
    ours = sum(endpoint.address in own for endpoint in inside or ())
    row = replace(row, ring_size=ours, flags=row.flags | FrontendFlag.STACK)
    yield services.frontend_row(claim, row)
    values = claim.place.address, claim.place.number
    version = served.version
    yield Row(TABLE, Member(f"frontends{version}", values), True)
    local, every = _spread_over(served, local=True), _spread_over(served, local=False)
    pods = local if row.flags & FrontendFlag.LOCAL_INSIDE else every
    others = local if row.flags & _LOCAL else every
    if pods:
        yield Row(TABLE, Member(f"pods{version}", values), pods)
    if others:
        yield Row(TABLE, Member(f"outside{version}", values), others)
    yield Row(TABLE, Member(f"node{version}", values), _for_node(row, pods))


def _spread_over(served: Served, *, local: bool) -> Verdict | None:
    some = served.choice.local if local else served.choice.cluster
    return Verdict(Act.JUMP, _name(served, local=local)) if some else None


def _name(served: Served, *, local: bool) -> str:
    return f"{'local' if local else 'all'}-{served.id:016x}"


def _for_node(row: Frontend, served: Verdict | None) -> Verdict:
    """No program sees what the node itself sends before netfilter does."""
    if row.flags & FrontendFlag.RANGES and not row.flags & FrontendFlag.NODE_IN_RANGES:
        return _DROP
    if served:
        return served
    return _DROP if row.flags & FrontendFlag.ELSEWHERE else Verdict(Act.JUMP, _REFUSE)


def _endpoints(world: World, service: Service, served: Served) -> Iterator[Row]:
    version = served.version
    pods = pod_cidr(world.own_node(), version)
    for local, some in ((False, served.choice.cluster), (True, served.choice.local)):
        if some:
            rules = _spread(some, version, service.affinity_s)
            yield from _chain(_name(served, local=local), rules)
        for endpoint in some or ():
            if pods and endpoint.address in pods:
                pair = endpoint.address, endpoint.address
                yield Row(TABLE, Member(f"itself{version}", pair), True)
            if service.affinity_s:
                clients = Set(Shape.ADDRESS, version, timeout_s=service.affinity_s)
                yield Row(TABLE, SetKey(_clients(endpoint, service.affinity_s)), clients)


def _spread(some: Sequence[Endpoint], version: int, affinity_s: int) -> Iterator[Rule]:
    """The endpoint that the client had, else one by chance: each of those that are left has the
    same chance.
    """
    if affinity_s:
        for endpoint in some:
            known = In((Field.SOURCE,), _clients(endpoint, affinity_s), version=version)
            yield known, *_to(endpoint, version, affinity_s)
    for at, endpoint in enumerate(some):
        left = len(some) - at
        chance = (OneIn(left),) if left > 1 else ()
        yield *chance, *_to(endpoint, version, affinity_s)


def _to(endpoint: Endpoint, version: int, affinity_s: int) -> tuple[Step, ...]:
    there = Translate(endpoint.address, endpoint.port)
    return (Remember(_clients(endpoint, affinity_s), version), there) if affinity_s else (there,)


def _clients(endpoint: Endpoint, affinity_s: int) -> str:
    """The set of an endpoint's clients: of another time it is another set, which no rule asks yet,
    since one that is asked cannot be altered.
    """
    return f"clients-{endpoint.id:016x}-{affinity_s}"


# --- Endpoints that are this node's own ---------------------------------------------------------
def _own_first(served: Served, own: AbstractSet[Address]) -> Served:
    """Its endpoints with this node's own before the others: what goes to the node itself no program
    sees after netfilter, so from_pod judges by these first slots.
    """
    cluster, local = (
        some and tuple(sorted(some, key=lambda endpoint: endpoint.address not in own))
        for some in (served.choice.cluster, served.choice.local)
    )
    choice = replace(served.choice, cluster=cluster, local=local, outside=())
    return served._replace(choice=choice)


def _own_addresses(world: World) -> set[Address]:
    held = {address for link in world.links() for address in link.addresses}
    gateways = (gateway(pod_cidr(world.own_node(), version)) for version in (4, 6))
    return held.union(internal_ips(world), filter(None, gateways))


# --- What a change concerns ---------------------------------------------------------------------
def _keys(change: Change, before: World, after: World) -> Iterable[Hashable]:
    if _moves_node(change, before, after):
        return {*_all_keys(before), *_all_keys(after)}
    touched = cast(Iterable[Ref], services.PLANNER.keys(change, before, after))
    return {
        ref for ref in touched if any(map(_has_sctp, (before.service(ref), after.service(ref))))
    }


def _moves_node(change: Change, before: World, after: World) -> bool:
    """Whether the node's own addresses are others, or its pods'."""
    if change.kind is Kind.NODE:
        return before.own_node() != after.own_node()
    if change.kind is not Kind.LINK:
        return False
    was, now = (
        record.addresses if isinstance(record, Link) else ()
        for record in (change.before, change.after)
    )
    return was != now


def _all_keys(world: World) -> Iterable[Hashable]:
    return [service.ref for service in world.services() if _has_sctp(service)]


PLANNER = Planner("services_sctp", _keys, _rows, _all_keys)
