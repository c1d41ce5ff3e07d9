"""Owns how another node's pods are reached in one family: by a tunnel, over a shared network, or
not by Weft.

Decided from both ends' InternalIPs alone, so that two nodes whose links say the same network decide
alike: each believes the other's pods only where it would send to them. Yields no rows of its own.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from weft.proxy.model.objects import Address, Kind, Link, Network, Node
from weft.proxy.model.world import Change, World
from weft.proxy.plan.node import underlay
from weft.proxy.plan.uplinks import is_uplink


@dataclass(frozen=True, slots=True)
class Tunnel:
    """Through the overlay, to the peer's address `end`."""

    end: Address


@dataclass(frozen=True, slots=True)
class Direct:
    """As they are, by `device`, to the peer's own address on that link."""

    next_hop: Address
    device: str
    ifindex: int


@dataclass(frozen=True, slots=True)
class Nowhere:
    """Not by Weft: the operator's network may still route them. `why` says it to a person."""

    why: str


Reach = Tunnel | Direct | Nowhere


@dataclass(frozen=True, slots=True)
class Segment:
    """A network on one of the node's uplinks with an InternalIP of the own node inside."""

    network: Network
    device: str
    ifindex: int


def reach(world: World, node: Node, version: int) -> Reach:
    """How `node`'s pods of one IP version are reached from here."""
    if world.settings.goes_direct and (direct := _direct(segments(world), node, version)):
        return direct
    if not world.settings.has_overlay:
        return Nowhere(_why(world, node, version))
    end = underlay(node, world.own_node())
    return Tunnel(end) if end is not None else Nowhere(f"{node.ref} has no InternalIP")


def segments(world: World) -> tuple[Segment, ...]:
    """The networks that the node shares with others, the best first: where its InternalIP is.

    The peer must find the InternalIP that is here on its own link: a network that holds another
    address of this node only would be one-way. A single address (/32, /128) is nobody's network,
    and a link without neighbours (WireGuard) picks the peer by addresses that it knows no pod's of.
    """
    global _known
    own, links = world.own_node(), world.table(Kind.LINK)
    if own is None:
        return ()
    known = _known
    if known is None or known.own is not own or known.links is not links:
        _known = known = _Known(own, links, tuple(_ranked(own, world.links())))
    return known.segments


class _Known(NamedTuple):
    """Remembered for what it was made from: every node and family asks for the same."""

    own: Node
    links: object
    segments: tuple[Segment, ...]


_known: _Known | None = None


def _ranked(own: Node, links: Iterable[Link]) -> Iterator[Segment]:
    found = [
        ((inside[0] not in link.addresses, -network.prefixlen, link.ifindex, link.name),
         Segment(network, link.name, link.ifindex))
        for link in links
        if is_uplink(link) and link.has_ethernet
        for network in _shared(link)
        if (inside := [a for a in own.addresses if a in network])
    ]  # fmt: skip
    return (segment for _, segment in sorted(found, key=lambda item: item[0]))


def reaches(world: World, node: Node) -> Iterator[tuple[int, Reach]]:
    """How `node`'s pods are reached, in each IP version that it has pods in."""
    for version in sorted({cidr.version for cidr in node.pod_cidrs}):
        yield version, reach(world, node, version)


def alters_every_reach(change: Change, before: World, after: World) -> bool:
    """Whether a change moves what the own node contributes to every reach."""
    if change.kind is Kind.LINK:
        return segments(before) != segments(after)
    if change.kind is not Kind.NODE or before.own_node() == after.own_node():
        return False
    return _own_part(before) != _own_part(after)


def _own_part(world: World) -> tuple[object, ...]:
    own = world.own_node()
    versions = {a.version for a in own.addresses} if own is not None else None
    return versions, segments(world)


def _shared(link: Link) -> Iterator[Network]:
    return (network for network in link.networks if network.prefixlen < network.max_prefixlen)


def _direct(shared: tuple[Segment, ...], node: Node, version: int) -> Direct | None:
    theirs = [a for a in node.addresses if a.version == version]
    return next(
        (
            Direct(address, segment.device, segment.ifindex)
            for segment in shared
            for address in theirs
            if address in segment.network
        ),
        None,
    )


def _why(world: World, node: Node, version: int) -> str:
    own = world.own_node()
    if own is None:
        return f"the Node object {world.settings.node} is not known yet"
    for one in (own, node):
        if not any(a.version == version for a in one.addresses):
            return f"{one.ref} has no IPv{version} InternalIP"
    theirs = next(a for a in node.addresses if a.version == version)
    return f"{theirs} and this node share no network, and mode {world.settings.mode} has no tunnel"
