"""Owns the conversation with the kernel's nftables: frames, attributes, dumps and transactions.

By netlink, not by a tool: the tool that made a table may be newer or older than any that the image
carries, the kernel's messages (linux/netfilter/nf_tables.h) are one and the same. Never knows what
a rule means.
"""

import errno
import os
import socket
import struct
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from enum import IntEnum
from typing import NamedTuple

NETLINK_NETFILTER = 12
CREATE, APPEND = 0x400, 0x800
"""Flags of a message that makes something: it may be there, and a rule goes to its chain's end."""

_SUBSYSTEM = 10
_BATCH_BEGIN, _BATCH_END = 16, 17
_ERROR, _DONE = 2, 3
_REQUEST, _ACK, _DUMP, _INTERRUPTED = 0x1, 0x4, 0x300, 0x10
_HEADER, _GENERAL, _ATTRIBUTE = struct.Struct("=IHHII"), struct.Struct(">BBH"), struct.Struct("=HH")
_NESTED, _KIND_MASK = 0x8000, 0x3FFF
_RECEIVE_BYTES = 1 << 18
_DUMP_ATTEMPTS = 5
_SO_SNDBUFFORCE = 32
_GENERATION_ID = 1
_NO_NFTABLES = (errno.EINVAL, errno.EPROTONOSUPPORT, errno.EOPNOTSUPP)


class Message(IntEnum):
    """NFT_MSG_*."""

    NEW_TABLE = 0
    GET_TABLE = 1
    DELETE_TABLE = 2
    NEW_CHAIN = 3
    GET_CHAIN = 4
    DELETE_CHAIN = 5
    NEW_RULE = 6
    GET_RULE = 7
    DELETE_RULE = 8
    NEW_SET = 9
    GET_SET = 10
    DELETE_SET = 11
    NEW_ELEMENT = 12
    GET_ELEMENT = 13
    DELETE_ELEMENT = 14
    NEW_GENERATION = 15
    GET_GENERATION = 16


class Order(NamedTuple):
    """One message of a transaction: attributes, and flags beside the request's own."""

    message: Message
    body: bytes
    flags: int = 0


@contextmanager
def opened() -> Iterator["Channel"]:
    """A conversation with the nftables of this network namespace."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_NETFILTER) as channel:
        channel.bind((0, 0))
        yield Channel(channel)


class Channel:
    """Every method raises OSError with the kernel's word."""

    def __init__(self, channel: socket.socket) -> None:
        self._socket = channel
        self._sequence = 0

    def generation(self) -> int | None:
        """A number that moves with every change of any rule, chain or table; None: the kernel has
        no nftables.
        """
        try:
            answers = self._ask(Message.GET_GENERATION, 0, b"", 0)
        except OSError as error:
            if error.errno in _NO_NFTABLES:
                return None
            raise
        found = (_body(answer) for kind, answer in answers if kind == Message.NEW_GENERATION)
        return next((int.from_bytes(one[_GENERATION_ID], "big") for one in found), None)

    def dump(self, what: Message, family: int, asked: bytes) -> list[tuple[int, dict[int, bytes]]]:
        """Families and attributes of what there is; read again when it moved meanwhile."""
        for attempt in range(_DUMP_ATTEMPTS):
            try:
                answers = self._ask(what, family, asked, _DUMP)
            except InterruptedError:
                if attempt == _DUMP_ATTEMPTS - 1:
                    raise
                continue
            return [(answer[0], _body(answer)) for _, answer in answers]
        return []

    def transact(self, family: int, orders: Sequence[Order]) -> None:
        """All of `orders` or none."""
        frames = [self._frame(_BATCH_BEGIN, 0, _GENERAL.pack(0, 0, _SUBSYSTEM))]
        for message, body, flags in orders:
            body = _GENERAL.pack(family, 0, 0) + body
            frames.append(self._frame(_SUBSYSTEM << 8 | message, flags | _ACK, body))
        frames.append(self._frame(_BATCH_END, 0, _GENERAL.pack(0, 0, _SUBSYSTEM)))
        data = b"".join(frames)
        self._socket.setsockopt(socket.SOL_SOCKET, _SO_SNDBUFFORCE, 2 * len(data) + _RECEIVE_BYTES)
        self._socket.send(data)
        self._await(len(orders))

    def _await(self, answers: int) -> None:
        """Take every answer, so that none is left for the next question; raise the first error."""
        failed: OSError | None = None
        while answers:
            for kind, _, payload in _messages(self._socket.recv(_RECEIVE_BYTES)):
                if kind != _ERROR:
                    continue
                answers -= 1
                try:
                    _raise(payload)
                except OSError as error:
                    failed = failed or error
        if failed:
            raise failed

    def _ask(self, what: int, family: int, asked: bytes, flags: int) -> list[tuple[int, bytes]]:
        body = _GENERAL.pack(family, 0, 0) + asked
        ends = _ACK if not flags else 0
        self._socket.send(self._frame(_SUBSYSTEM << 8 | what, flags | ends, body))
        answers: list[tuple[int, bytes]] = []
        interrupted = False
        while True:
            for kind, marks, payload in _messages(self._socket.recv(_RECEIVE_BYTES)):
                interrupted = interrupted or bool(marks & _INTERRUPTED)
                if kind == _ERROR:
                    _raise(payload)
                if kind in (_ERROR, _DONE):
                    if interrupted:
                        raise InterruptedError("rules changed while they were read")
                    return answers
                answers.append((kind & 0xFF, payload))

    def _frame(self, kind: int, flags: int, body: bytes) -> bytes:
        self._sequence += 1
        size = _HEADER.size + len(body)
        return _HEADER.pack(size, kind, _REQUEST | flags, self._sequence, 0) + body


