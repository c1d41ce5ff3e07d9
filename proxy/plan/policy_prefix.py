"""Owns prefixes as numbers: 128 bits, IPv4 mapped as on the wire; what covers what.

Pure arithmetic; knows no policy. Two families never cover each other: ::/0 holds no IPv4 address,
though ::ffff:0:0/96 lies inside it (policy S26), so look-ups stop at the family's own root.
"""

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address
from itertools import takewhile
from typing import Generic, NamedTuple, TypeVar

from immutables import Map

from weft.proxy.model.objects import Address, Network

BITS = 128
MAPPED_BITS = 96
_MAPPED = 0xFFFF
_FULL = (1 << BITS) - 1
MASKS = tuple(_FULL ^ (_FULL >> length) for length in range(BITS + 1))
"""MASKS[n] has the first n of 128 bits set."""

T = TypeVar("T")


def number(address: Address) -> int:
    """The 128-bit number of an address, IPv4 mapped."""
    return int(address) | _MAPPED << 32 if address.version == 4 else int(address)


def address_of(value: int) -> Address:
    """The reverse of `number`."""
    return IPv4Address(value & 0xFFFFFFFF) if is_v4(value) else IPv6Address(value)


def is_v4(value: int) -> bool:
    return value >> 32 == _MAPPED


class Prefix(NamedTuple):
    """`value`: 128 bits with host bits clear; `length`: bits of it that count, IPv4 from 96."""

    value: int
    length: int

    def covers(self, value: int, length: int = BITS) -> bool:
        """Whether the range value/length lies in this one, family and all."""
        return (
            length >= self.length
            and value & MASKS[self.length] == self.value
            and (self.length >= MAPPED_BITS or not is_v4(value))
        )


V4_ROOT = Prefix(_MAPPED << 32, MAPPED_BITS)


def prefix_of(network: Network) -> Prefix:
    if network.version == 4:
        return Prefix(number(network.network_address), network.prefixlen + MAPPED_BITS)
    return Prefix(int(network.network_address), network.prefixlen)


@dataclass(frozen=True, slots=True)
class PrefixTable(Generic[T]):
    """A value per prefix; `at` answers as an LPM map whose IPv4 root has a row does."""

    by_length: Mapping[int, Mapping[int, T]]
    ordered: tuple[Prefix, ...]

    @classmethod
    def of(cls, rows: Mapping[Prefix, T]) -> "PrefixTable[T]":
        by_length: dict[int, dict[int, T]] = {}
        for prefix in sorted(rows, key=lambda p: -p.length):
            by_length.setdefault(prefix.length, {})[prefix.value] = rows[prefix]
        return cls(by_length, tuple(sorted(rows)))

    def at(self, value: int, default: T, length: int = BITS) -> T:
        """The value of the longest prefix that covers value/length."""
        shortest = MAPPED_BITS if is_v4(value) else 0
        for bits, rows in self.by_length.items():
            if shortest <= bits <= length:
                found = rows.get(value & MASKS[bits])
                if found is not None:
                    return found
        return default

    def __contains__(self, prefix: Prefix) -> bool:
        return prefix.value in self.by_length.get(prefix.length, ())

    def inside(self, prefix: Prefix) -> Iterator[Prefix]:
        """The table's prefixes that `prefix` covers, itself too."""
        first = bisect_left(self.ordered, prefix)
        last = prefix.value | _FULL ^ MASKS[prefix.length]
        near = takewhile(lambda p: p.value <= last, self.ordered[first:])
        return (p for p in near if prefix.covers(*p))


@dataclass(frozen=True, slots=True)
class PrefixSet:
    """A persistent set of prefixes in which each may be put several times."""

    by_length: Map[int, Map[int, int]] = field(default_factory=Map)

    def added(self, prefix: Prefix, times: int = 1) -> "PrefixSet":
        """The set with `prefix` in it `times` more; negative takes it out."""
        counts = self.by_length.get(prefix.length) or Map()
        count = counts.get(prefix.value, 0) + times
        counts = counts.set(prefix.value, count) if count else counts.delete(prefix.value)
        if counts:
            return PrefixSet(self.by_length.set(prefix.length, counts))
        return PrefixSet(self.by_length.delete(prefix.length))

    def __contains__(self, prefix: Prefix) -> bool:
        return prefix.value in (self.by_length.get(prefix.length) or ())

    def covers(self, value: int, length: int = BITS) -> bool:
        """Whether any prefix of the set covers value/length."""
        shortest = MAPPED_BITS if is_v4(value) else 0
        return any(
            shortest <= bits <= length and value & MASKS[bits] in values
            for bits, values in self.by_length.items()
        )

    def __iter__(self) -> Iterator[Prefix]:
        for bits, values in self.by_length.items():
            yield from (Prefix(value, bits) for value in values)


def nested(prefixes: Iterable[Prefix]) -> Iterator[tuple[Prefix, Prefix | None]]:
    """Each prefix with the longest other one that covers it, outer ones first."""
    for v4 in (True, False):
        above: list[Prefix] = []
        for prefix in sorted(p for p in prefixes if is_v4(p.value) == v4):
            while above and not above[-1].covers(*prefix):
                above.pop()
            yield prefix, above[-1] if above else None
            above.append(prefix)
