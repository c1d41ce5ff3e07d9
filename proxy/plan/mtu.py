"""Owns the sizes of packets: of pods' links, of the overlay and of what pods send into it.

Asked by other planners and by the CNI side; yields no rows of its own.
"""

from collections import Counter
from typing import NamedTuple

from weft.proxy.model.objects import Kind, Link, Node
from weft.proxy.model.world import Change, Mode, Settings, World
from weft.proxy.plan.node import underlay, underlay_link
from weft.proxy.plan.reach import Tunnel, alters_every_reach, reaches

# Until netlink has told the underlay's own: Ethernet's.
DEFAULT_MTU_BYTES = 1500
# Outer IP, UDP, VXLAN and the inner Ethernet header (RFC 7348).
VXLAN_BYTES = {4: 50, 6: 70}


def pod_mtu_bytes(world: World) -> int:
    """The MTU of pods' links, on both ends: the underlay's, used whole on one node."""
    return _mtu_bytes(underlay_link(world))


def link_mtu_bytes(world: World, version: int) -> int:
    """The MTU of the link that carries the tunnels of one IP version."""
    return _mtu_bytes(underlay_link(world, version))


def between_mtu_bytes(world: World, version: int) -> int:
    """The largest packet of a tunnel of one IP version, as far as this node's link says."""
    return _between_bytes(world, underlay_link(world, version))


def overlay_mtu_bytes(world: World) -> int:
    """The largest inner packet: beyond it the kernel drops without a word.

    One device carries the tunnels of both underlay families: the least that one of them leaves.
    """
    return min(
        between_mtu_bytes(world, version) - VXLAN_BYTES[version]
        for version in tunnel_versions(world) or _first_version(world)
    )


def route_mtu_bytes(world: World) -> int:
    """The MTU of pods' routes beyond their node; 0: their link's.

    Known from the first packet on, so that it needs no error to learn it: many drop those.
    """
    settings, link = world.settings, underlay_link(world)
    if settings.has_overlay and (settings.mode is not Mode.AUTO or tunnel_versions(world)):
        return overlay_mtu_bytes(world)
    between = _between_bytes(world, link)
    return between if between < _mtu_bytes(link) else 0


class _Known(NamedTuple):
    """How many nodes are reached by tunnels of each version, remembered for the tables that say so:
    every ADD asks, and there may be thousands of nodes.
    """

    nodes: object
    links: object
    settings: Settings
    counts: Counter[int]

    def is_of(self, world: World) -> bool:
        tables = (world.table(Kind.NODE), world.table(Kind.LINK), world.settings)
        return all(one is other for one, other in zip(self[:3], tables, strict=True))


_known: _Known | None = None


def tunnel_versions(world: World) -> frozenset[int]:
    """The IP versions of the underlay that tunnels to other nodes use now."""
    known = _known
    if known is None or not known.is_of(world):
        counts = Counter(v for node in world.nodes() for v in _versions_to(world, node))
        known = _remember(world, counts)
    return frozenset(version for version, count in known.counts.items() if count)


def alters_tunnels(change: Change, before: World, after: World) -> bool:
    """Whether news of another node may alter `tunnel_versions`; what is remembered follows it."""
    if change.kind is not Kind.NODE or alters_every_reach(change, before, after):
        return False
    was, now = _part(before, change), _part(after, change)
    known = _known
    if known is not None and known.is_of(before):
        counts = known.counts.copy()
        counts.subtract(was)
        counts.update(now)
        _remember(after, counts)
    return was != now


def _remember(world: World, counts: Counter[int]) -> _Known:
    global _known
    nodes, links = world.table(Kind.NODE), world.table(Kind.LINK)
    _known = known = _Known(nodes, links, world.settings, counts)
    return known


def _part(world: World, change: Change) -> set[int]:
    """What the changed node has in the counts of one side."""
    record = world.table(Kind.NODE).get(change.key)
    return _versions_to(world, record) if isinstance(record, Node) else set()


def _versions_to(world: World, node: Node) -> set[int]:
    if node.ref.name == world.settings.node:
        return set()
    return {way.end.version for _, way in reaches(world, node) if isinstance(way, Tunnel)}


def _first_version(world: World) -> tuple[int]:
    own = world.own_node()
    address = underlay(own, None) if own is not None else None
    return (address.version if address is not None else 4,)


def _between_bytes(world: World, link: Link | None) -> int:
    """The largest packet that this link brings to other nodes."""
    of_path, of_link = world.settings.path_mtu_bytes, _mtu_bytes(link)
    return min(of_path, of_link) if of_path else of_link


def _mtu_bytes(link: Link | None) -> int:
    return link.mtu_bytes if link is not None else DEFAULT_MTU_BYTES
