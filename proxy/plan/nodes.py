"""Owns the prefixes table: whose an address range is.

A key is a prefix: a node's podCIDR or address, a never-masqueraded prefix, a Service range or a
root. Traffic between pods is never masqueraded, so podCIDRs carry that flag too.
"""

from collections.abc import Hashable, Iterable, Iterator
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import cast

from weft.bpf.layout import UNSPECIFIED, Prefix, PrefixFlag
from weft.proxy.model.objects import Kind, Network, Node, Record, ServiceCIDR
from weft.proxy.model.owners import claimant
from weft.proxy.model.world import Change, World
from weft.proxy.plan.node import covering, pod_cidrs_of
from weft.proxy.plan.path_mtu import alters_every_end, end_mtu_bytes, resized, tunnel_mtu_bytes
from weft.proxy.plan.reach import Direct, Tunnel, alters_every_reach, reach
from weft.proxy.plan.rows import Planner, Row, prefix_key

# ::ffff:0:0/96, IPv4's root, must be a row of its own: ::/0 would cover it.
ROOTS: tuple[Network, ...] = (ip_network("0.0.0.0/0"), ip_network("::/0"))
_POD = PrefixFlag.NO_MASQUERADE


def _rows(world: World, key: Hashable) -> Iterator[Row]:
    network = cast(IPv4Network | IPv6Network, key)
    node = claimant(world, network)
    if node is not None:
        yield Row("prefixes", prefix_key(network), _pod_prefix(world, node, network).pack())
    elif (
        network in ROOTS
        or _is_node(world, network)
        or (network in _named(world) and not _inside_pod_cidr(world, network))
    ):
        flags = _flags(world, network)
        is_end = flags & PrefixFlag.NODE
        mtu_bytes = end_mtu_bytes(world, network.network_address) if is_end else 0
        yield Row("prefixes", prefix_key(network), Prefix(UNSPECIFIED, flags, 0, mtu_bytes).pack())


def _named(world: World) -> set[Network]:
    return {*world.settings.never_masquerade, *service_ranges(world)}


def service_ranges(world: World) -> set[Network]:
    """What ClusterIPs are given from, as far as is known."""
    said = {network for named in world.service_cidrs() for network in named.networks}
    return said.union(world.settings.service_cidrs)


def _flags(world: World, network: Network) -> PrefixFlag:
    """What holds for the prefixes around it holds for it: the narrowest row is the one found."""
    flags = PrefixFlag(0)
    if _is_within(network, world.settings.never_masquerade):
        flags |= PrefixFlag.NO_MASQUERADE
    if _is_within(network, service_ranges(world)):
        flags |= PrefixFlag.SERVICE
    if _is_node(world, network):
        flags |= PrefixFlag.NODE
    return flags


def _is_within(network: Network, some: Iterable[Network]) -> bool:
    """There are few of `some`, and a row for each address of each node asks."""
    return any(
        wide.version == network.version
        and wide.prefixlen <= network.prefixlen
        and network.network_address in wide
        for wide in some
    )


def _is_node(world: World, network: Network) -> bool:
    """Whether it is one address, a node's: from there a tunnel is believed."""
    single = network.prefixlen == network.max_prefixlen
    return single and bool(world.nodes_at(network.network_address))


def _addresses(*records: Record | None) -> set[Network]:
    return {ip_network(a) for node in records if isinstance(node, Node) for a in node.addresses}


def _pod_prefix(world: World, node: Node, network: Network) -> Prefix:
    """A remote podCIDR that leads nowhere is still not the world's."""
    if node.ref.name == world.settings.node:
        return Prefix(UNSPECIFIED, PrefixFlag.LOCAL | _POD, 0, 0)
    flags = PrefixFlag.REMOTE | _POD
    match reach(world, node, network.version):
        case Direct(next_hop, _, ifindex):
            mtu_bytes = end_mtu_bytes(world, next_hop)
            return Prefix(next_hop, flags | PrefixFlag.DIRECT, ifindex, mtu_bytes)
        case Tunnel(end):
            mtu_bytes = tunnel_mtu_bytes(world, end, network.version)
            return Prefix(end, flags, 0, mtu_bytes)
        case _:
            return Prefix(UNSPECIFIED, flags, 0, 0)


def _inside_pod_cidr(world: World, network: Network) -> bool:
    """A narrower row there would hide the podCIDR's, which says as much already."""
    return any(world.nodes_with(wider) for wider in covering(network))


def _keys(change: Change, before: World, after: World) -> Iterable[Hashable]:
    if alters_every_reach(change, before, after) or alters_every_end(change, before, after):
        return {*_all_keys(before), *_all_keys(after)}
    if change.kind is Kind.SERVICE_CIDR:
        moved = set(_ranges(change.before)) ^ set(_ranges(change.after))
        inner = _named(after) | _addresses(*after.nodes())
        return moved | {n for n in inner if not moved.isdisjoint(covering(n))}
    if change.kind is Kind.PATH_MTU:
        return resized(change, before, after) | {ip_network(cast(str, change.key))}
    if change.kind is not Kind.NODE:
        return resized(change, before, after)
    cidrs = resized(change, before, after)
    cidrs |= {*pod_cidrs_of(change.before), *pod_cidrs_of(change.after)}
    inside = {n for n in _named(after) if not cidrs.isdisjoint(covering(n))}
    return cidrs | inside | _addresses(change.before, change.after)


def _ranges(record: Record | None) -> tuple[Network, ...]:
    return record.networks if isinstance(record, ServiceCIDR) else ()


def _all_keys(world: World) -> Iterable[Hashable]:
    claimed = {cidr for node in world.nodes() for cidr in node.pod_cidrs}
    return claimed.union(_named(world), _addresses(*world.nodes()), ROOTS)


PLANNER = Planner("nodes", _keys, _rows, _all_keys)
