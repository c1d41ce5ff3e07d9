"""Owns the node's routes to remote pods in the kernel, known by their protocol number.

Routes of any other protocol are never read as ours and never touched.
"""

import socket
from collections.abc import Collection, Hashable, Iterator, Mapping
from ipaddress import ip_address, ip_network
from typing import Any, cast

from pyroute2.netlink.exceptions import NetlinkError

from weft.proxy.apply.netlink import conversation, noting, settled
from weft.proxy.apply.target import Errors
from weft.proxy.model.objects import Network
from weft.proxy.plan.routes import Route

PROTOCOL = 88
"""rtm_protocol of these routes, which iproute2's rt_protos leaves free; 87 marks weft.cni's."""

_TABLE_MAIN = 254
_ESRCH, _ENOENT = 3, 2
_SCOPE_LINK, _SCOPE_NOWHERE = 253, 255
_ONLINK = 4  # RTNH_F_ONLINK


class RoutesTarget:
    """The table `routes`: a prefix -> Route."""

    def dump(self) -> Iterator[tuple[Hashable, object]]:
        with conversation() as netlink:
            for route in settled(lambda: _read(netlink)):
                yield route.prefix, route

    def write(self, upserts: Mapping[Hashable, object], deletes: Collection[Hashable]) -> Errors:
        errors: dict[Hashable, str] = {}
        with conversation() as netlink:
            for prefix in deletes:
                with noting(errors, prefix, "route"):
                    _delete(netlink, cast(Network, prefix))
            for prefix, row in upserts.items():
                with noting(errors, prefix, "route"):
                    _replace(netlink, cast(Route, row))
        return errors


def _replace(netlink: Any, route: Route) -> None:
    found = netlink.link_lookup(ifname=route.device)
    if not found:
        raise OSError(f"device {route.device} is not there")
    more: dict[str, object] = {}
    if route.source is not None:
        more["prefsrc"] = str(route.source)
    if route.via is not None:
        # The plan knows the neighbour; the link's own route may be away for a moment.
        more |= {"gateway": str(route.via), "flags": _ONLINK}
    elif route.prefix.version == 4:
        more["scope"] = _SCOPE_LINK
    if route.mtu_bytes:
        more["metrics"] = {"mtu": route.mtu_bytes}
    netlink.route(
        "replace", dst=str(route.prefix), oif=found[0], proto=PROTOCOL, table=_TABLE_MAIN, **more
    )


def _delete(netlink: Any, prefix: Network) -> None:
    # IPv4 deletes by scope too, unless it is nowhere (net/ipv4/fib_trie.c, fib_table_delete).
    scope = {"scope": _SCOPE_NOWHERE} if prefix.version == 4 else {}
    try:
        netlink.route("del", dst=str(prefix), proto=PROTOCOL, table=_TABLE_MAIN, **scope)
    except NetlinkError as error:
        if error.code not in (_ESRCH, _ENOENT):
            raise


def _read(netlink: Any) -> list[Route]:
    names = {link["index"]: link.get("IFLA_IFNAME") for link in netlink.get_links()}
    return [
        _as_row(names, message, family)
        for family in (socket.AF_INET, socket.AF_INET6)
        for message in netlink.get_routes(family=family, proto=PROTOCOL, table=_TABLE_MAIN)
    ]


def _as_row(names: Mapping[int, str], message: Any, family: int) -> Route:
    anywhere = "0.0.0.0" if family == socket.AF_INET else "::"
    destination = message.get("RTA_DST") or anywhere
    prefix = ip_network(f"{destination}/{message['dst_len']}")
    source, via = message.get("RTA_PREFSRC"), message.get("RTA_GATEWAY")
    metrics = message.get("RTA_METRICS")
    return Route(
        prefix,
        names.get(message.get("RTA_OIF"), ""),
        ip_address(source) if source else None,
        ip_address(via) if via else None,
        int(metrics.get("RTAX_MTU") or 0) if metrics else 0,
    )
