"""Owns ports: what a rule's port list allows, and a set's (protocol, port) space as port classes.

Pure; knows no peers. Port classes are numbers within one rule set: 0 is what no list names.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache, reduce
from typing import NamedTuple

from weft.bpf.layout import PortKey

PORT_LAST = 65_535
CLASSES = 256
ALL_BITS = (1 << CLASSES) - 1
_KEY_BITS = 64 + 8 + 8
_PORT_BITS = 16


class PortRange(NamedTuple):
    """`protocol`: IPPROTO_*; both ends belong to it."""

    protocol: int
    first: int
    last: int


@dataclass(frozen=True, slots=True)
class Ports:
    """What may be reached: `everything` of every protocol (ICMP, too), or disjoint ranges."""

    ranges: tuple[PortRange, ...] = ()
    everything: bool = False

    def __or__(self, other: "Ports") -> "Ports":
        if self == other:
            return self
        if self.everything or other.everything:
            return EVERY_PORT
        return Ports(tuple(_merged(sorted({*self.ranges, *other.ranges}))))

    def __bool__(self) -> bool:
        return self.everything or bool(self.ranges)

    def allows(self, protocol: int, port: int) -> bool:
        return self.everything or any(
            r.protocol == protocol and r.first <= port <= r.last for r in self.ranges
        )


NO_PORT = Ports()
EVERY_PORT = Ports(everything=True)


def ports_of(ranges: Iterable[PortRange]) -> Ports:
    """The union of `ranges`, written the one way."""
    return Ports(tuple(_merged(sorted(set(ranges)))))


def union(lists: Iterable[Ports]) -> Ports:
    return reduce(Ports.__or__, lists, NO_PORT)


def _merged(ordered: Iterable[PortRange]) -> Iterator[PortRange]:
    held: PortRange | None = None
    for one in ordered:
        if held is None:
            held = one
        elif one.protocol == held.protocol and one.first <= held.last + 1:
            held = PortRange(held.protocol, held.first, max(held.last, one.last))
        else:
            yield held
            held = one
    if held is not None:
        yield held


class PortRow(NamedTuple):
    """One LPM row of a set: `bits` of the port count."""

    protocol: int
    port: int
    bits: int
    port_class: int

    def key(self, set_id: int) -> bytes:
        low, high = set_id & 0xFFFFFFFF, set_id >> 32
        return PortKey(_KEY_BITS + self.bits, low, high, self.protocol, self.port).pack()


@dataclass(frozen=True, slots=True)
class PortClasses:
    """A set's partition: its LPM rows, the allow bits of each port list, how many did not fit."""

    rows: tuple[PortRow, ...]
    bits: Mapping[Ports, int]
    refused: int

    def class_of(self, protocol: int, port: int) -> int:
        """The port class of a packet, as the kernel's LPM look-up gives it."""
        fitting = [
            row for row in self.rows
            if row.protocol == protocol and (row.port ^ port) >> (_PORT_BITS - row.bits) == 0
        ]  # fmt: skip
        return max(fitting, key=lambda row: row.bits).port_class if fitting else 0


class _Span(NamedTuple):
    range: PortRange
    lists: frozenset[int]


@lru_cache(maxsize=4096)
def partition(lists: frozenset[Ports]) -> PortClasses:
    """Port classes for a set with these port lists: ports that equal lists name share a class.

    A set has 256 classes. Ports beyond count as named by fewer lists than they are (by those that
    name the whole protocol, or by none), so they are refused to more peers, never opened to one.
    """
    distinct = sorted((ports for ports in lists if not ports.everything), key=_order)
    spans = list(_spans(distinct))
    numbers: dict[frozenset[int], int] = {frozenset(): 0}
    for named in dict.fromkeys(_signatures(spans, distinct)):
        if len(numbers) < CLASSES:
            numbers.setdefault(named, len(numbers))
    bits = {
        ports: sum(1 << number for named, number in numbers.items() if index in named)
        for index, ports in enumerate(distinct)
    }
    refused = len({span.lists for span in spans} - numbers.keys())
    return PortClasses(
        tuple(_rows(spans, distinct, numbers)), bits | {EVERY_PORT: ALL_BITS}, refused
    )


def _order(ports: Ports) -> tuple[PortRange, ...]:
    return ports.ranges


def _spans(lists: list[Ports]) -> Iterator[_Span]:
    """The ports between two neighbouring ends of ranges: all lists name all of a span or none."""
    opens: dict[tuple[int, int], set[int]] = defaultdict(set)
    closes: dict[tuple[int, int], set[int]] = defaultdict(set)
    for index, ports in enumerate(lists):
        for protocol, first, last in ports.ranges:
            opens[protocol, first].add(index)
            closes[protocol, last + 1].add(index)
    ends = sorted(opens.keys() | closes.keys())
    active: frozenset[int] = frozenset()
    for (protocol, first), following in zip(ends, [*ends[1:], (0, 0)], strict=False):
        active = (active - closes[protocol, first]) | opens[protocol, first]
        if active:
            yield _Span(PortRange(protocol, first, following[1] - 1), active)


def _whole(lists: list[Ports]) -> dict[int, frozenset[int]]:
    """The lists that name a whole protocol, by protocol."""
    found: dict[int, frozenset[int]] = {}
    for index, ports in enumerate(lists):
        for protocol, first, last in ports.ranges:
            if first == 0 and last == PORT_LAST:
                found[protocol] = found.get(protocol, frozenset()) | {index}
    return found


def _signatures(spans: list[_Span], lists: list[Ports]) -> Iterator[frozenset[int]]:
    """In the order in which they get a number: whole protocols first, they take what is refused."""
    yield from _whole(lists).values()
    yield from (span.lists for span in spans)


def _rows(
    spans: list[_Span], lists: list[Ports], numbers: Mapping[frozenset[int], int]
) -> Iterator[PortRow]:
    whole = {protocol: numbers.get(named, 0) for protocol, named in _whole(lists).items()}
    for protocol, port_class in whole.items():
        yield PortRow(protocol, 0, 0, port_class)
    for span in spans:
        port_class = numbers.get(span.lists, 0)
        if port_class not in (0, whole.get(span.range.protocol, 0)):
            for port, bits in _prefixes(span.range.first, span.range.last):
                yield PortRow(span.range.protocol, port, bits, port_class)


def _prefixes(first: int, last: int) -> Iterator[tuple[int, int]]:
    """The fewest aligned blocks that make up first..last, as (port, bits that count)."""
    while first <= last:
        size = first & -first or PORT_LAST + 1
        while first + size - 1 > last:
            size >>= 1
        yield first, _PORT_BITS - size.bit_length() + 1
        first += size
