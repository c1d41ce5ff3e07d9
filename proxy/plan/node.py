"""Owns what follows from Node objects: gateways, underlay addresses, the MTU of pods.

Asked by other planners and by the CNI side; yields no rows of its own.
"""

from collections.abc import Iterable
from ipaddress import IPv4Network, IPv6Network

from weft.proxy.model.objects import Address, Link, Network, Node
from weft.proxy.model.world import World

OVERLAY = "weft.vx"
BRIDGE = "weft0"
NEVER_UPLINKS = frozenset((OVERLAY, BRIDGE, "lo"))
"""Links that nothing leaves the node by, even where the node's InternalIP is on them."""

# Until netlink has told the underlay's own: Ethernet's.
DEFAULT_MTU_BYTES = 1500
# Outer IP, UDP, VXLAN and the inner Ethernet header (RFC 7348).
_VXLAN_BYTES = {4: 50, 6: 70}


def pod_cidr(node: Node | None, version: int) -> Network | None:
    """The podCIDR of a node in one family; the API allows one per family."""
    cidrs = node.pod_cidrs if node is not None else ()
    return next((cidr for cidr in cidrs if cidr.version == version), None)


def gateway(cidr: Network | None) -> Address | None:
    """The node's own address inside its podCIDR, its first; None where there is no room."""
    if cidr is None or cidr.num_addresses < 4:
        return None
    return cidr.network_address + 1


def gateways(node: Node | None) -> tuple[tuple[Address, Network], ...]:
    """The node's gateway addresses with their podCIDRs, IPv4 first."""
    found = ((gateway(cidr), cidr) for cidr in (pod_cidr(node, 4), pod_cidr(node, 6)))
    return tuple((address, cidr) for address, cidr in found if address and cidr)


def underlay(node: Node, peer: Node | None) -> Address | None:
    """Where `peer`'s tunnel to `node` ends: its InternalIP in the first family that both have.

    IPv4 comes first. Both ends choose alike, so each accepts the other's outer source. A peer that
    the API has not named yet may have both families.
    """
    theirs = [a for version in (4, 6) for a in node.addresses if a.version == version]
    if peer is None:
        return next(iter(theirs), None)
    ours = {a.version for a in peer.addresses}
    return next((a for a in theirs if a.version in ours), next(iter(theirs), None))


def host_sources(world: World) -> tuple[Address, ...]:
    """What the node sends from to its own pods, at most one per family: its InternalIP.

    A server on the node that listens on every address answers from what the route says; a pod that
    dialled the InternalIP by UDP takes an answer from there only. Where no link holds an
    InternalIP, the gateway address: a route cannot name an address that is not the node's.
    """
    own = world.own_node()
    held = {address for link in world.links() for address in link.addresses}
    wanted = [a for a in (own.addresses if own is not None else ()) if a in held]
    wanted += [address for address, _ in gateways(own)]
    found = (next((a for a in wanted if a.version == version), None) for version in (4, 6))
    return tuple(address for address in found if address is not None)


def underlay_link(world: World) -> Link | None:
    """The link that carries the tunnel: it holds the own node's first underlay address.

    Where that address is on the loopback (routed to the node), the link of a default route.
    """
    own = world.own_node()
    address = underlay(own, None) if own is not None else None
    ranked = sorted(
        (address not in link.addresses, link.ifindex, link.name)
        for link in world.links()
        if link.name not in NEVER_UPLINKS and (address in link.addresses or link.default_route)
    )
    return world.link(ranked[0][-1]) if ranked else None


def overlay_mtu_bytes(world: World) -> int:
    """The largest inner packet: beyond it the kernel drops without a word."""
    link, own = underlay_link(world), world.own_node()
    address = underlay(own, None) if own is not None else None
    outer = link.mtu_bytes if link is not None else DEFAULT_MTU_BYTES
    return outer - _VXLAN_BYTES[address.version if address is not None else 4]


def pod_mtu_bytes(world: World) -> int:
    """The MTU of pods' links, on both ends."""
    if world.settings.has_overlay:
        return overlay_mtu_bytes(world)
    link = underlay_link(world)
    return link.mtu_bytes if link is not None else DEFAULT_MTU_BYTES


def covering(network: Network) -> Iterable[Network]:
    """`network` and every prefix around it, the narrowest first."""
    kind: type[IPv4Network] | type[IPv6Network] = type(network)
    for length in range(network.prefixlen, -1, -1):
        yield kind((int(network.network_address), length), strict=False)
