"""Owns the node's own network devices in the kernel: the overlay and the bridge, and by
holdlink.py the hold link.

A device that is wrong is altered in place where the kernel can, else made anew. Pods' links are
weft.cni's, never touched here.
"""

import socket
from collections.abc import Collection, Hashable, Iterator, Mapping
from ipaddress import IPv6Address, ip_interface
from typing import Any, cast

from weft.proxy.apply.holdlink import ensure_hold_link, hold_link_as_row
from weft.proxy.apply.netlink import conversation, noting, settled
from weft.proxy.apply.target import Errors
from weft.proxy.plan.links import (
    HOLD_LINK,
    BridgeLink,
    HoldLink,
    Interface,
    OverlayLink,
    bridge_mac,
)
from weft.proxy.plan.node import BRIDGE, HOLD, OVERLAY

_IFF_UP, _IFF_NOARP = 0x1, 0x80
_IFA_F_NODAD = 0x02
# The route to a bridge's pods is a row of `routes`: the kernel's would name another source.
_IFA_F_NOPREFIXROUTE = 0x200
_SCOPE_LINK = 253


class LinksTarget:
    """The table `links`: a device's name -> OverlayLink, BridgeLink or HoldLink."""

    def dump(self) -> Iterator[tuple[Hashable, object]]:
        with conversation() as netlink:
            yield from settled(lambda: _read(netlink))

    def write(self, upserts: Mapping[Hashable, object], deletes: Collection[Hashable]) -> Errors:
        errors: dict[Hashable, str] = {}
        with conversation() as netlink:
            for name in deletes:
                with noting(errors, name, "link"):
                    _delete(netlink, cast(str, name))
            for name, row in upserts.items():
                with noting(errors, name, "link"):
                    if isinstance(row, HoldLink):
                        ensure_hold_link(netlink, row)
                    else:
                        _ensure(netlink, cast(OverlayLink | BridgeLink, row))
        return errors


def _read(netlink: Any) -> list[tuple[Hashable, object]]:
    found = ((name, _find(netlink, name)) for name in (OVERLAY, BRIDGE, HOLD))
    return [(name, _as_row(netlink, one, name)) for name, one in found if one is not None]


def _find(netlink: Any, name: str) -> Any:
    """The device's message, None where there is none."""
    found = netlink.link_lookup(ifname=name)
    return netlink.get_links(found[0])[0] if found else None


def _delete(netlink: Any, name: str) -> None:
    for ifindex in netlink.link_lookup(ifname=name):
        netlink.link("del", index=ifindex)


def _ensure(netlink: Any, row: OverlayLink | BridgeLink) -> None:
    found = _find(netlink, row.name)
    if found is not None and not _same_kind(found, row):
        _delete(netlink, row.name)
        found = None
    if found is None:
        netlink.link("add", **_creation(row))
        found = _find(netlink, row.name)
    ifindex = found["index"]
    noarp = _IFF_NOARP if isinstance(row, OverlayLink) else 0
    netlink.link(
        "set", index=ifindex, address=_mac(row), mtu=row.mtu_bytes,
        flags=_IFF_UP | noarp, mask=_IFF_UP | _IFF_NOARP,
    )  # fmt: skip
    _ensure_addresses(netlink, ifindex, row.addresses)
    if isinstance(row, BridgeLink) and not _asks_for_neighbours(netlink, ifindex, row.addresses):
        netlink.addr(
            "add", index=ifindex, address=str(link_local(_mac(row))), mask=64, flags=_IFA_F_NODAD
        )


def _creation(row: OverlayLink | BridgeLink) -> dict[str, object]:
    common = {"ifname": row.name, "address": _mac(row), "mtu": row.mtu_bytes}
    if isinstance(row, BridgeLink):
        return common | {"kind": "bridge"}
    return common | {
        "kind": "vxlan",
        "vxlan_collect_metadata": 1,
        "vxlan_port": row.port,
        "vxlan_learning": 0,
        # Linux sends IPv6 outer headers without a UDP checksum when the tunnel key says so.
        "vxlan_udp_zero_csum6_rx": 1,
    }


