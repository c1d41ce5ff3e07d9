"""Traffic control by raw rtnetlink: qdiscs and filters, many requests in one system call.

Owns the messages' bytes (linux/rtnetlink.h, linux/pkt_sched.h, linux/pkt_cls.h). Decides nothing;
the kernel's answer to each request goes to the caller.
"""

import errno
import os
import socket
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from types import TracebackType
from typing import Self

REQUEST, ACK, REPLACE, EXCLUSIVE, CREATE, DUMP = 0x1, 0x4, 0x100, 0x200, 0x400, 0x300
_ERROR, _DONE = 2, 3
_EXT_ACK_MESSAGE = 1
_CAPPED, _ACK_TLVS = 0x100, 0x200
_SOL_NETLINK, _CAP_ACK, _EXT_ACK = 270, 10, 11
_RECEIVE_BYTES = 1 << 20
_REQUESTS_AT_ONCE = 128


class Message(IntEnum):
    """Requests of traffic control."""

    NEW_QDISC = 36
    DELETE_QDISC = 37
    GET_QDISC = 38
    NEW_FILTER = 44
    DELETE_FILTER = 45
    GET_FILTER = 46


@dataclass(frozen=True, slots=True)
class Traffic:
    """struct tcmsg with its attributes: what a request carries, and what a dump answers."""

    ifindex: int
    handle: int = 0
    parent: int = 0
    info: int = 0
    attributes: bytes = b""

    def pack(self) -> bytes:
        # An ifindex of 0xffffffff means "parent is a block".
        head = struct.pack("=4xIIII", self.ifindex, self.handle, self.parent, self.info)
        return head + self.attributes

    @classmethod
    def unpack(cls, data: bytes) -> Self:
        ifindex, handle, parent, info = struct.unpack_from("=4xIIII", data)
        return cls(ifindex, handle, parent, info, data[20:])


@dataclass(frozen=True, slots=True)
class Answer:
    """The kernel's word on one request; error: errno, 0 for success."""

    error: int
    message: str

    def __str__(self) -> str:
        name = errno.errorcode.get(self.error, str(self.error))
        return f"{name} ({self.message or os.strerror(self.error)})"


def attribute(kind: int, data: bytes) -> bytes:
    """One attribute, padded to 4 bytes."""
    return struct.pack("=HH", 4 + len(data), kind) + data + bytes(-len(data) % 4)


def attributes(data: bytes) -> Mapping[int, bytes]:
    """Attributes by kind."""
    found, at = {}, 0
    while at + 4 <= len(data):
        length, kind = struct.unpack_from("=HH", data, at)
        found[kind & 0x3FFF] = data[at + 4 : at + length]
        at += max(4, length + 3 & ~3)
    return found


class Rtnl:
    """A rtnetlink socket of the network namespace in which it was opened."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
        for option in (_CAP_ACK, _EXT_ACK):
            self._socket.setsockopt(_SOL_NETLINK, option, 1)
        self._socket.bind((0, 0))
        self._sequence = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._socket.close()

    def request(self, batch: Sequence[tuple[Message, int, Traffic]]) -> list[Answer]:
        """Carry out (message, flags, body) one after another; an answer for each."""
        answers: list[Answer] = []
        for start in range(0, len(batch), _REQUESTS_AT_ONCE):
            answers += self._request(batch[start : start + _REQUESTS_AT_ONCE])
        return answers

    def dump(self, message: Message, body: Traffic) -> list[Traffic]:
        """What the kernel lists for a GET request; nothing where the thing asked about is not."""
        self._sequence += 1
        self._socket.send(self._frame(message, DUMP, body))
        found: list[Traffic] = []
        while True:
            for kind, payload in self._receive():
                if kind in (_DONE, _ERROR):
                    return found
                found.append(Traffic.unpack(payload))

    def _request(self, batch: Sequence[tuple[Message, int, Traffic]]) -> list[Answer]:
        frames = []
        for message, flags, body in batch:
            self._sequence += 1
            frames.append(self._frame(message, flags | ACK, body))
        self._socket.send(b"".join(frames))
        answers: list[Answer] = []
        while len(answers) < len(batch):
            answers += [_answer(payload) for kind, payload in self._receive() if kind == _ERROR]
        return answers

    def _frame(self, message: Message, flags: int, body: Traffic) -> bytes:
        data = body.pack()
        return (
            struct.pack("=IHHII", 16 + len(data), message, REQUEST | flags, self._sequence, 0)
            + data
        )

    def _receive(self) -> Iterator[tuple[int, bytes]]:
        data, at = self._socket.recv(_RECEIVE_BYTES), 0
        while at + 16 <= len(data):
            length, kind, flags = struct.unpack_from("=IHH", data, at)
            payload = data[at + 16 : at + length]
            yield kind, struct.pack("=H", flags) + payload if kind == _ERROR else payload
            at += length + 3 & ~3


def _answer(payload: bytes) -> Answer:
    """struct nlmsgerr behind its message's flags: errno, the request's header, words."""
    flags, code, length = struct.unpack_from("=HiI", payload)
    if not flags & _ACK_TLVS:
        return Answer(-code, "")
    echoed = 16 if flags & _CAPPED else length
    words = attributes(payload[6 + (echoed + 3 & ~3) :]).get(_EXT_ACK_MESSAGE, b"")
    return Answer(-code, words.rstrip(b"\0").decode(errors="replace"))
