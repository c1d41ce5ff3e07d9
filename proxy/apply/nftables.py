"""Owns nftables' messages: chains that drop what is forwarded, and rules at their top.

By netlink, not by a tool: the tool that made a table may be newer or older than any that the image
carries, the kernel's messages (linux/netfilter/nf_tables.h) are one and the same. Never decides
which chain gets a rule.
"""

import errno
import os
import socket
import struct
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

NETLINK_NETFILTER = 12
_SUBSYSTEM = 10
_BATCH_BEGIN, _BATCH_END = 16, 17
_NEW_CHAIN, _GET_CHAIN, _NEW_RULE, _GET_RULE, _NEW_GENERATION, _GET_GENERATION = 3, 4, 6, 7, 15, 16
_ERROR, _DONE = 2, 3
_REQUEST, _ACK, _DUMP, _CREATE, _INTERRUPTED = 0x1, 0x4, 0x300, 0x400, 0x10
_HEADER, _GENERAL, _ATTRIBUTE = struct.Struct("=IHHII"), struct.Struct(">BBH"), struct.Struct("=HH")
_NESTED, _KIND_MASK = 0x8000, 0x3FFF
_RECEIVE_BYTES = 1 << 18
_DUMP_ATTEMPTS = 5

_CHAIN_TABLE, _CHAIN_NAME, _CHAIN_HOOK, _CHAIN_POLICY = 1, 3, 4, 5
_HOOK_NUMBER, _FORWARD, _DROP, _ACCEPT = 1, 2, 0, 1
_RULE_TABLE, _RULE_CHAIN, _RULE_EXPRESSIONS, _RULE_USERDATA = 1, 2, 4, 7
_GENERATION_ID = 1
_NO_NFTABLES = (errno.EINVAL, errno.EPROTONOSUPPORT, errno.EOPNOTSUPP)
# A comment in a rule's user data, as nft and iptables-nft write and show it (libnftnl/udata.h).
_COMMENT = 0
IN, OUT = 6, 7
"""What a rule looks at: the link that a packet came by or leaves by (NFT_META_IIFNAME, OIFNAME)."""
_FAMILIES = {1: "inet", 2: "ip", 10: "ip6"}


@dataclass(frozen=True, slots=True)
class Chain:
    """A chain by its place; family: the kernel's number of it (NFPROTO)."""

    family: int
    table: str
    name: str

    def __str__(self) -> str:
        return f"{_FAMILIES[self.family]} {self.table} {self.name}"


@dataclass(frozen=True, slots=True)
class Accept:
    """A rule that accepts what comes or goes by links whose names begin with `prefix`."""

    by: int
    prefix: str
    comment: str


@contextmanager
def opened() -> Iterator["Nftables"]:
    """A conversation with the nftables of this network namespace."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_NETFILTER) as channel:
        channel.bind((0, 0))
        yield Nftables(channel)


class Nftables:
    """What the kernel is asked and told. Every method raises OSError."""

    def __init__(self, channel: socket.socket) -> None:
        self._socket = channel
        self._sequence = 0

    def generation(self) -> int | None:
        """A number that moves with every change of any rule, chain or table; None: the kernel has
        no nftables.
        """
        try:
            answers = self._ask(_GET_GENERATION, 0, b"", 0)
        except OSError as error:
            if error.errno in _NO_NFTABLES:
                return None
            raise
        found = (_attributes(body) for kind, body in answers if kind == _NEW_GENERATION)
        return next((int.from_bytes(one[_GENERATION_ID], "big") for one in found), None)

    def dropping(self) -> list[Chain]:
        """Base chains that drop what is forwarded and no rule of theirs accepts."""
        return [
            Chain(family, _text(found[_CHAIN_TABLE]), _text(found[_CHAIN_NAME]))
            for family, found in self._dump(_GET_CHAIN, 0, b"")
            if family in _FAMILIES and _drops_forwarded(found)
        ]

    def comments(self, chain: Chain) -> set[str]:
        """The comments of a chain's rules."""
        asked = _attribute(_RULE_TABLE, chain.table) + _attribute(_RULE_CHAIN, chain.name)
        rules = self._dump(_GET_RULE, chain.family, asked)
        return {_comment(found.get(_RULE_USERDATA, b"")) for _, found in rules}

    def insert(self, chain: Chain, rules: Sequence[Accept]) -> None:
        """Put rules at the chain's top, all or none; the last one will stand first."""
        frames = [self._frame(_BATCH_BEGIN, 0, _GENERAL.pack(0, 0, _SUBSYSTEM))]
        for rule in rules:
            body = _GENERAL.pack(chain.family, 0, 0) + _rule(chain, rule)
            frames.append(self._frame(_SUBSYSTEM << 8 | _NEW_RULE, _CREATE | _ACK, body))
        frames.append(self._frame(_BATCH_END, 0, _GENERAL.pack(0, 0, _SUBSYSTEM)))
        self._socket.send(b"".join(frames))
        answers = 0
        while answers < len(rules):
            for kind, _, payload in _messages(self._socket.recv(_RECEIVE_BYTES)):
                if kind == _ERROR:
                    _raise(payload)
                    answers += 1

    def _dump(self, what: int, family: int, asked: bytes) -> list[tuple[int, Mapping[int, bytes]]]:
        """Families and attributes of what there is; read again when it moved meanwhile."""
        for attempt in range(_DUMP_ATTEMPTS):
            try:
                answers = self._ask(what, family, asked, _DUMP)
            except InterruptedError:
                if attempt == _DUMP_ATTEMPTS - 1:
                    raise
                continue
            return [(body[0], _attributes(body)) for _, body in answers]
        return []

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


