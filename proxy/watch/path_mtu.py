"""Owns how large a packet the kernel knows to reach other nodes' tunnel ends behind routers.

A router with a narrower link says so in an error about a packet of the node's that may not be
fragmented. The kernel keeps that as an exception of its route for ten minutes
(net.ipv4.route.mtu_expires) and tells nobody, so it is asked. Over IPv6 a pod's packet would have
to be lost first, and over IPv4 routers fragment a tunnel's packets and say nothing. So each end is
also sent a datagram of the link's size that may not be fragmented, now and then: the error is for
the kernel, and where it is lost on its way nothing else is. Never decides what follows.
"""

import asyncio
import contextlib
import errno
import socket
import struct
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping

from weft.proxy.model.objects import Address, Kind, PathMtu
from weft.proxy.watch.events import Moved, Post
from weft.proxy.watch.qdiscs import attributes, messages

EVERY_S = 1.0
ASKED_MAX = 100
"""At one time: 100 cost 2 ms."""
PROBE_AGAIN_S = 60.0
"""Well within the life of what the kernel has learned."""

_RTM_GETROUTE, _NLMSG_ERROR, _NLM_F_REQUEST = 26, 2, 1
_RTA_DST, _RTA_METRICS, _RTAX_MTU = 1, 8, 2
_HEADER = struct.Struct("=IHHII")
# struct rtmsg: family, dst_len, src_len, tos, table, protocol, scope, type, flags.
_RTMSG = struct.Struct("=8BI")
_ATTRIBUTE = struct.Struct("=HH")
_FAMILIES = {4: socket.AF_INET, 6: socket.AF_INET6}
# linux/in.h, in6.h: IP_MTU_DISCOVER and IPV6_MTU_DISCOVER; PROBE sends up to the link's size,
# whatever is known of the path, and has what comes back kept. Python names none.
_MTU_DISCOVER = {4: (socket.IPPROTO_IP, 10), 6: (socket.IPPROTO_IPV6, 23)}
_PMTUDISC_PROBE = 3
_HEADERS_BYTES = {4: 28, 6: 48}


class KernelRoutes:
    """Asks the kernel by which route it would send, and of it only what it says of sizes."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)

    def close(self) -> None:
        self._socket.close()

    def mtu_bytes(self, end: Address) -> int:
        """The path's MTU; 0: nothing but the link's is known, or no route. Raises OSError."""
        self._socket.send(_question(end))
        for kind, _, body in messages(self._socket.recv(1 << 16)):
            if kind == _NLMSG_ERROR:
                return 0
            metrics = dict(attributes(body[_RTMSG.size :])).get(_RTA_METRICS, b"")
            return int.from_bytes(dict(attributes(metrics)).get(_RTAX_MTU, b""), sys.byteorder)
        return 0


class Probes:
    """Sends what may not be fragmented to where tunnels end.

    A VXLAN header that names no network is dropped there by the kernel, without a word
    (drivers/net/vxlan, vxlan_rcv).
    """

    def __init__(self, port: int) -> None:
        self._port = port
        self._sockets: dict[int, socket.socket] = {}
        for version, family in _FAMILIES.items():
            # A kernel may lack IPv6.
            with contextlib.suppress(OSError):
                self._sockets[version] = made = socket.socket(
                    family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK
                )
                made.setsockopt(*_MTU_DISCOVER[version], _PMTUDISC_PROBE)

    def close(self) -> None:
        for one in self._sockets.values():
            one.close()

    def send(self, end: Address, packet_bytes: int) -> None:
        """A packet that is not sent teaches nothing: no route, or the link is smaller by now."""
        size = packet_bytes - _HEADERS_BYTES[end.version]
        if end.version in self._sockets:
            with contextlib.suppress(OSError):
                self._sockets[end.version].sendto(bytes(size), (str(end), self._port))


class PathMtus:
    """Posts each end that is reached by less than the link carries, and when it no longer is.

    ends: the tunnel ends behind routers with what the link carries; the same mapping while nothing
    has changed.
    """

    def __init__(
        self,
        ends: Callable[[], Mapping[Address, int]],
        post: Post,
        mtu_bytes: Callable[[Address], int],
        probe: Callable[[Address, int], None],
    ) -> None:
        self._ends, self._post, self._mtu_bytes, self._probe = ends, post, mtu_bytes, probe
        self._followed: Mapping[Address, int] = {}
        self._round: deque[Address] = deque()
        self._probed_at_s: dict[Address, float] = {}
        self._just_probed: list[Address] = []
        self._said: dict[Address, int] = {}

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            self.look(time.monotonic())
            await asyncio.sleep(EVERY_S)

    def look(self, now_s: float) -> None:
        """Ask about those probed last, then about the next of the round, as many as fit."""
        ends = self._ends()
        if ends is not self._followed:
            self._follow(ends)
        due = [end for end in self._just_probed if end in ends]
        for _ in range(min(ASKED_MAX - len(due), len(self._round))):
            due.append(self._round[0])
            self._round.rotate(-1)
        self._just_probed = []
        for end in dict.fromkeys(due):
            self._ask(end, ends[end])
            if now_s - self._probed_at_s.get(end, -PROBE_AGAIN_S) >= PROBE_AGAIN_S:
                self._probed_at_s[end] = now_s
                self._just_probed.append(end)
                self._probe(end, ends[end])

    def _follow(self, ends: Mapping[Address, int]) -> None:
        """What came is the next of the round."""
        self._followed = ends
        kept = [end for end in self._round if end in ends]
        self._round = deque([*(ends.keys() - set(kept)), *kept])
        self._probed_at_s = {e: at_s for e, at_s in self._probed_at_s.items() if e in ends}
        self._say_gone(self._said.keys() - ends.keys())

    def _say_gone(self, ends: Iterable[Address]) -> None:
        for end in list(ends):
            del self._said[end]
            self._post(Moved(Kind.PATH_MTU, str(end), None))

    def _ask(self, end: Address, link_bytes: int) -> None:
        try:
            found = self._mtu_bytes(end)
        except OSError as error:
            if error.errno != errno.ENOBUFS:
                raise
            return
        if not 0 < found < link_bytes:
            self._say_gone({end} & self._said.keys())
        elif self._said.get(end) != found:
            self._said[end] = found
            record = PathMtu(end, found)
            self._post(Moved(Kind.PATH_MTU, record.key, record))


def _question(end: Address) -> bytes:
    family, bits = _FAMILIES[end.version], end.max_prefixlen
    body = _RTMSG.pack(family, bits, 0, 0, 0, 0, 0, 0, 0)
    body += _ATTRIBUTE.pack(_ATTRIBUTE.size + len(end.packed), _RTA_DST) + end.packed
    return _HEADER.pack(_HEADER.size + len(body), _RTM_GETROUTE, _NLM_F_REQUEST, 1, 0) + body
