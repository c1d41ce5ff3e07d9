"""Owns the shape of a plan: rows, the tables they belong to and the planner's two questions.

Never reads the kernel and never remembers: the same World gives the same rows.
"""

from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass
from typing import NamedTuple

from weft.proxy.model.world import Change, World


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
