"""Owns what follows from Node objects: gateways, underlay addresses, the link that carries them.

Asked by other planners and by the CNI side; yields no rows of its own.
"""

from collections.abc import Iterable
from ipaddress import IPv4Network, IPv6Network

from weft.proxy.model.objects import Address, Link, Network, Node, Record
from weft.proxy.model.world import Mode, World

OVERLAY = "weft.vx"
BRIDGE = "weft0"
# The two ends of the hold link: what goes into one comes out of the other.
HOLD, HELD = "weft.hold", "weft.held"
NEVER_UPLINKS = frozenset((OVERLAY, BRIDGE, HOLD, HELD, "lo"))
"""Links that nothing leaves the node by, even where the node's InternalIP is on them."""


def internal_ips(world: World) -> tuple[Address, ...]:
    """The own node's, in the API's order; none while it is not known."""
    own = world.own_node()
    return own.addresses if own is not None else ()


def pod_cidrs_of(record: Record | None) -> tuple[Network, ...]:
    """The podCIDRs of a change's one side, if that is a Node."""
    return record.pod_cidrs if isinstance(record, Node) else ()


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


def host_addresses(world: World) -> tuple[Address, ...]:
    """All of the node's own, on whatever link, by which hosts beyond a link may call it."""
    held = {address for link in world.links() for address in link.addresses}
    usable = (a for a in held if not a.is_loopback and not a.is_link_local)
    return tuple(sorted(usable, key=lambda address: (address.version, int(address))))


def host_sources(world: World) -> tuple[Address, ...]:
    """What the node sends from to its own pods, at most one per family: its InternalIP.

    A server on the node that listens on every address answers from what the route says; a pod that
    dialled the InternalIP by UDP takes an answer from there only. Where no link holds an
    InternalIP, the gateway address, which the overlay or the bridge holds: a route cannot name an
    address that is not the node's.
    """
    wanted = list(_held_internal_ips(world))
    if world.settings.has_overlay or world.settings.mode is Mode.BRIDGE:
        wanted += [address for address, _ in gateways(world.own_node())]
    found = (next((a for a in wanted if a.version == version), None) for version in (4, 6))
    return tuple(address for address in found if address is not None)


def internal_source(world: World, version: int) -> Address | None:
    """The node's InternalIP of one IP version, if a link holds it."""
    return next((a for a in _held_internal_ips(world) if a.version == version), None)


def _held_internal_ips(world: World) -> Iterable[Address]:
    held = {address for link in world.links() for address in link.addresses}
    return (a for a in internal_ips(world) if a in held)


def underlay_link(world: World, version: int | None = None) -> Link | None:
    """The link that carries the tunnels of one IP version: it holds the node's InternalIP of it.

    version None: of the node's first. Where that address is on the loopback (routed to the node),
    the link of a default route.
    """
    own = world.own_node()
    address = underlay(own, None) if own is not None else None
    if own is not None and version is not None:
        address = next((a for a in own.addresses if a.version == version), None)
    ranked = sorted(
        (address not in link.addresses, link.ifindex, link.name)
        for link in world.links()
        if link.name not in NEVER_UPLINKS and (address in link.addresses or link.default_route)
    )
    return world.link(ranked[0][-1]) if ranked else None


def covering(network: Network) -> Iterable[Network]:
    """`network` and every prefix around it, the narrowest first."""
    kind: type[IPv4Network] | type[IPv6Network] = type(network)
    for length in range(network.prefixlen, -1, -1):
        yield kind((int(network.network_address), length), strict=False)
