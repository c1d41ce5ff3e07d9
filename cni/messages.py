"""Owns which rtnetlink messages make, open and remove a pod's link. Builds bytes, sends nothing.

A veth pair is created with its peer directly in the pod's namespace (creating and moving costs
16-20 ms, 340 ms when 30 happen at once). Addresses skip duplicate address detection.
"""

import socket
import struct
from collections.abc import Iterable
from ipaddress import IPv6Address, IPv6Interface

from weft.cni.netlink import (
    APPEND,
    CREATE,
    DUMP,
    EXCLUSIVE,
    REPLACE,
    Kind,
    Message,
    attribute,
    family,
    mac_bytes,
    nested,
)
from weft.cni.node import ROUTED_GATEWAYS, LinkMode
from weft.cni.results import Interface
from weft.cni.spec import Address
from weft.cni.verbs import LinkPlan

# Every host end is born into this group, so that ours are told from others' and go in one call.
LINK_GROUP = 0x77656674
DOOMED_GROUP = LINK_GROUP + 1

# rtm_protocol of our routes (rtnetlink.h leaves 4..255 to user space; 87 is nobody's).
ROUTE_PROTOCOL = 87

_IFINFO = struct.Struct("=BxHiII")  # ifinfomsg: family, type, index, flags, change
_IFADDR = struct.Struct("=BBBBI")  # ifaddrmsg: family, prefixlen, flags, scope, index
_RTMSG = struct.Struct("=BBBBBBBBI")  # rtmsg: family, dst, src, tos, table, protocol, scope, type
_NDMSG = struct.Struct("=BxxxiHBB")  # ndmsg: family, ifindex, state, flags, type
_UP = 1
_IFLA_ADDRESS, _IFLA_IFNAME, _IFLA_MTU, _IFLA_MASTER, _IFLA_LINKINFO = 1, 3, 4, 10, 18
_IFLA_AF_SPEC, _IFLA_GROUP, _IFLA_NET_NS_FD, _IFLA_EXT_MASK = 26, 27, 28, 29
_INFO_KIND, _INFO_DATA, _VETH_PEER = 1, 2, 1
_INET_CONF, _RP_FILTER = 1, 8
_INET6_ADDR_GEN_MODE, _ADDR_GEN_NONE = 8, 1
_SKIP_STATISTICS = 1 << 3
_IFA_ADDRESS, _IFA_LOCAL, _IFA_FLAGS = 1, 2, 8
_IFA_F_NODAD = 0x02
_RTA_DST, _RTA_OIF, _RTA_GATEWAY, _RTA_PRIORITY, _RTA_PREFSRC = 1, 4, 5, 6, 7
_RTA_METRICS, _RTAX_MTU = 8, 2
_IPV6_ROUTE_METRIC = 1024  # IP6_RT_PRIO_USER, what the kernel gives a route without one
_TABLE_MAIN, _UNICAST, _SCOPE_UNIVERSE, _SCOPE_LINK = 254, 1, 0, 253
_PROTOCOL_STATIC = 4
_NDA_DST, _NDA_LLADDR = 1, 2
_NUD_PERMANENT = 0x80


def create(plan: LinkPlan, netns_fd: int, bridge_ifindex: int) -> list[Message]:
    """The pair, its host end down; then a question for both ends' indices.

    NLM_F_ECHO would answer at once, but 6.1 ignores it for NEWLINK.
    """
    peer = _IFINFO.pack(0, 0, 0, 0, 0) + b"".join(
        (
            attribute(_IFLA_IFNAME, plan.ifname),
            attribute(_IFLA_ADDRESS, mac_bytes(plan.pod_mac)),
            attribute(_IFLA_MTU, plan.mtu_bytes),
            attribute(_IFLA_NET_NS_FD, netns_fd),
        )
    )
    body = _IFINFO.pack(0, 0, 0, 0, 0) + b"".join(
        (
            attribute(_IFLA_IFNAME, plan.host_ifname),
            attribute(_IFLA_ADDRESS, mac_bytes(plan.host_mac)),
            attribute(_IFLA_MTU, plan.mtu_bytes),
            attribute(_IFLA_GROUP, LINK_GROUP),
            attribute(_IFLA_MASTER, bridge_ifindex) if bridge_ifindex else b"",
            nested(
                _IFLA_LINKINFO,
                attribute(_INFO_KIND, "veth"),
                nested(_INFO_DATA, attribute(_VETH_PEER | 0x8000, peer)),
            ),
        )
    )
    what = f"create veth {plan.host_ifname} with {plan.ifname} in the pod"
    return [Message(what, Kind.NEWLINK, CREATE | EXCLUSIVE, body), get_link(plan.host_ifname)]


