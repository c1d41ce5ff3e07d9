"""Owns the node's routes to pods on other nodes, for the node's own traffic and what it forwards.

A key is a remote podCIDR; rows are frozen dataclasses in the table "routes" under that prefix.
"""

from collections.abc import Hashable, Iterable, Iterator
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network
from typing import cast

from weft.proxy.model.objects import Address, Kind, Network, Node, Record
from weft.proxy.model.world import Change, World
from weft.proxy.plan.node import OVERLAY, gateway, gateways, pod_cidr
from weft.proxy.plan.nodes import claimant
from weft.proxy.plan.rows import Planner, Row


@dataclass(frozen=True, slots=True)
class Route:
    """`prefix dev device src source`: the node reaches remote pods with its gateway address.

    source None: the node has no podCIDR of this family, the kernel chooses.
    """

    prefix: Network
    device: str
    source: Address | None


def _rows(world: World, key: Hashable) -> Iterator[Row]:
    prefix = cast(IPv4Network | IPv6Network, key)
    node = claimant(world, prefix)
    if node is None or node.ref.name == world.settings.node or not world.settings.has_overlay:
        return
    source = gateway(pod_cidr(world.own_node(), prefix.version))
    yield Row("routes", prefix, Route(prefix, OVERLAY, source))


def _keys(change: Change, before: World, after: World) -> Iterable[Hashable]:
    if change.kind is not Kind.NODE:
        return ()
    if gateways(before.own_node()) != gateways(after.own_node()):
        return {*_all_keys(before), *_all_keys(after)}
    return {*_pod_cidrs(change.before), *_pod_cidrs(change.after)}


def _pod_cidrs(record: Record | None) -> tuple[Network, ...]:
    return record.pod_cidrs if isinstance(record, Node) else ()


def _all_keys(world: World) -> Iterable[Hashable]:
    return {cidr for node in world.nodes() for cidr in node.pod_cidrs}


PLANNER = Planner("routes", _keys, _rows, _all_keys)
