"""Owns the limits of single tunnels: of those that lead by a link narrower than the node's own.

Asked by other planners and by who watches path MTUs; yields no rows of its own.
"""

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import NamedTuple, cast

from immutables import Map

from weft.proxy.model.objects import Address, Kind, Network, Node, PathMtu, Record
from weft.proxy.model.world import Change, Key, World
from weft.proxy.plan.mtu import (
    VXLAN_BYTES,
    alters_tunnels,
    between_mtu_bytes,
    link_mtu_bytes,
    overlay_mtu_bytes,
)
from weft.proxy.plan.node import NEVER_UPLINKS
from weft.proxy.plan.reach import Tunnel, reaches
from weft.proxy.plan.uplinks import is_uplink

# What no sender needs to go below: RFC 791 3.1, RFC 8200 5.
_LEAST_BYTES = {4: 576, 6: 1280}


def tunnel_mtu_bytes(world: World, end: Address, version: int) -> int:
    """The longest packet of one IP version through the tunnel to `end`; 0: what the overlay's link
    carries.
    """
    learned = world.path_mtu(end)
    if learned is None:
        return 0
    fits = max(learned.mtu_bytes - VXLAN_BYTES[end.version], _LEAST_BYTES[version])
    return fits if fits < overlay_mtu_bytes(world) else 0


def end_mtu_bytes(world: World, end: Address) -> int:
    """The longest packet through a tunnel to a node's address, whatever the overlay's link carries:
    clients from outside are brought through such to nodes that pods reach without; 0: no overlay.
    """
    if not world.settings.has_overlay:
        return 0
    learned, carries = world.path_mtu(end), between_mtu_bytes(world, end.version)
    if learned is not None:
        carries = min(carries, learned.mtu_bytes)
    return max(carries - VXLAN_BYTES[end.version], _LEAST_BYTES[4])


def alters_every_end(change: Change, before: World, after: World) -> bool:
    """Whether a change moves what this node's links carry to every end."""
    if not after.settings.has_overlay or not _is_own(change, before, after):
        return False
    return any(between_mtu_bytes(before, v) != between_mtu_bytes(after, v) for v in (4, 6))


def resized(change: Change, before: World, after: World) -> set[Network]:
    """The podCIDRs whose tunnels' limits a change may alter, but for news of their own node."""
    if change.kind is Kind.PATH_MTU:
        learned = {r for r in (change.before, change.after) if isinstance(r, PathMtu)}
    else:
        learned = set(after.path_mtus())
        if not learned or not _alters_overlay(change, before, after):
            return set()
    nodes = (node for one in learned for node in after.nodes_at(one.end))
    return {cidr for node in nodes for cidr in node.pod_cidrs}


def _alters_overlay(change: Change, before: World, after: World) -> bool:
    """Whether the overlay's own size may move."""
    return _is_own(change, before, after) or alters_tunnels(change, before, after)


def _is_own(change: Change, before: World, after: World) -> bool:
    """Whether it is news of this node's links or addresses."""
    if change.kind is Kind.LINK:
        return change.key not in NEVER_UPLINKS
    return change.kind is Kind.NODE and before.own_node() != after.own_node()


def routed_ends(world: World) -> Mapping[Address, int]:
    """The tunnel ends that a router is on the way to, with what the link towards them carries.

    The same mapping until it changes. Empty where the operator has named the paths' size.
    """
    global _known
    known, nodes = _known, world.table(Kind.NODE)
    made_of = (world.own_node(), world.table(Kind.LINK), world.settings)
    if known is None or any(a is not b for a, b in zip(known.made_of, made_of, strict=True)):
        known = _Known(made_of, Map(), {}, MappingProxyType({}))
    if known.nodes is not nodes:
        known = _next(world, known, nodes)
    _known = known
    return known.ends


class _Known(NamedTuple):
    """Remembered for what it was made from: it is asked for every second, and there may be
    thousands of nodes, of which one changes.
    """

    made_of: tuple[object, object, object]
    nodes: Map[Key, Record]
    by_node: Mapping[Key, frozenset[Address]]
    ends: Mapping[Address, int]


_known: _Known | None = None


def _next(world: World, known: _Known, nodes: Map[Key, Record]) -> _Known:
    shared = [n for link in world.links() if is_uplink(link) for n in link.networks]
    by_node = {
        key: known.by_node[key]
        if known.nodes.get(key) is node
        else _routed(world, cast(Node, node), shared)
        for key, node in nodes.items()
    }
    sizes = {version: link_mtu_bytes(world, version) for version in (4, 6)}
    ends = {end: sizes[end.version] for of_node in by_node.values() for end in of_node}
    if ends == known.ends:
        return known._replace(nodes=nodes, by_node=by_node)
    return _Known(known.made_of, nodes, by_node, MappingProxyType(ends))


def _routed(world: World, node: Node, shared: Iterable[Network]) -> frozenset[Address]:
    settings = world.settings
    if settings.path_mtu_bytes or world.own_node() is None or node.ref.name == settings.node:
        return frozenset()
    ends = {way.end for _, way in reaches(world, node) if isinstance(way, Tunnel)}
    return frozenset(end for end in ends if not any(end in network for network in shared))