def configure_pod(plan: LinkPlan, ifindex: int) -> list[Message]:
    """The pod's side, whole: lo up, the interface up, addresses, neighbours, routes."""
    messages = [_up(1, "lo")]
    v6 = [one for one in plan.addresses if isinstance(one, IPv6Interface)]
    if v6:
        # Without this the kernel makes a link-local address of its own and waits for DAD on it.
        messages.append(_no_automatic_address(ifindex, plan.ifname))
    messages.append(_up(ifindex, plan.ifname))
    if v6:
        messages.append(_address(ifindex, link_local(plan.pod_mac)))
    messages += [_address(ifindex, address) for address in plan.addresses]
    for gateway in plan.gateways:
        messages += _ways_out(plan, ifindex, gateway)
    return messages


def open_host(plan: LinkPlan, ifindex: int) -> list[Message]:
    """The host end up and, where pods are routed, the routes that lead to this one."""
    messages = [_no_reverse_path_filter(ifindex, plan.host_ifname)]
    if any(one.version == 6 for one in plan.addresses):
        messages.append(_no_automatic_address(ifindex, plan.host_ifname))
    messages.append(_up(ifindex, plan.host_ifname))
    if plan.mode is LinkMode.ROUTED:
        for address in plan.addresses:
            messages.append(_neighbour(ifindex, address.ip, plan.pod_mac))
            messages.append(_host_route(plan, ifindex, address.ip))
    return messages


def get_link(name: str) -> Message:
    body = _IFINFO.pack(0, 0, 0, 0, 0) + attribute(_IFLA_IFNAME, name)
    body += attribute(_IFLA_EXT_MASK, _SKIP_STATISTICS)
    return Message(f"look {name} up", Kind.GETLINK, 0, body)


def list_veths() -> Message:
    """A dump of every veth of the namespace; never on the path of an ADD."""
    body = _IFINFO.pack(0, 0, 0, 0, 0)
    body += nested(_IFLA_LINKINFO, attribute(_INFO_KIND, "veth"))
    body += attribute(_IFLA_EXT_MASK, _SKIP_STATISTICS)
    return Message("list the veth links", Kind.GETLINK, DUMP, body)


def list_addresses(ifindex: int) -> Message:
    body = _IFADDR.pack(0, 0, 0, 0, ifindex)
    return Message(f"list the addresses of link {ifindex}", Kind.GETADDR, DUMP, body)


def list_routes(ip_family: int, ifindex: int) -> Message:
    body = _RTMSG.pack(ip_family, 0, 0, 0, 0, 0, 0, 0, 0) + attribute(_RTA_OIF, ifindex)
    return Message(f"list the routes by link {ifindex}", Kind.GETROUTE, DUMP, body)


def get_route(address: Address) -> Message:
    body = _RTMSG.pack(family(address), address.max_prefixlen, 0, 0, 0, 0, 0, 0, 0)
    body += attribute(_RTA_DST, address.packed)
    return Message(f"ask for the route to {address}", Kind.GETROUTE, 0, body)


def delete_link(name: str) -> Message:
    body = _IFINFO.pack(0, 0, 0, 0, 0) + attribute(_IFLA_IFNAME, name)
    return Message(f"delete {name}", Kind.DELLINK, 0, body)


def doom(names: Iterable[str]) -> list[Message]:
    """Moves links into the group that `delete_doomed` removes at once."""
    return [
        Message(
            f"mark {name} for deletion",
            Kind.SETLINK,
            0,
            _IFINFO.pack(0, 0, 0, 0, 0)
            + attribute(_IFLA_IFNAME, name)
            + attribute(_IFLA_GROUP, DOOMED_GROUP),
        )
        for name in names
    ]


def delete_doomed() -> Message:
    body = _IFINFO.pack(0, 0, 0, 0, 0) + attribute(_IFLA_GROUP, DOOMED_GROUP)
    return Message("delete the marked links", Kind.DELLINK, 0, body)


def create_bridge(name: str, mac: str, mtu_bytes: int) -> Message:
    body = _IFINFO.pack(0, 0, 0, _UP, _UP) + b"".join(
        (
            attribute(_IFLA_IFNAME, name),
            attribute(_IFLA_ADDRESS, mac_bytes(mac)),
            attribute(_IFLA_MTU, mtu_bytes),
            nested(_IFLA_LINKINFO, attribute(_INFO_KIND, "bridge")),
        )
    )
    return Message(f"create the bridge {name}", Kind.NEWLINK, CREATE | EXCLUSIVE, body)


def bridge_address(ifindex: int, address: Interface) -> Message:
    return _address(ifindex, address, CREATE | REPLACE)


def link_local(mac: str) -> IPv6Interface:
    """fe80::/64 with the modified EUI-64 of `mac` (RFC 4291, appendix A)."""
    raw = bytearray(mac_bytes(mac))
    raw[0] ^= 2
    host = bytes(raw[:3]) + b"\xff\xfe" + bytes(raw[3:])
    return IPv6Interface((IPv6Address(b"\xfe\x80" + b"\0" * 6 + host), 64))


def _up(ifindex: int, name: str) -> Message:
    return Message(f"set {name} up", Kind.SETLINK, 0, _IFINFO.pack(0, 0, ifindex, _UP, _UP))


