"""Owns the uplinks table: the links that lead outside and the addresses to leave with.

A key is a link's name. An uplink has an address that others may answer to, or a default route: who
is behind it knows no pod's address.
"""

from collections.abc import Hashable, Iterable, Iterator
from typing import cast

from weft.bpf.layout import UNSPECIFIED, Uplink, UplinkFlag, pack_u32
from weft.proxy.model.objects import Address, Kind, Link
from weft.proxy.model.world import Change, World
from weft.proxy.plan.node import NEVER_UPLINKS, internal_ips
from weft.proxy.plan.rows import Planner, Row


def is_uplink(link: Link) -> bool:
    """Whether pods' traffic to the outside may leave by `link`."""
    if link.name in NEVER_UPLINKS:
        return False
    return link.default_route or any(map(_is_usable, link.addresses))


def leaving_address(world: World, link: Link, version: int) -> Address | None:
    """The address that pods' traffic gets at `link`: the node's InternalIP if it is there, else the
    first, which stays the first when others come.
    """
    usable = [a for a in link.addresses if a.version == version and _is_usable(a)]
    return next((a for a in internal_ips(world) if a in usable), next(iter(usable), None))


def _is_usable(address: Address) -> bool:
    return not address.is_link_local and not address.is_loopback


def _rows(world: World, key: Hashable) -> Iterator[Row]:
    link = world.link(cast(str, key))
    if link is not None and is_uplink(link):
        row = Uplink(
            leaving_address(world, link, 4) or UNSPECIFIED,
            leaving_address(world, link, 6) or UNSPECIFIED,
            UplinkFlag(0) if link.has_ethernet else UplinkFlag.LAYER3,
        )
        yield Row("uplinks", pack_u32(link.ifindex), row.pack())


def link_keys(change: Change, before: World, after: World) -> Iterable[Hashable]:
    """The names of links whose part a change can alter."""
    if change.kind is Kind.LINK:
        return (change.key,)
    if change.kind is Kind.NODE and internal_ips(before) != internal_ips(after):
        return (link.name for link in after.links())
    return ()


def _all_keys(world: World) -> Iterable[Hashable]:
    return (link.name for link in world.links())


PLANNER = Planner("uplinks", link_keys, _rows, _all_keys)
