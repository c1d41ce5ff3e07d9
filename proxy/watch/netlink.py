"""Owns the node's network devices as records: names, MTU, addresses, who leads outside.

Pods' own links are not reported: they are attachments; what others hung on them to queue or
filter is. Never changes a device.
"""

import logging
import os
import re
import select
import socket
import struct
import sys
import threading
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from ipaddress import ip_address, ip_network
from typing import Any

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from weft.proxy.model.objects import Address, Kind, Link, Network, Shaping
from weft.proxy.model.world import Key, Record
from weft.proxy.watch import qdiscs
from weft.proxy.watch.events import Listed, Moved, Post

log = logging.getLogger(__name__)

_AGAIN_S = 0.05
_MOMENT_S = 0.2
# RTMGRP_LINK, RTMGRP_IPV4_IFADDR, RTMGRP_IPV6_IFADDR, RTMGRP_IPV4_ROUTE, RTMGRP_IPV6_ROUTE,
# RTMGRP_TC, RTMGRP_NEIGH
_GROUPS = 0x1 | 0x10 | 0x100 | 0x40 | 0x400 | 0x8 | 0x4
_LINK_MESSAGES, _ADDRESS_MESSAGES, _ROUTE_MESSAGES = (16, 17), (20, 21), (24, 25)
_DELLINK, _DELROUTE, _DELNEIGH, _FILTER_MESSAGES = 17, 25, 29, (44, 45)
# A link that goes down and an address that goes take routes along without a word of these.
_DEVICES = {"links", "routes"}
_IFLA_IFNAME, _RTA_OIF = 3, 4
_HEADER = struct.Struct("=IHHII")
_ATTRIBUTE = struct.Struct("=HH")
_IFINFO_SIZE, _RTMSG_SIZE = 16, 12
# Both struct ifinfomsg and struct ifaddrmsg have the ifindex at byte 4.
_IFINDEX = struct.Struct("=i")
_SCOPE_UNIVERSE = 0
_TENTATIVE_OR_DEPRECATED = 0x40 | 0x20
# Of IPv6 IFA_F_TEMPORARY, of IPv4 IFA_F_SECONDARY: one number (linux/if_addr.h).
_TEMPORARY_OR_SECONDARY = 0x01
# ARPHRD_ETHER, ARPHRD_LOOPBACK (linux/if_arp.h): what tun, WireGuard and PPP are not.
_WITH_ETHERNET = (1, 772)