def _ensure_addresses(netlink: Any, ifindex: int, wanted: tuple[Interface, ...]) -> None:
    have = _addresses(netlink, ifindex)
    for address in have:
        if address not in wanted:
            netlink.addr("del", index=ifindex, address=str(address.ip), mask=_bits(address))
    for address in wanted:
        if address not in have:
            netlink.addr(
                "add", index=ifindex, address=str(address.ip), mask=_bits(address),
                flags=_IFA_F_NOPREFIXROUTE | (_IFA_F_NODAD if address.version == 6 else 0),
            )  # fmt: skip


def _asks_for_neighbours(netlink: Any, ifindex: int, addresses: tuple[Interface, ...]) -> bool:
    """Whether a bridge with these can find its pods: IPv6 asks from a link-local address, which the
    kernel gives a device once, when it comes up, and never again after a flush.
    """
    if not any(address.version == 6 for address in addresses):
        return True
    held = netlink.get_addr(family=socket.AF_INET6, index=ifindex, scope=_SCOPE_LINK)
    return any(True for _ in held)


def _addresses(netlink: Any, ifindex: int) -> tuple[Interface, ...]:
    """What is set on a device, IPv4 first; not what the kernel gave it for itself."""
    found = [
        ip_interface(
            f"{message.get('IFA_LOCAL') or message.get('IFA_ADDRESS')}/{message['prefixlen']}"
        )
        for family in (socket.AF_INET, socket.AF_INET6)
        for message in netlink.get_addr(family=family, index=ifindex)
        if message["scope"] != _SCOPE_LINK
    ]
    return tuple(found)


def _as_row(netlink: Any, found: Any, name: str) -> object:
    """The device as the row that would make it; anything else when nothing would."""
    if name == HOLD:
        return hold_link_as_row(netlink, HOLD_LINK)
    addresses = _addresses(netlink, found["index"])
    mtu_bytes = found.get("IFLA_MTU")
    if not found["flags"] & _IFF_UP:
        return "down"
    if name == BRIDGE:
        right = _kind(found) == "bridge" and found.get("IFLA_ADDRESS") == bridge_mac(name).hex(":")
        right = right and _asks_for_neighbours(netlink, found["index"], addresses)
        return BridgeLink(name, mtu_bytes, addresses) if right else "not ours"
    if not _is_flow_based(found) or not found["flags"] & _IFF_NOARP:
        return "not ours"
    mac = bytes.fromhex(found.get("IFLA_ADDRESS").replace(":", ""))
    return OverlayLink(name, mac, _port(found), mtu_bytes, addresses)


def _same_kind(found: Any, row: OverlayLink | BridgeLink) -> bool:
    if isinstance(row, BridgeLink):
        return _kind(found) == "bridge"
    return _is_flow_based(found) and _port(found) == row.port


def _kind(found: Any) -> str:
    info = found.get("IFLA_LINKINFO")
    return str(info.get("IFLA_INFO_KIND")) if info is not None else ""


def _is_flow_based(found: Any) -> bool:
    return _kind(found) == "vxlan" and bool(
        found.get("IFLA_LINKINFO").get("IFLA_INFO_DATA").get("IFLA_VXLAN_COLLECT_METADATA")
    )


def _port(found: Any) -> int:
    data = found.get("IFLA_LINKINFO").get("IFLA_INFO_DATA")
    return int(data.get("IFLA_VXLAN_PORT"))


def _mac(row: OverlayLink | BridgeLink) -> str:
    return bridge_mac(row.name).hex(":") if isinstance(row, BridgeLink) else row.mac.hex(":")


def link_local(mac: str) -> IPv6Address:
    """What the kernel makes of a MAC (RFC 4291, appendix A)."""
    octets = bytes.fromhex(mac.replace(":", ""))
    identifier = bytes((octets[0] ^ 2, *octets[1:3], 0xFF, 0xFE, *octets[3:]))
    return IPv6Address(bytes.fromhex("fe80000000000000") + identifier)


def _bits(address: Interface) -> int:
    return address.network.prefixlen
