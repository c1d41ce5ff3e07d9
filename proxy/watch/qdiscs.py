"""Owns what RTM_NEWQDISC and RTM_DELQDISC say: whose a qdisc is, on which link, of what kind.

Source: linux/rtnetlink.h, linux/pkt_sched.h. Never decides what follows from a qdisc.
"""

import socket
import struct
import sys
from collections.abc import Iterator
from dataclasses import dataclass

NEW, DELETED = 36, 37
_GET = 38
_REQUEST_DUMP = 0x1 | 0x300
_DUMP_INTERRUPTED = 0x10
_DONE, _ERROR = 3, 2
_HEADER = struct.Struct("=IHHII")
# struct tcmsg: family and padding, ifindex, handle, parent, info.
_TCMSG = struct.Struct("=B3xiIII")
_ATTRIBUTE = struct.Struct("=HH")
_TCA_KIND, _TCA_INGRESS_BLOCK = 1, 13


class DumpFailed(OSError):
    """The kernel's qdiscs could not be read in one piece."""


@dataclass(frozen=True, slots=True)
class Qdisc:
    """block: the shared block of filters on its ingress, 0: none. handle 0: the kernel's own."""

    ifindex: int
    kind: str
    handle: int
    block: int


def parse(body: bytes) -> Qdisc:
    """The body of an RTM_NEWQDISC or RTM_DELQDISC."""
    _, ifindex, handle, _, _ = _TCMSG.unpack_from(body)
    found = dict(attributes(body[_TCMSG.size :]))
    kind = found.get(_TCA_KIND, b"").rstrip(b"\0").decode(errors="replace")
    block = int.from_bytes(found.get(_TCA_INGRESS_BLOCK, b""), sys.byteorder)
    return Qdisc(ifindex, kind, handle, block)


def dump() -> list[Qdisc]:
    """Every qdisc of the present network namespace. Raises OSError."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as kernel:
        size = _HEADER.size + _TCMSG.size
        kernel.send(_HEADER.pack(size, _GET, _REQUEST_DUMP, 1, 0) + _TCMSG.pack(0, 0, 0, 0, 0))
        found: list[Qdisc] = []
        while True:
            for kind, flags, body in messages(kernel.recv(1 << 18)):
                if kind == _ERROR or flags & _DUMP_INTERRUPTED:
                    raise DumpFailed("the qdiscs moved while they were read")
                if kind == _DONE:
                    return found
                found.append(parse(body))


def messages(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Type, flags and body of each message in one datagram (struct nlmsghdr)."""
    at = 0
    while at + _HEADER.size <= len(data):
        size, kind, flags, _, _ = _HEADER.unpack_from(data, at)
        if size < _HEADER.size:
            return
        yield kind, flags, data[at + _HEADER.size : at + size]
        at += (size + 3) & ~3


def attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Number and value of each attribute (struct rtattr)."""
    at = 0
    while at + _ATTRIBUTE.size <= len(data):
        size, kind = _ATTRIBUTE.unpack_from(data, at)
        if size < _ATTRIBUTE.size:
            return
        yield kind & 0x3FFF, data[at + _ATTRIBUTE.size : at + size]
        at += (size + 3) & ~3
