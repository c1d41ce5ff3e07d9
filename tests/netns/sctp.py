"""Associations over raw sockets, where the kernel has no SCTP of its own: as much of RFC 9260 as
connection tracking wants to see, four packets of right checksum and tag.

usage: sctp.py serve NAME PORT READY-FILE | sctp.py ask ADDRESS PORT TIMES [SOURCE-PORT].
ask tries so many associations and prints each different outcome once: "NAME SEEN" of the server
that took it and the address that it saw, "refused" or "silence".
"""

import random
import selectors
import socket
import struct
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple, cast

INIT, INIT_ACK, COOKIE_ECHO, COOKIE_ACK = 1, 2, 10, 11
TIMEOUT_S = 0.7
_COMMON, _CHUNK = struct.Struct("!HHI4s"), struct.Struct("!BBH")
_INIT = struct.Struct("!IIHHI")
_STATE_COOKIE = 7
_POLYNOMIAL = 0x82F63B78


def crc32c(data: bytes) -> int:
    """RFC 9260, appendix A."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (_POLYNOMIAL if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


class Said(NamedTuple):
    """A packet of one chunk; tag: whom it is for."""

    sport: int
    dport: int
    tag: int
    chunk: int
    body: bytes = b""

    def packed(self) -> bytes:
        chunk = _CHUNK.pack(self.chunk, 0, _CHUNK.size + len(self.body)) + self.body
        chunk += bytes(-len(chunk) % 4)
        bare = _COMMON.pack(self.sport, self.dport, self.tag, bytes(4)) + chunk
        return bare[:8] + crc32c(bare).to_bytes(4, "little") + chunk


def unpacked(packet: bytes) -> Said:
    """Raises ValueError where the checksum is wrong: a real SCTP would not see it."""
    sport, dport, tag, checksum = _COMMON.unpack_from(packet)
    chunk, _, size = _CHUNK.unpack_from(packet, _COMMON.size)
    if crc32c(packet[:8] + bytes(4) + packet[12:]).to_bytes(4, "little") != checksum:
        raise ValueError("checksum")
    at = _COMMON.size
    return Said(sport, dport, tag, chunk, packet[at + _CHUNK.size : at + size])


def opening(tag: int) -> bytes:
    """What INIT and INIT ACK say first."""
    return _INIT.pack(tag, 65536, 1, 1, tag)


def payload(family: int, packet: bytes) -> bytes:
    """A raw IPv4 socket gives the header too."""
    return packet[(packet[0] & 15) * 4 :] if family == socket.AF_INET else packet


# --- The server -----------------------------------------------------------------------------------
def answer(got: Said, name: str, seen: str) -> Said | None:
    if got.chunk == INIT:
        (tag, *_) = _INIT.unpack_from(got.body)
        cookie = tag.to_bytes(4, "big") + f"{name} {seen}".encode()
        parameter = struct.pack("!HH", _STATE_COOKIE, 4 + len(cookie)) + cookie
        body = opening(random.randrange(1, 1 << 32)) + parameter
        return Said(got.dport, got.sport, tag, INIT_ACK, body)
    if got.chunk == COOKIE_ECHO:
        return Said(got.dport, got.sport, int.from_bytes(got.body[:4], "big"), COOKIE_ACK)
    return None


def serve(name: str, port: int, ready: str) -> None:
    selector = selectors.DefaultSelector()
    for family in (socket.AF_INET, socket.AF_INET6):
        bare = socket.socket(family, socket.SOCK_RAW, socket.IPPROTO_SCTP)
        selector.register(bare, selectors.EVENT_READ)
    Path(ready).touch()
    while True:
        for key, _ in selector.select():
            bare = cast(socket.socket, key.fileobj)
            packet, (peer, *_) = bare.recvfrom(65536)
            got = unpacked(payload(bare.family, packet))
            said = answer(got, name, peer) if got.dport == port else None
            if said:
                bare.sendto(said.packed(), (peer, 0))


# --- The client -----------------------------------------------------------------------------------
def heard(bare: socket.socket, asked: Said, wanted: int) -> Iterator[Said]:
    """The packets of this association that carry what is waited for."""
    while True:
        got = unpacked(payload(bare.family, bare.recv(65536)))
        if (got.sport, got.dport, got.chunk) == (asked.dport, asked.sport, wanted):
            yield got


def associated(bare: socket.socket, address: str, port: int, source_port: int) -> str:
    tag = random.randrange(1, 1 << 32)
    bare.settimeout(TIMEOUT_S)
    bare.connect((address, 0))
    first = Said(source_port, port, 0, INIT, opening(tag))
    # What netfilter refuses at once is not permitted to send() either.
    with suppress(PermissionError):
        bare.send(first.packed())
    got = next(heard(bare, first, INIT_ACK))
    (peer_tag, *_) = _INIT.unpack_from(got.body)
    cookie = got.body[_INIT.size + 4 :]
    bare.send(Said(source_port, port, peer_tag, COOKIE_ECHO, cookie).packed())
    next(heard(bare, first, COOKIE_ACK))
    return cookie[4:].decode()


def ask(address: str, port: int, source_port: int) -> str:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_RAW, socket.IPPROTO_SCTP) as bare:
        try:
            return associated(bare, address, port, source_port)
        except TimeoutError:
            return "silence"
        except ConnectionRefusedError:
            return "refused"


def main() -> None:
    what, *words = sys.argv[1:]
    if what == "serve":
        serve(words[0], int(words[1]), words[2])
    address, port, times = words[0], int(words[1]), int(words[2])
    fixed = int(words[3]) if len(words) > 3 else 0
    for outcome in sorted(
        {ask(address, port, fixed or random.randrange(20_000, 60_000)) for _ in range(times)}
    ):
        print(outcome)


if __name__ == "__main__":
    main()
