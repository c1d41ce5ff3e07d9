"""Owns which network devices of Weft's own the node has: the overlay, the bridge, the hold link.

A key is a device's name; rows are frozen dataclasses in the table "links" under that name.
"""

from collections.abc import Hashable, Iterable, Iterator
from dataclasses import dataclass
from hashlib import blake2b
from ipaddress import IPv4Interface, IPv6Interface, ip_interface

from weft.proxy.model.objects import Kind, Node
from weft.proxy.model.world import Change, Mode, World
from weft.proxy.plan.mtu import alters_tunnels, overlay_mtu_bytes, pod_mtu_bytes
from weft.proxy.plan.node import BRIDGE, HELD, HOLD, NEVER_UPLINKS, OVERLAY, gateways
from weft.proxy.plan.rows import Planner, Row

Interface = IPv4Interface | IPv6Interface


@dataclass(frozen=True, slots=True)
class OverlayLink:
    """The flow-based VXLAN device: programs set each packet's tunnel key, the VNI among it.

    mac: the device's own, 6 bytes; port: UDP, of both ends. Without ARP.
    """

    name: str
    mac: bytes
    port: int
    mtu_bytes: int
    addresses: tuple[Interface, ...]


@dataclass(frozen=True, slots=True)
class BridgeLink:
    """The Linux bridge that pods' host ends hang on; it holds the gateway addresses."""

    name: str
    mtu_bytes: int
    addresses: tuple[Interface, ...]


@dataclass(frozen=True, slots=True)
class HoldLink:
    """A veth pair whose ends both delay what they carry, by a token bucket (tc-tbf).

    overhead_bytes: counted beside each packet's own, so that a short one waits too.
    burst_bytes: the longest packet; limit_bytes: what waits at one end at most.
    """

    name: str
    far_name: str
    mtu_bytes: int
    bytes_per_s: int
    overhead_bytes: int
    burst_bytes: int
    limit_bytes: int


HOLD_LINK = HoldLink(
    name=HOLD,
    far_name=HELD,
    # Nothing is cut. The last that a pair gets: settings name none without it.
    mtu_bytes=65_535,
    # 3,800 short packets a second, or 2,200 whole frames of Ethernet.
    bytes_per_s=8_000_000,
    overhead_bytes=2_000,
    burst_bytes=18_000,
    limit_bytes=262_144,
)


def overlay_mac(node: str) -> bytes:
    """A locally administered address that differs per node: the kernel drops a packet whose inner
    source is the receiving device's own MAC as a loop.
    """
    digest = blake2b(node.encode(), digest_size=6).digest()
    return bytes(((digest[0] | 0x02) & 0xFE, *digest[1:]))


def bridge_mac(name: str) -> bytes:
    """Locally administered and always the same: else a bridge takes its lowest port's, and pods'
    neighbour entries go stale when that port goes.
    """
    digest = blake2b(name.encode(), digest_size=5).digest()
    return b"\x02" + digest


def _rows(world: World, key: Hashable) -> Iterator[Row]:
    own, settings = world.own_node(), world.settings
    if key == HOLD:
        yield Row("links", HOLD, HOLD_LINK)
    if own is None:
        return
    if key == OVERLAY and settings.has_overlay:
        yield Row("links", OVERLAY, _overlay(world, own))
    if key == BRIDGE and settings.mode is Mode.BRIDGE:
        addresses = tuple(ip_interface((a, cidr.prefixlen)) for a, cidr in gateways(own))
        yield Row("links", BRIDGE, BridgeLink(BRIDGE, pod_mtu_bytes(world), addresses))


def _overlay(world: World, own: Node) -> OverlayLink:
    """With a bridge the gateways are the bridge's, and the overlay needs no address."""
    bare = world.settings.mode is Mode.BRIDGE
    return OverlayLink(
        name=OVERLAY,
        mac=overlay_mac(own.ref.name),
        port=world.settings.overlay_port,
        mtu_bytes=overlay_mtu_bytes(world),
        addresses=() if bare else tuple(ip_interface(address) for address, _ in gateways(own)),
    )


def _keys(change: Change, before: World, after: World) -> Iterable[Hashable]:
    if change.kind is Kind.LINK and change.key not in NEVER_UPLINKS:
        return _all_keys(after)
    if change.kind is Kind.NODE and before.own_node() != after.own_node():
        return _all_keys(after)
    return (OVERLAY,) if alters_tunnels(change, before, after) else ()


def _all_keys(world: World) -> Iterable[Hashable]:
    return (OVERLAY, BRIDGE, HOLD)


PLANNER = Planner("links", _keys, _rows, _all_keys)