def _messages(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Kind, flags and body of each message in one datagram."""
    at = 0
    while at + _HEADER.size <= len(data):
        size, kind, flags, _, _ = _HEADER.unpack_from(data, at)
        if size < _HEADER.size:
            return
        yield kind, flags, data[at + _HEADER.size : at + size]
        at += size + 3 & ~3


def _raise(payload: bytes) -> None:
    code = -int.from_bytes(payload[:4], "little", signed=True)
    if code:
        raise OSError(code, f"nftables: {os.strerror(code)}")


# --- Attributes ---------------------------------------------------------------------------------
def attribute(kind: int, data: bytes | str) -> bytes:
    """One attribute; text ends with a zero byte."""
    if isinstance(data, str):
        data = data.encode() + b"\0"
    return _ATTRIBUTE.pack(_ATTRIBUTE.size + len(data), kind) + data + bytes(-len(data) % 4)


def number(kind: int, value: int, size: int = 4) -> bytes:
    """A number of `size` bytes, in network order as all of nftables'."""
    return attribute(kind, value.to_bytes(size, "big"))


def nest(kind: int, *parts: bytes) -> bytes:
    """An attribute of attributes."""
    return attribute(kind | _NESTED, b"".join(parts))


def attributes(data: bytes) -> dict[int, bytes]:
    """A nest's; of those that repeat the last one."""
    return dict(listed(data))


def listed(data: bytes) -> Iterator[tuple[int, bytes]]:
    """A nest's one by one: in a list all have one kind."""
    at = 0
    while at + _ATTRIBUTE.size <= len(data):
        size, kind = _ATTRIBUTE.unpack_from(data, at)
        yield kind & _KIND_MASK, data[at + _ATTRIBUTE.size : at + size]
        at += max(_ATTRIBUTE.size, size + 3 & ~3)


def value(data: bytes) -> int:
    """A number as `number` writes it; of nothing 0, as the kernel takes what is left out."""
    return int.from_bytes(data, "big")


def text(data: bytes) -> str:
    """What `attribute` makes of text."""
    return data.rstrip(b"\0").decode(errors="replace")


def _body(answer: bytes) -> dict[int, bytes]:
    """A message's attributes, behind its struct nfgenmsg."""
    return attributes(answer[_GENERAL.size :])


Attributes = Mapping[int, bytes]