def _no_automatic_address(ifindex: int, name: str) -> Message:
    mode = attribute(_INET6_ADDR_GEN_MODE, bytes([_ADDR_GEN_NONE]))
    body = _IFINFO.pack(0, 0, ifindex, 0, 0)
    body += nested(_IFLA_AF_SPEC, nested(socket.AF_INET6, mode))
    return Message(f"stop automatic IPv6 addresses on {name}", Kind.SETLINK, 0, body)


def _no_reverse_path_filter(ifindex: int, name: str) -> Message:
    """Replies of a pod may leave by a redirect, so the reverse path must not be judged here."""
    body = _IFINFO.pack(0, 0, ifindex, 0, 0)
    conf = nested(_INET_CONF, attribute(_RP_FILTER, 0))
    body += nested(_IFLA_AF_SPEC, nested(socket.AF_INET, conf))
    return Message(f"turn rp_filter off on {name}", Kind.SETLINK, 0, body)


def _address(ifindex: int, address: Interface, flags: int = CREATE | EXCLUSIVE) -> Message:
    scope = _SCOPE_LINK if address.is_link_local else _SCOPE_UNIVERSE
    body = _IFADDR.pack(family(address.ip), address.network.prefixlen, 0, scope, ifindex)
    body += attribute(_IFA_LOCAL, address.packed) + attribute(_IFA_ADDRESS, address.packed)
    if address.version == 6:
        body += attribute(_IFA_FLAGS, _IFA_F_NODAD)
    return Message(f"add address {address}", Kind.NEWADDR, flags, body)


def _ways_out(plan: LinkPlan, ifindex: int, gateway: Address) -> list[Message]:
    """Routed pods know their gateway by a permanent neighbour and reach it by a link route.

    Where packets that leave the node must be smaller than the link's, the default route says how
    small, and the node's own ranges have a route without a word of it.
    """
    messages: list[Message] = []
    if gateway in ROUTED_GATEWAYS:
        messages.append(_neighbour(ifindex, gateway, plan.host_mac))
    if gateway in ROUTED_GATEWAYS and gateway.version == 4:
        header = _route_header(gateway, 32, _PROTOCOL_STATIC, _SCOPE_LINK)
        way = attribute(_RTA_DST, gateway.packed) + attribute(_RTA_OIF, ifindex)
        what = f"add route to the gateway {gateway}"
        messages.append(Message(what, Kind.NEWROUTE, CREATE | APPEND, header + way))
    for one in plan.local_ranges if plan.route_mtu_bytes else ():
        if one.version == gateway.version:
            header = _route_header(gateway, one.prefixlen, _PROTOCOL_STATIC, _SCOPE_UNIVERSE)
            header += attribute(_RTA_DST, one.network_address.packed)
            messages.append(_by_gateway(f"route to {one}", header, ifindex, gateway))
    default = _route_header(gateway, 0, _PROTOCOL_STATIC, _SCOPE_UNIVERSE)
    if plan.route_mtu_bytes:
        default += nested(_RTA_METRICS, attribute(_RTAX_MTU, plan.route_mtu_bytes))
    return [*messages, _by_gateway("default route", default, ifindex, gateway)]


def _by_gateway(what: str, header: bytes, ifindex: int, gateway: Address) -> Message:
    """A container may have several interfaces: the first one's route stays in force. IPv4 appends
    the later ones behind it; IPv6 would spread flows over equal ones, so theirs weigh more.
    """
    body = header + attribute(_RTA_GATEWAY, gateway.packed) + attribute(_RTA_OIF, ifindex)
    if gateway.version == 6:
        body += attribute(_RTA_PRIORITY, _IPV6_ROUTE_METRIC + ifindex)
    return Message(f"add {what} by {gateway}", Kind.NEWROUTE, CREATE | APPEND, body)


def _host_route(plan: LinkPlan, ifindex: int, address: Address) -> Message:
    source = next((one for one in plan.sources if one.version == address.version), None)
    scope = _SCOPE_LINK if address.version == 4 else _SCOPE_UNIVERSE
    body = _route_header(address, address.max_prefixlen, ROUTE_PROTOCOL, scope)
    body += attribute(_RTA_DST, address.packed) + attribute(_RTA_OIF, ifindex)
    if source is not None:
        body += attribute(_RTA_PREFSRC, source.packed)
    return Message(f"add route to {address}", Kind.NEWROUTE, CREATE | REPLACE, body)


def _route_header(address: Address, prefix: int, protocol: int, scope: int) -> bytes:
    return _RTMSG.pack(family(address), prefix, 0, 0, _TABLE_MAIN, protocol, scope, _UNICAST, 0)


def _neighbour(ifindex: int, address: Address, mac: str) -> Message:
    body = _NDMSG.pack(family(address), ifindex, _NUD_PERMANENT, 0, 0)
    body += attribute(_NDA_DST, address.packed) + attribute(_NDA_LLADDR, mac_bytes(mac))
    return Message(f"set neighbour {address}", Kind.NEWNEIGH, CREATE | REPLACE, body)
