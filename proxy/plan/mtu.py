"""Owns the sizes of packets: of pods' links, of the overlay and of what pods send into it.

Asked by other planners and by the CNI side; yields no rows of its own.
"""

from typing import NamedTuple

from weft.proxy.model.objects import Kind, Link, Node
from weft.proxy.model.world import Change, Mode, Settings, World
from weft.proxy.plan.node import underlay, underlay_link
from weft.proxy.plan.reach import Tunnel, reaches

# Until netlink has told the underlay's own: Ethernet's.
DEFAULT_MTU_BYTES = 1500
# Outer IP, UDP, VXLAN and the inner Ethernet header (RFC 7348).
_VXLAN_BYTES = {4: 50, 6: 70}


def pod_mtu_bytes(world: World) -> int:
    """The MTU of pods' links, on both ends: the underlay's, used whole on one node."""
    return _mtu_bytes(underlay_link(world))


def overlay_mtu_bytes(world: World) -> int:
    """The largest inner packet: beyond it the kernel drops without a word.

    One device carries the tunnels of both underlay families: the least that one of them leaves.
    """
    return min(
        _between_bytes(world, underlay_link(world, version)) - _VXLAN_BYTES[version]
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
    nodes: object
    links: object
    settings: Settings
    versions: frozenset[int]


_known: _Known | None = None


def tunnel_versions(world: World) -> frozenset[int]:
    """The IP versions of the underlay that tunnels to other nodes use now.

    Remembered for the tables that it was made from: every ADD asks, and there may be thousands of
    nodes.
    """
    global _known
    nodes, links = world.table(Kind.NODE), world.table(Kind.LINK)
    last = _known
    if last and last.nodes is nodes and last.links is links and last.settings is world.settings:
        return last.versions
    versions = frozenset(v for node in world.nodes() for v in _versions_to(world, node))
    _known = _Known(nodes, links, world.settings, versions)
    return versions


def alters_tunnels(change: Change, before: World, after: World) -> bool:
    """Whether news of another node may alter `tunnel_versions`, without asking for all nodes."""
    if change.kind is not Kind.NODE:
        return False
    was, now = change.before, change.after
    return _part(before, was) != _part(after, now)


def _part(world: World, record: object) -> set[int]:
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
