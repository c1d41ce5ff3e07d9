"""Owns the one row of the settings table: what the programs must know of this node."""

from collections.abc import Hashable, Iterable, Iterator

from weft.bpf.layout import UNSPECIFIED, SettingFlag, pack_u32
from weft.bpf.layout import Settings as SettingsRow
from weft.proxy.model.objects import Address, Kind, Link, Node
from weft.proxy.model.world import Change, ClientAddress, Mode, SocketHook, World
from weft.proxy.plan.links import HOLD_LINK, bridge_mac
from weft.proxy.plan.node import BRIDGE, HELD, HOLD, OVERLAY, gateway, pod_cidr
from weft.proxy.plan.rows import Planner, Row
from weft.proxy.plan.uplinks import is_uplink

_KEY = "settings"


def _rows(world: World, key: Hashable) -> Iterator[Row]:
    settings, own = world.settings, world.own_node()
    overlay = world.link(OVERLAY) if settings.has_overlay else None
    hold_from_pod, hold_to_pod = _hold_ends(world)
    bridge = world.link(BRIDGE) if settings.mode is Mode.BRIDGE else None
    row = SettingsRow(
        host_netns=settings.host_netns_cookie,
        overlay_ifindex=overlay.ifindex if overlay is not None else 0,
        flags=_flags(world, overlay is not None),
        overlay_vni=settings.overlay_vni,
        hz=settings.hz,
        snat_port_min=settings.snat_port_min,
        snat_port_max=settings.snat_port_max,
        event_sample=settings.event_sample,
        gateway4=gateway(pod_cidr(own, 4)) or UNSPECIFIED,
        gateway6=gateway(pod_cidr(own, 6)) or UNSPECIFIED,
        overlay_port=settings.overlay_port if settings.has_overlay else 0,
        ask_port=settings.ask_port,
        hold_from_pod=hold_from_pod,
        hold_to_pod=hold_to_pod,
        bridge_ifindex=bridge.ifindex if bridge is not None else 0,
        node4=_internal_ip(own, 4),
        node6=_internal_ip(own, 6),
        bridge_mac=bridge_mac(BRIDGE) if bridge is not None else bytes(6),
    )
    yield Row("settings", pack_u32(0), row.pack())


def _internal_ip(own: Node | None, version: int) -> Address:
    """What stands for the node's own clients where a Service tells clients apart."""
    addresses = own.addresses if own is not None else ()
    return next((a for a in addresses if a.version == version), UNSPECIFIED)


def _hold_ends(world: World) -> tuple[int, int]:
    """The ends to hold by, what pods send and what is for them; 0: what they delay with is not set
    up, as in a kernel that lacks it.
    """
    ends = [world.link(name) for name in (HOLD, HELD)]
    found = [end.ifindex for end in ends if end and end.mtu_bytes == HOLD_LINK.mtu_bytes]
    return (found[0], found[1]) if len(found) == len(ends) else (0, 0)


def _flags(world: World, overlay: bool) -> SettingFlag:
    settings, flags = world.settings, SettingFlag(0)
    if overlay:
        flags |= SettingFlag.OVERLAY
    if settings.mode is Mode.BRIDGE:
        flags |= SettingFlag.BRIDGE
    if settings.masquerade:
        flags |= SettingFlag.MASQUERADE
    if any(is_uplink(link) and not link.has_ethernet for link in world.links()):
        flags |= SettingFlag.LAYER3
    if settings.socket_hook is SocketHook.NODE:
        flags |= SettingFlag.NODE_SOCKETS
    if settings.client_address is ClientAddress.MASQUERADE:
        flags |= SettingFlag.MASQUERADE_CLIENTS
    return flags


def _keys(change: Change, before: World, after: World) -> Iterable[Hashable]:
    if change.kind is Kind.LINK and change.key in (OVERLAY, BRIDGE, HOLD, HELD):
        return (_KEY,)
    if change.kind is Kind.NODE and before.own_node() != after.own_node():
        return (_KEY,)
    if _is_layer3(change):
        return (_KEY,)
    return ()


def _is_layer3(change: Change) -> bool:
    """Whether a link without Ethernet came, changed or went."""
    records = (change.before, change.after)
    return any(isinstance(link, Link) and not link.has_ethernet for link in records)


def _all_keys(world: World) -> Iterable[Hashable]:
    return (_KEY,)


PLANNER = Planner("settings", _keys, _rows, _all_keys)
