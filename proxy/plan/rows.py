"""Owns the shape of a plan: rows, the tables they belong to and the planner's two questions.

Never reads the kernel and never remembers: the same World gives the same rows.
"""

from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass
from typing import NamedTuple

from weft.bpf.layout import PrefixKey
from weft.proxy.model.objects import Network
from weft.proxy.model.world import Change, World

_MAPPED_BITS = 96


class Row(NamedTuple):
    """One desired row.

    BPF tables (the names of weft.bpf) carry packed bytes as key and value; `routes`, `links` and
    `hooks` carry frozen dataclasses of `plan`.
    """

    table: str
    key: Hashable
    value: object


@dataclass(frozen=True, slots=True)
class Planner:
    """A feature's plan as two pure functions and the keys that exist.

    `keys` names what a change can alter, seen from both sides of it; `rows` says everything that
    one key wants. The full plan is the union of `rows` over `all_keys`.
    """

    name: str
    keys: Callable[[Change, World, World], Iterable[Hashable]]
    rows: Callable[[World, Hashable], Iterable[Row]]
    all_keys: Callable[[World], Iterable[Hashable]]


def rank(value: object) -> bytes:
    """The order of values that keys want for one row: the smallest is the one that holds."""
    return value if isinstance(value, bytes) else repr(value).encode()


def prefix_key(network: Network) -> bytes:
    """`network` as the key of an LPM table: an IPv4 prefix is counted from bit 96."""
    return PrefixKey(prefix_bits(network), network.network_address).pack()


def prefix_bits(network: Network) -> int:
    """How many bits of a 128-bit address `network` fixes."""
    return network.prefixlen + (_MAPPED_BITS if network.version == 4 else 0)
