"""Owns the uplinks table: the links that lead outside and the addresses to leave with.

A key is a link's name. An uplink holds an InternalIP of the own node, a network with one inside, or
a default route.
"""

from collections.abc import Hashable, Iterable, Iterator
from typing import cast

from weft.bpf.layout import UNSPECIFIED, Uplink, pack_u32
from weft.proxy.model.objects import Address, Kind, Link
from weft.proxy.model.world import Change, World
from weft.proxy.plan.node import NEVER_UPLINKS
from weft.proxy.plan.rows import Planner, Row


def is_uplink(world: World, link: Link) -> bool:
    """Whether pods' traffic to the outside may leave by `link`."""
    if link.name in NEVER_UPLINKS:
        return False
    ours = _internal_ips(world)
    return (
        link.default_route
        or not set(ours).isdisjoint(link.addresses)
        or any(address in network for network in link.networks for address in ours)
    )


def leaving_address(world: World, link: Link, version: int) -> Address | None:
    """The address that pods' traffic gets at `link`: the node's InternalIP if it is there."""
    usable = [
        a for a in link.addresses
        if a.version == version and not a.is_link_local and not a.is_loopback
    ]  # fmt: skip
    return next((a for a in _internal_ips(world) if a in usable), next(iter(usable), None))


def _internal_ips(world: World) -> tuple[Address, ...]:
    own = world.own_node()
    return own.addresses if own is not None else ()


def _rows(world: World, key: Hashable) -> Iterator[Row]:
    link = world.link(cast(str, key))
    if link is not None and is_uplink(world, link):
        row = Uplink(
            leaving_address(world, link, 4) or UNSPECIFIED,
            leaving_address(world, link, 6) or UNSPECIFIED,
            flags=0,
        )
        yield Row("uplinks", pack_u32(link.ifindex), row.pack())


def link_keys(change: Change, before: World, after: World) -> Iterable[Hashable]:
    """The names of links whose part a change can alter."""
    if change.kind is Kind.LINK:
        return (change.key,)
    if change.kind is Kind.NODE and _internal_ips(before) != _internal_ips(after):
        return (link.name for link in after.links())
    return ()


def _all_keys(world: World) -> Iterable[Hashable]:
    return (link.name for link in world.links())


PLANNER = Planner("uplinks", link_keys, _rows, _all_keys)
