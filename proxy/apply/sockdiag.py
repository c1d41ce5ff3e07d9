"""Owns the messages by which the kernel lists connected UDP sockets and ends them.

By netlink (linux/sock_diag.h, linux/inet_diag.h), in the network namespace in which it is opened.
Never decides which socket is to end.
"""

import errno
import os
import socket
import struct
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address

from weft.proxy.model.objects import Address

_NETLINK_SOCK_DIAG = 4
_SOCK_DIAG_BY_FAMILY, _SOCK_DESTROY = 20, 21
_ERROR, _DONE = 2, 3
_REQUEST, _ACK, _DUMP = 0x1, 0x4, 0x300
_HEADER = struct.Struct("=IHHII")
# struct inet_diag_req_v2 but for its inet_diag_sockid: family, protocol, ext, pad, states.
_ASKED = struct.Struct("=BBBxI")
_ID_BYTES, _ID_AT = 48, 4
_PEER = struct.Struct("=2x2s16x16s4xQ")
# A UDP socket is as good as established once it is connected (net/ipv4/datagram.c).
_ESTABLISHED = 1 << 1
_BYTECODE, _DESTINATION = 1, 8
_OPERATION, _CONDITION = struct.Struct("=BBH"), struct.Struct("=BBxxi")
_RECEIVE_BYTES = 1 << 18
_AT_ONCE = 128
# No way to end, no list of UDP sockets (CONFIG_INET_UDP_DIAG), no netlink for it.
_LACKING = (errno.EOPNOTSUPP, errno.ENOENT, errno.EPROTONOSUPPORT)
_DISCARD = ("127.0.0.1", 9)


@dataclass(frozen=True, slots=True)
class Connected:
    """A connected UDP socket. family: the socket's own, whose peer may be a mapped address."""

    family: int
    id: bytes
    """struct inet_diag_sockid: both ends and the cookie, by which exactly this one is meant."""
    cookie: int
    peer: Address
    port: int


@contextmanager
def opened() -> Iterator["SockDiag"]:
    """A conversation with this network namespace's sockets."""
    channel = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_SOCK_DIAG)
    with closing(channel):
        channel.bind((0, 0))
        yield SockDiag(channel)


def can_end() -> bool:
    """Whether this kernel ends sockets (CONFIG_INET_DIAG_DESTROY), tried on one of our own."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as own:
        # Connecting sends nothing.
        own.connect(_DISCARD)
        port = own.getsockname()[1].to_bytes(2, "big")
        try:
            with opened() as diag:
                found = diag.connected(IPv4Address(_DISCARD[0]), _DISCARD[1])
                return diag.end([one for one in found if one.id[:2] == port]) == 1
        except OSError as error:
            if error.errno not in _LACKING:
                raise
            return False


class SockDiag:
    """What the kernel is asked and told. Every method raises OSError."""

    def __init__(self, channel: socket.socket) -> None:
        self._socket = channel
        self._sequence = 0

    def connected(self, peer: Address | None = None, port: int = 0) -> list[Connected]:
        """The UDP sockets that are connected to `peer` and `port`; None: to anything.

        A peer of IPv4 has IPv6 sockets too, by its mapped address.
        """
        families = [socket.AF_INET, socket.AF_INET6]
        if peer is not None and peer.version == 6:
            families = [socket.AF_INET6]
        only = _destination(peer, port) if peer is not None else b""
        return [one for family in families for one in self._dump(family, only)]

    def end(self, sockets: Sequence[Connected]) -> int:
        """End them: their next call fails, and they may be connected anew. How many there were."""
        return sum(
            self._end(sockets[at : at + _AT_ONCE]) for at in range(0, len(sockets), _AT_ONCE)
        )

    def _dump(self, family: int, only: bytes) -> Iterator[Connected]:
        body = _ASKED.pack(family, socket.IPPROTO_UDP, 0, _ESTABLISHED) + bytes(_ID_BYTES) + only
        self._socket.send(self._frame(_SOCK_DIAG_BY_FAMILY, _DUMP, body))
        while True:
            for kind, payload in self._receive():
                if kind == _ERROR:
                    _raise(_code(payload))
                if kind in (_ERROR, _DONE):
                    return
                yield _connected(payload)

    def _end(self, sockets: Sequence[Connected]) -> int:
        frames = []
        for one in sockets:
            body = _ASKED.pack(one.family, socket.IPPROTO_UDP, 0, _ESTABLISHED) + one.id
            frames.append(self._frame(_SOCK_DESTROY, _ACK, body))
        self._socket.send(b"".join(frames))
        codes: list[int] = []
        while len(codes) < len(sockets):
            codes += [_code(payload) for kind, payload in self._receive() if kind == _ERROR]
        for code in codes:
            # Closed meanwhile, or connected to another peer.
            if code != errno.ENOENT:
                _raise(code)
        return codes.count(0)

    def _frame(self, kind: int, flags: int, body: bytes) -> bytes:
        self._sequence += 1
        size = _HEADER.size + len(body)
        return _HEADER.pack(size, kind, _REQUEST | flags, self._sequence, 0) + body

    def _receive(self) -> Iterator[tuple[int, bytes]]:
        data, at = self._socket.recv(_RECEIVE_BYTES), 0
        while at + _HEADER.size <= len(data):
            size, kind, *_ = _HEADER.unpack_from(data, at)
            yield kind, data[at + _HEADER.size : at + size]
            at += size + 3 & ~3


def _destination(peer: Address, port: int) -> bytes:
    """The attribute that has the kernel list the sockets of one peer only.

    One operation: where it holds it goes on to the end, else past it, which refuses.
    """
    family = socket.AF_INET if peer.version == 4 else socket.AF_INET6
    condition = _CONDITION.pack(family, peer.max_prefixlen, port) + peer.packed
    size = _OPERATION.size + len(condition)
    code = _OPERATION.pack(_DESTINATION, size, size + 4) + condition
    return struct.pack("=HH", 4 + len(code), _BYTECODE) + code


def _connected(payload: bytes) -> Connected:
    """struct inet_diag_msg."""
    family, identity = payload[0], payload[_ID_AT : _ID_AT + _ID_BYTES]
    port, address, cookie = _PEER.unpack(identity)
    peer: Address = IPv4Address(address[:4])
    if family == socket.AF_INET6:
        peer = IPv6Address(address)
        peer = peer.ipv4_mapped or peer
    return Connected(family, identity, cookie, peer, int.from_bytes(port, "big"))


def _code(payload: bytes) -> int:
    """struct nlmsgerr."""
    code: int = -struct.unpack_from("=i", payload)[0]
    return code


def _raise(code: int) -> None:
    if code:
        raise OSError(code, f"sock_diag: {os.strerror(code)}")
