"""Owns the bytes of what nodes ask each other: questions, answers, and word of an address given on.

Pure; believes nothing and says only whether a datagram is one of these.

    version 1 | type 1 | nonce 16 | address 16, IPv4 mapped | answers: three texts, each length 1
"""

import struct
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address

from weft.proxy.model.objects import Address, Ref

VERSION = 1
NONCE_BYTES = 16
_QUESTION, _ANSWER, _GIVEN_ON, _HEARD = 1, 2, 3, 4
_HEAD = struct.Struct(f"!BB{NONCE_BYTES}s16s")
_MAPPED = bytes(10) + b"\xff\xff"


@dataclass(frozen=True, slots=True)
class Question:
    """Whose is `address`?"""

    nonce: bytes
    address: Address


@dataclass(frozen=True, slots=True)
class Answer:
    """The pod that holds the address; uid "": none that can be told apart from its heirs."""

    nonce: bytes
    address: Address
    pod: Ref
    uid: str


@dataclass(frozen=True, slots=True)
class GivenOn:
    """`address` has passed to another pod: what is known of it had better be asked again."""

    address: Address


@dataclass(frozen=True, slots=True)
class Heard:
    """What was known of `address` before it was given on is known no more."""

    address: Address


Message = Question | Answer | GivenOn | Heard


def encode(message: Message) -> bytes:
    """Texts longer than 255 bytes, which no name or uid of Kubernetes is, leave nobody named."""
    match message:
        case Question(nonce, address):
            return _head(_QUESTION, nonce, address)
        case GivenOn(address):
            return _head(_GIVEN_ON, bytes(NONCE_BYTES), address)
        case Heard(address):
            return _head(_HEARD, bytes(NONCE_BYTES), address)
        case Answer(nonce, address, pod, uid):
            texts = [text.encode() for text in (pod.namespace, pod.name, uid)]
            if any(len(text) > 255 for text in texts):
                texts = [b"", b"", b""]
            tail = b"".join(bytes([len(text)]) + text for text in texts)
            return _head(_ANSWER, nonce, address) + tail


def decode(data: bytes) -> Message | None:
    """The message in a datagram; None: it is none of this version."""
    if len(data) < _HEAD.size:
        return None
    version, kind, nonce, packed = _HEAD.unpack_from(data)
    if version != VERSION:
        return None
    address, rest = _unpacked(packed), data[_HEAD.size :]
    if kind == _ANSWER:
        texts = _texts(rest)
        return None if texts is None else Answer(nonce, address, Ref(*texts[:2]), texts[2])
    if rest:
        return None
    if kind == _QUESTION:
        return Question(nonce, address)
    if kind == _GIVEN_ON:
        return GivenOn(address)
    return Heard(address) if kind == _HEARD else None


def _head(kind: int, nonce: bytes, address: Address) -> bytes:
    packed = address.packed if address.version == 6 else _MAPPED + address.packed
    return _HEAD.pack(VERSION, kind, nonce, packed)


def _unpacked(packed: bytes) -> Address:
    if packed.startswith(_MAPPED):
        return IPv4Address(packed[len(_MAPPED) :])
    return IPv6Address(packed)


def _texts(data: bytes) -> tuple[str, str, str] | None:
    """Exactly three texts, each after its length, and nothing behind them."""
    found: list[str] = []
    at = 0
    while at < len(data):
        end = at + 1 + data[at]
        if end > len(data):
            return None
        found.append(data[at + 1 : end].decode(errors="replace"))
        at = end
    return (found[0], found[1], found[2]) if len(found) == 3 else None
