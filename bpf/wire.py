"""Single values as the kernel's programs see them: addresses, numbers, byte strings.

Pure. Owns how one value becomes bytes; the generated `layout` puts values together into structs.
"""

import struct
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import IPv4Address, IPv6Address
from typing import TypeAlias

Address: TypeAlias = IPv4Address | IPv6Address
# Structs have fields named bytes and tuple: inside their classes the builtins need other names.
Packed: TypeAlias = bytes
Ints: TypeAlias = tuple[int, ...]

ADDRESS_SIZE = 16
UNSPECIFIED = IPv6Address(0)
_MAPPED = bytes(10) + b"\xff\xff"
_U32, _U64 = struct.Struct("=I"), struct.Struct("=Q")


class TableKind(StrEnum):
    """The kinds of map in use, by BCC's names."""

    ARRAY = "array"
    HASH = "hash"
    LRU_HASH = "lru_hash"
    LPM_TRIE = "lpm_trie"
    PERCPU_ARRAY = "percpu_array"
    PROG_ARRAY = "prog"
    RINGBUF = "ringbuf"


@dataclass(frozen=True, slots=True)
class TableSpec:
    """One map's declaration. key, value: the names of types in `layout`, sizes in bytes.

    entries: the default size (of a ring buffer in bytes). is_state: its rows are the kernel's own
    (flows, counters), to be carried over when its struct changes; all others follow from the plan.
    """

    name: str
    kind: TableKind
    key: str
    value: str
    key_size: int
    value_size: int
    entries: int
    no_prealloc: bool
    is_state: bool


def pack_address(address: Address) -> bytes:
    """16 bytes, IPv4 mapped (::ffff:a.b.c.d); IPv6Address("::") stands for none, all zero."""
    return _MAPPED + address.packed if address.version == 4 else address.packed


def unpack_address(data: bytes) -> Address:
    """The reverse of `pack_address`: a mapped address comes back as IPv4Address."""
    if data[:12] == _MAPPED:
        return IPv4Address(data[12:])
    return IPv6Address(data)


def pack_u32(value: int) -> bytes:
    """4 bytes in the machine's order."""
    return _U32.pack(value)


def unpack_u32(data: bytes) -> int:
    """The reverse of `pack_u32`."""
    value: int = _U32.unpack(data)[0]
    return value


def pack_u64(value: int) -> bytes:
    """8 bytes in the machine's order."""
    return _U64.pack(value)


def unpack_u64(data: bytes) -> int:
    """The reverse of `pack_u64`."""
    value: int = _U64.unpack(data)[0]
    return value


def exactly(data: bytes, size: int) -> bytes:
    """`data`, whose length must be `size`: struct.pack would cut or fill it without a word."""
    if len(data) != size:
        raise ValueError(f"{data.hex(':')} has {len(data)} bytes, the field {size}")
    return data
