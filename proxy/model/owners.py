"""Owns whose a pod's address is: the node that has its podCIDR, and who holds it on this node.

Pure. What is remembered between calls is a function of World.
"""

from ipaddress import IPv4Network, IPv6Network

from immutables import Map

from weft.proxy.model.index import Key
from weft.proxy.model.objects import Address, Kind, Network, Node, Record, Workload
from weft.proxy.model.world import World

_Lengths = dict[int, tuple[int, ...]]
_lengths_of: tuple[Map[Key, Record], _Lengths] = (Map(), {4: (), 6: ()})


def claimant(world: World, pod_cidr: Network) -> Node | None:
    """The node that a podCIDR belongs to: the own one, else the first by name."""
    claims = world.nodes_with(pod_cidr)
    return min(
        claims, key=lambda node: (node.ref.name != world.settings.node, node.ref), default=None
    )


def owner(world: World, address: Address) -> Node | None:
    """The node in whose podCIDR `address` lies; None: in nobody's."""
    kind = IPv4Network if address.version == 4 else IPv6Network
    for length in _lengths(world.table(Kind.NODE))[address.version]:
        node = claimant(world, kind((int(address), length), strict=False))
        if node is not None:
            return node
    return None


def holder(world: World, address: Address) -> Workload | None:
    """The workload that `address` leads to: of several the one whose link was made last."""
    claims = world.workloads_at(address)
    return max(claims, key=lambda workload: (workload.ifindex, workload.key), default=None)


def _lengths(nodes: Map[Key, Record]) -> _Lengths:
    """The lengths of podCIDRs by family, longest first."""
    global _lengths_of
    of, lengths = _lengths_of
    if of is not nodes:
        cidrs = {
            cidr for node in nodes.values() if isinstance(node, Node) for cidr in node.pod_cidrs
        }
        lengths = {
            version: tuple(
                sorted({c.prefixlen for c in cidrs if c.version == version}, reverse=True)
            )
            for version in (4, 6)
        }
        _lengths_of = (nodes, lengths)
    return lengths