class Netlink:
    """Posts the node's links and what others hung on pods' links, then their changes.

    pod_links: what names of pods' links look like. pod_block: the block of filters that our qdisc
    on each of them shares. route_protocol, pod_route_protocol: the marks of
    the node's routes to other nodes' pods and to its own.
    suspect: told what another hand may have touched: "links", "routes", "hooks" or "pod routes".
    """

    def __init__(
        self,
        post: Post,
        suspect: Callable[[str], None],
        pod_links: re.Pattern[str],
        pod_block: int,
        route_protocol: int,
        pod_route_protocol: int,
    ) -> None:
        self._post = post
        self._suspect = suspect
        self._pod_links = pod_links
        self._pod_block = pod_block
        self._route_protocol = route_protocol
        self._pod_route_protocol = pod_route_protocol
        self._said: dict[Kind, dict[Key, Record]] = {}
        self._pods: dict[int, str] = {}
        """Names of pods' links by ifindex."""
        self._bereft: set[int] = set()
        """Pods' links that lost a route, a neighbour or their bridge: a theft, if they are still
        there a moment later."""
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
        self._ended, self._end = os.pipe()

    def start(self) -> None:
        """Post the links and follow, on a thread: pyroute2 wants no event loop around it."""
        self._socket.bind((0, _GROUPS))
        threading.Thread(target=self._follow, name="netlink", daemon=True).start()

    def stop(self) -> None:
        os.close(self._end)

    def scan(self) -> None:
        """Read all links and post the difference; the first time, everything."""
        links, shapings = self._settled()
        self._say(Kind.LINK, {link.name: link for link in links})
        self._say(Kind.SHAPING, {shaping.link: shaping for shaping in shapings})

    def _say(self, kind: Kind, now: dict[Key, Record]) -> None:
        before = self._said.get(kind)
        self._said[kind] = now
        if before is None:
            self._post(Listed(kind, now))
            return
        for name in before.keys() - now.keys():
            self._post(Moved(kind, name, None))
        for name, record in now.items():
            if before.get(name) != record:
                self._post(Moved(kind, name, record))

    def _settled(self) -> tuple[list[Link], list[Shaping]]:
        """All links, read until nothing moved meanwhile: the kernel marks such dumps, and a link
        may be gone before its addresses are asked for.
        """
        while True:
            try:
                with IPRoute() as netlink:
                    return list(self._read(netlink)), list(self._shapings())
            except (NetlinkError, OSError) as error:
                log.debug("links moved while read", extra={"error": str(error)})
                select.select([self._ended], [], [], _AGAIN_S)

    def _follow(self) -> None:
        self.scan()
        while True:
            moment_s = _MOMENT_S if self._bereft else None
            ready, _, _ = select.select([self._socket.fileno(), self._ended], [], [], moment_s)
            if self._ended in ready:
                self._socket.close()
                return
            touched = self._drain() if ready else self._thefts()
            for table in touched - {""}:
                self._suspect(table)
            if touched & {"", "links"}:
                self.scan()

    def _thefts(self) -> set[str]:
        found = {"pod routes"} if self._bereft & self._pods.keys() else set()
        self._bereft.clear()
        return found

    def _drain(self) -> set[str]:
        """What all waiting messages touch: desired tables, "" for links alone."""
        touched: set[str] = set()
        while True:
            try:
                data = self._socket.recv(1 << 18, socket.MSG_DONTWAIT)
            except BlockingIOError:
                return touched
            except OSError:
                # ENOBUFS: the kernel dropped messages; a dump says what they would have.
                return {"links", "routes", "pod routes", "hooks"}
            for kind, body in _messages(data):
                touched |= self._touches(kind, body)

    def _touches(self, kind: int, body: bytes) -> set[str]:
        if kind in _LINK_MESSAGES:
            if not self._is_pods(kind, body):
                if kind == _DELLINK:
                    self._bereft |= self._pods.keys()
                return _DEVICES
            shaped = _ifname(body) in self._said.get(Kind.SHAPING, {})
            return {""} if kind == _DELLINK and shaped else set()
        if kind in _ADDRESS_MESSAGES:
            return set() if _IFINDEX.unpack_from(body, 4)[0] in self._pods else _DEVICES
        if kind in (qdiscs.NEW, qdiscs.DELETED):
            return self._qdisc_touches(kind, qdiscs.parse(body))
        if kind in _FILTER_MESSAGES:
            return {"hooks"}
        if kind == _DELNEIGH:
            self._bereft |= {_IFINDEX.unpack_from(body, 4)[0]} & self._pods.keys()
            return set()
        return self._route_touches(kind, body) if kind in _ROUTE_MESSAGES else set()

    def _qdisc_touches(self, kind: int, qdisc: qdiscs.Qdisc) -> set[str]:
        if qdisc.ifindex not in self._pods:
            return set()
        if self._is_foreign(qdisc):
            return {""}
        return {"hooks"} if kind == qdiscs.DELETED and qdisc.block == self._pod_block else set()

    def _is_foreign(self, qdisc: qdiscs.Qdisc) -> bool:
        """A qdisc that somebody made has a handle, the kernel's default none."""
        return bool(qdisc.handle) and qdisc.block != self._pod_block

    def _shapings(self) -> Iterator[Shaping]:
        kinds: dict[str, list[str]] = defaultdict(list)
        for qdisc in qdiscs.dump():
            if qdisc.ifindex in self._pods and self._is_foreign(qdisc):
                kinds[self._pods[qdisc.ifindex]].append(qdisc.kind)
        return (Shaping(link, tuple(sorted(of))) for link, of in kinds.items())

    def _route_touches(self, kind: int, body: bytes) -> set[str]:
        # struct rtmsg: family, dst_len, src_len, tos, table, protocol
        prefix_len, protocol = body[1], body[5]
        if protocol == self._pod_route_protocol and kind == _DELROUTE:
            self._bereft.add(int.from_bytes(_attribute(body, _RTMSG_SIZE, _RTA_OIF), sys.byteorder))
        found = {"routes"} if protocol == self._route_protocol else set()
        return found | ({""} if prefix_len == 0 else set())

    def _is_pods(self, kind: int, body: bytes) -> bool:
        """Whether a link message is of a pod's link, whose ifindex is remembered while it lives."""
        if not self._pod_links.fullmatch(_ifname(body)):
            return False
        ifindex = _IFINDEX.unpack_from(body, 4)[0]
        if kind == _DELLINK:
            self._pods.pop(ifindex, None)
        else:
            self._pods[ifindex] = _ifname(body)
        return True

    def _read(self, netlink: Any) -> Iterator[Link]:
        addresses = _addresses(netlink)
        defaults = {
            route.get("RTA_OIF")
            for family in (socket.AF_INET, socket.AF_INET6)
            for route in netlink.get_default_routes(family=family)
        }
        for link in netlink.get_links():
            name, ifindex = str(link.get("IFLA_IFNAME")), int(link["index"])
            if self._pod_links.fullmatch(name):
                self._pods[ifindex] = name
            else:
                found = addresses.get(ifindex, ())
                yield Link(
                    name,
                    ifindex,
                    mtu_bytes=int(link.get("IFLA_MTU")),
                    addresses=tuple(address for address, _ in found),
                    default_route=ifindex in defaults,
                    networks=tuple(dict.fromkeys(network for _, network in found)),
                    has_ethernet=link["ifi_type"] in _WITH_ETHERNET,
                )