def _drops_forwarded(found: Mapping[int, bytes]) -> bool:
    hook = _attributes_at(found.get(_CHAIN_HOOK, b""))
    number = int.from_bytes(hook.get(_HOOK_NUMBER, b""), "big")
    policy = int.from_bytes(found.get(_CHAIN_POLICY, b"\x01"), "big")
    return number == _FORWARD and policy == _DROP


def _rule(chain: Chain, rule: Accept) -> bytes:
    register, prefix = 1, rule.prefix.encode()
    # Comparing fewer bytes than a name has is how nft writes a trailing wildcard.
    expressions = b"".join((
        _expression("meta", _number(1, register) + _number(2, rule.by)),
        _expression("cmp", _number(1, register) + _number(2, 0) + _nest(3, _attribute(1, prefix))),
        _expression("counter", b""),
        _expression("immediate", _number(1, 0) + _nest(2, _nest(2, _number(1, _ACCEPT)))),
    ))  # fmt: skip
    words = rule.comment.encode() + b"\0"
    return b"".join((
        _attribute(_RULE_TABLE, chain.table), _attribute(_RULE_CHAIN, chain.name),
        _nest(_RULE_EXPRESSIONS, expressions),
        _attribute(_RULE_USERDATA, bytes((_COMMENT, len(words))) + words),
    ))  # fmt: skip


def _expression(name: str, data: bytes) -> bytes:
    return _nest(1, _attribute(1, name) + (_nest(2, data) if data else b""))


def _comment(userdata: bytes) -> str:
    at = 0
    while at + 2 <= len(userdata):
        kind, size = userdata[at], userdata[at + 1]
        if kind == _COMMENT:
            return _text(userdata[at + 2 : at + 2 + size])
        at += 2 + size
    return ""


def _number(kind: int, value: int) -> bytes:
    return _attribute(kind, value.to_bytes(4, "big"))


def _nest(kind: int, data: bytes) -> bytes:
    return _attribute(kind | _NESTED, data)


def _attribute(kind: int, data: bytes | str) -> bytes:
    if isinstance(data, str):
        data = data.encode() + b"\0"
    return _ATTRIBUTE.pack(_ATTRIBUTE.size + len(data), kind) + data + bytes(-len(data) % 4)


def _attributes(body: bytes) -> Mapping[int, bytes]:
    """Those of a message, behind its struct nfgenmsg."""
    return _attributes_at(body[_GENERAL.size :])


def _attributes_at(data: bytes) -> Mapping[int, bytes]:
    found, at = {}, 0
    while at + _ATTRIBUTE.size <= len(data):
        size, kind = _ATTRIBUTE.unpack_from(data, at)
        found[kind & _KIND_MASK] = data[at + _ATTRIBUTE.size : at + size]
        at += max(_ATTRIBUTE.size, size + 3 & ~3)
    return found


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


def _text(data: bytes) -> str:
    return data.rstrip(b"\0").decode(errors="replace")
