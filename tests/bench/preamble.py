"""Owns a small program that runs before the one under test, in each repetition of a test run.

What a program does to its packet stays done in the next repetition, and a test run gives a packet
no tunnel. So the preamble writes the packet's head anew, numbers it where that is asked, gives it
mark and tunnel, and tail-calls the program. The same preamble before an empty program is what a
measurement takes off.
"""

import os
import struct
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from ipaddress import IPv4Address

from weft.bpf import syscall
from weft.bpf.syscall import AttachType, MapType, ProgramType

# Offsets in struct __sk_buff.
_MARK, _INGRESS_IFINDEX, _IFINDEX, _COUNTER, _CONTEXT_BYTES = 8, 36, 40, 48, 192
# Opcodes and helpers of linux/bpf.h.
_MOV, _MOV_REG, _ADD, _AND, _CALL, _EXIT, _LOAD_FD = 0xB7, 0xBF, 0x07, 0x57, 0x85, 0x95, 0x18
_LOAD_U32, _STORE_U32, _STORE_U16, _STORE_WORD = 0x61, 0x63, 0x6B, 0x62
_SKB_STORE_BYTES, _TAIL_CALL, _SKB_SET_TUNNEL_KEY = 9, 12, 21
_FRAME = 10
_TUNNEL_KEY_BYTES = 44


@dataclass(frozen=True, slots=True)
class Numbering:
    """A 16-bit field at `offset` counts up, modulo `flows` (a power of two), from run to run."""

    offset: int
    flows: int = 1 << 16


@dataclass(frozen=True, slots=True)
class Tunnel:
    """By which another node's packet came."""

    vni: int
    sender: IPv4Address


@dataclass(frozen=True, slots=True)
class Given:
    """What the program under test gets each time. received_on: 0 for the node's own."""

    frame: bytes
    received_on: int = 0
    mark: int = 0
    tunnel: Tunnel | None = None
    numbering: Numbering | None = None


class Preamble:
    """One packet's, with a free place for the program that it leads to."""

    def __init__(self, given: Given, program: int, place: int) -> None:
        self._given, self._program, self._place = given, program, place

    def mean_ns(self, program: int, repeat: int, first: int = 0) -> int:
        """Of `repeat` runs of preamble and `program`; numbered packets count from `first` up."""
        _put_program(self._place, program)
        context = bytearray(_CONTEXT_BYTES)
        struct.pack_into("=II", context, _INGRESS_IFINDEX, self._given.received_on, 1)
        struct.pack_into("=I", context, _COUNTER, first)
        run = syscall.run_program(self._program, self._given.frame, bytes(context), repeat)
        return run.duration_ns


@contextmanager
def preamble(given: Given) -> Iterator[Preamble]:
    with ExitStack() as stack:
        place = syscall.create_map(MapType.PROG_ARRAY, (4, 4, 1), 0, "bench_place")
        stack.callback(os.close, place)
        program = load(_code(given, place), "bench_preamble")
        stack.callback(os.close, program)
        yield Preamble(given, program, place)


@contextmanager
def empty_program() -> Iterator[int]:
    program = load(_insn(_MOV, 0, imm=-1) + _insn(_EXIT), "bench_empty")
    try:
        yield program
    finally:
        os.close(program)


def load(code: bytes, name: str) -> int:
    return syscall.load_program(ProgramType.SCHED_CLS, AttachType.NONE, code, name)


def _put_program(place: int, program: int) -> None:
    key, value = (syscall.buffer_of(struct.pack("=I", n)) for n in (0, program))
    addresses = syscall.address_of(key), syscall.address_of(value)
    attr = struct.pack("=I4xQQQ", place, *addresses, 0)
    syscall.call(syscall.Command.MAP_UPDATE_ELEM, attr, "place the program under test")


def _insn(code: int, dst: int = 0, src: int = 0, *, off: int = 0, imm: int = 0) -> bytes:
    return struct.pack("=BBhi", code, dst | src << 4, off, imm)


def _on_stack(data: bytes, at: int) -> bytes:
    words = struct.unpack(f"={len(data) // 4}i", data)
    return b"".join(
        _insn(_STORE_WORD, _FRAME, off=at + 4 * n, imm=word) for n, word in enumerate(words)
    )


def _code(given: Given, place: int) -> bytes:
    """Register 6 is the context."""
    parts = [_insn(_MOV_REG, 6, 1), _head(given)]
    if given.mark:
        parts += [_insn(_MOV, 1, imm=given.mark), _insn(_STORE_U32, 6, 1, off=_MARK)]
    if given.tunnel:
        parts.append(_tunnel(given.tunnel))
    parts += [
        _insn(_MOV_REG, 1, 6),
        _insn(_LOAD_FD, 2, 1, imm=place) + bytes(8),
        _insn(_MOV, 3, imm=0),
        _insn(_CALL, imm=_TAIL_CALL),
        _insn(_MOV, 0, imm=-1),
        _insn(_EXIT),
    ]
    return b"".join(parts)


def _head(given: Given) -> bytes:
    """The packet's headers, whole words of them: what a program may have rewritten."""
    size = min(len(given.frame), 96) // 4 * 4
    code = _on_stack(given.frame[:size], -size)
    if given.numbering:
        code += _number(given.numbering, -size)
    return code + b"".join(
        (
            _insn(_MOV_REG, 1, 6),
            _insn(_MOV, 2, imm=0),
            _insn(_MOV_REG, 3, _FRAME),
            _insn(_ADD, 3, imm=-size),
            _insn(_MOV, 4, imm=size),
            _insn(_MOV, 5, imm=0),
            _insn(_CALL, imm=_SKB_STORE_BYTES),
        )
    )


def _number(numbering: Numbering, at: int) -> bytes:
    """The count is kept in skb->cb, which nothing else writes in a test run."""
    return b"".join(
        (
            _insn(_LOAD_U32, 7, 6, off=_COUNTER),
            _insn(_MOV_REG, 8, 7),
            _insn(_ADD, 7, imm=1),
            _insn(_STORE_U32, 6, 7, off=_COUNTER),
            _insn(_AND, 8, imm=numbering.flows - 1),
            _insn(_STORE_U16, _FRAME, 8, off=at + numbering.offset),
        )
    )


def _tunnel(tunnel: Tunnel) -> bytes:
    """struct bpf_tunnel_key. A program that reads it takes "local" for the sender: setting is
    meant for what leaves, reading for what came."""
    key = struct.pack("=I24xI12x", tunnel.vni, int(tunnel.sender))
    return b"".join(
        (
            _on_stack(key, -_TUNNEL_KEY_BYTES),
            _insn(_MOV_REG, 1, 6),
            _insn(_MOV_REG, 2, _FRAME),
            _insn(_ADD, 2, imm=-_TUNNEL_KEY_BYTES),
            _insn(_MOV, 3, imm=_TUNNEL_KEY_BYTES),
            _insn(_MOV, 4, imm=0),
            _insn(_CALL, imm=_SKB_SET_TUNNEL_KEY),
        )
    )
