"""Owns the node's routes to ranges of pods: other nodes', and its own where pods hang on a bridge.

A key is a podCIDR; rows are frozen dataclasses in the table "routes" under that prefix. Routed pods
of the node have a route each, which weft.cni makes with their link.
"""

from collections.abc import Hashable, Iterable, Iterator
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network
from typing import cast

from weft.proxy.model.objects import Address, Kind, Network, Node
from weft.proxy.model.owners import claimant
from weft.proxy.model.world import Change, Mode, World
from weft.proxy.plan.node import (
    BRIDGE,
    OVERLAY,
    gateway,
    gateways,
    host_sources,
    internal_source,
    pod_cidr,
    pod_cidrs_of,
)
from weft.proxy.plan.path_mtu import resized, tunnel_mtu_bytes
from weft.proxy.plan.reach import Direct, Tunnel, alters_every_reach, reach
from weft.proxy.plan.rows import Planner, Row


@dataclass(frozen=True, slots=True)
class Route:
    """`prefix via via dev device src source`: through a tunnel the node reaches remote pods with
    its gateway address, else pods with an InternalIP.

    source None: the node has no address to name in this family, the kernel chooses. via None: on
    the device itself. mtu_bytes: the longest packet, 0: what the device carries.
    """

    prefix: Network
    device: str
    source: Address | None
    via: Address | None = None
    mtu_bytes: int = 0


def _rows(world: World, key: Hashable) -> Iterator[Row]:
    prefix = cast(IPv4Network | IPv6Network, key)
    node, settings = claimant(world, prefix), world.settings
    if node is None:
        return
    if node.ref.name == settings.node:
        if settings.mode is Mode.BRIDGE:
            source = next((a for a in host_sources(world) if a.version == prefix.version), None)
            yield Row("routes", prefix, Route(prefix, BRIDGE, source))
    elif (route := _remote(world, node, prefix)) is not None:
        yield Row("routes", prefix, route)


def _remote(world: World, node: Node, prefix: Network) -> Route | None:
    match reach(world, node, prefix.version):
        case Direct(next_hop, device, _):
            source = internal_source(world, prefix.version)
            return Route(prefix, device, source, next_hop)
        case Tunnel(end):
            source = gateway(pod_cidr(world.own_node(), prefix.version))
            mtu_bytes = tunnel_mtu_bytes(world, end, prefix.version)
            return Route(prefix, OVERLAY, source, mtu_bytes=mtu_bytes)
        case _:
            return None


def _keys(change: Change, before: World, after: World) -> Iterable[Hashable]:
    if change.kind not in (Kind.LINK, Kind.NODE):
        return resized(change, before, after)
    if _sources(before) != _sources(after) or alters_every_reach(change, before, after):
        return {*_all_keys(before), *_all_keys(after)}
    own = {*pod_cidrs_of(change.before), *pod_cidrs_of(change.after)}
    return own | resized(change, before, after)


def _sources(world: World) -> tuple[object, object]:
    """What the own node contributes to every route."""
    return host_sources(world), gateways(world.own_node())


def _all_keys(world: World) -> Iterable[Hashable]:
    return {cidr for node in world.nodes() for cidr in node.pod_cidrs}


PLANNER = Planner("routes", _keys, _rows, _all_keys)