def _ifname(body: bytes) -> str:
    """The name in a link message; "" when there is none."""
    name = _attribute(body, _IFINFO_SIZE, _IFLA_IFNAME)
    return name.rstrip(b"\0").decode(errors="replace")


def _attribute(body: bytes, at: int, wanted: int) -> bytes:
    """One of the attributes that begin at `at` (struct rtattr); empty when it is not there."""
    while at + _ATTRIBUTE.size <= len(body):
        size, kind = _ATTRIBUTE.unpack_from(body, at)
        if kind == wanted:
            return body[at + _ATTRIBUTE.size : at + size]
        at += max((size + 3) & ~3, _ATTRIBUTE.size)
    return b""


def _addresses(netlink: Any) -> Mapping[int, list[tuple[Address, Network]]]:
    """Addresses that may be a packet's source, each with the network that it is in, by ifindex:
    first those that stay, of these the oldest.
    """
    found: dict[int, list[tuple[Address, Network]]] = defaultdict(list)
    for message in _oldest_first(netlink.get_addr()):
        if message["scope"] == _SCOPE_UNIVERSE and not _flags(message) & _TENTATIVE_OR_DEPRECATED:
            # IFA_ADDRESS is the other end's on a point-to-point link, and its prefix goes with it.
            far = message.get("IFA_ADDRESS")
            own = ip_address(message.get("IFA_LOCAL") or far)
            network = ip_network(f"{far or own}/{message['prefixlen']}", strict=False)
            found[message["index"]].append((own, network))
    return found


def _oldest_first(messages: Iterable[Any]) -> list[Any]:
    """The kernel lists a link's IPv4 addresses as they came, IPv6's the latest first
    (net/ipv6/addrconf.c, ipv6_link_dev_addr, 6.18)."""
    listed = list(messages)
    older = [m for m in listed if m["family"] == socket.AF_INET]
    older += [m for m in reversed(listed) if m["family"] != socket.AF_INET]
    return sorted(older, key=lambda message: _flags(message) & _TEMPORARY_OR_SECONDARY)


def _flags(message: Any) -> int:
    return int(message.get("IFA_FLAGS") or message["flags"])


def _messages(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Type and body of each message in one datagram (struct nlmsghdr)."""
    at = 0
    while at + _HEADER.size <= len(data):
        size, kind, _, _, _ = _HEADER.unpack_from(data, at)
        if size < _HEADER.size:
            return
        yield kind, data[at + _HEADER.size : at + size]
        at += (size + 3) & ~3
