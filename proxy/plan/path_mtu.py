"""Owns the limits of single tunnels: of those that lead by a link narrower than the node's own.

Asked by other planners and by who watches path MTUs; yields no rows of its own.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

from weft.proxy.model.objects import Address, Kind, Network, PathMtu
from weft.proxy.model.world import Change, Settings, World
from weft.proxy.plan.mtu import VXLAN_BYTES, alters_tunnels, link_mtu_bytes, overlay_mtu_bytes
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
    if change.kind is Kind.LINK:
        return change.key not in NEVER_UPLINKS
    if change.kind is not Kind.NODE:
        return False
    return before.own_node() != after.own_node() or alters_tunnels(change, before, after)


def routed_ends(world: World) -> Mapping[Address, int]:
    """The tunnel ends that a router is on the way to, with what the link towards them carries.

    The same World has the same mapping. None where the operator has named the paths' size.
    """
    global _known
    made_of = world.table(Kind.NODE), world.table(Kind.LINK), world.settings
    if _known is None or any(a is not b for a, b in zip(_known[:3], made_of, strict=True)):
        _known = _Known(*made_of, MappingProxyType(_routed_ends(world)))
    return _known.ends


class _Known(NamedTuple):
    """Remembered for what it was made from: it is asked for every second."""

    nodes: object
    links: object
    settings: Settings
    ends: Mapping[Address, int]


_known: _Known | None = None


def _routed_ends(world: World) -> dict[Address, int]:
    settings = world.settings
    if settings.path_mtu_bytes or not settings.has_overlay or world.own_node() is None:
        return {}
    shared = [n for link in world.links() if is_uplink(link) for n in link.networks]
    ends = {
        way.end
        for node in world.nodes()
        if node.ref.name != settings.node
        for _, way in reaches(world, node)
        if isinstance(way, Tunnel)
    }
    routed = [end for end in sorted(ends, key=str) if not any(end in n for n in shared)]
    return {end: link_mtu_bytes(world, end.version) for end in routed}
