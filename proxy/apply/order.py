"""Owns the order of one turn's writes: make before break, policy before traffic.

What a row refers to is written before it and deleted after it. A peer's class moves to its new
value before the sets that judge by it may say more, and an address keeps its own row while the
prefixes around it change, so no turn opens what neither its start nor its end allows. Never writes.
"""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from weft.proxy.apply.desired import Delta


class Step(NamedTuple):
    """One table's share of a turn, in one direction."""

    table: str
    up: bool


def _up(*tables: str) -> tuple[Step, ...]:
    return tuple(Step(table, True) for table in tables)


def _down(*tables: str) -> tuple[Step, ...]:
    return tuple(Step(table, False) for table in tables)


STEPS: tuple[Step, ...] = (
    *_up("links", "backends", "slots", "rings", "source_ranges", "nft"),
    *_up("verdicts", "ports", "peers", "blocks"),
    *_down("blocks", "peers"),
    *_up("prefixes", "uplinks", "settings", "pod_links", "sandboxes", "workloads", "frontends"),
    *_up("hooks", "routes"),
    *_down("hooks", "routes", "frontends", "workloads", "sandboxes", "pod_links", "uplinks"),
    *_down("prefixes"),
    *_down("verdicts", "ports", "rings", "slots", "source_ranges", "backends", "nft"),
    *_down("settings", "links"),
)
"""Every table once upwards and once downwards (ARCHITECTURE, proxy)."""

TABLES: frozenset[str] = frozenset(step.table for step in STEPS)


def steps(delta: Delta) -> Iterator[Step]:
    """The steps of STEPS in which `delta` has something to do."""
    for step in STEPS:
        if step.table in (delta.upserts if step.up else delta.deletes):
            yield step


def in_order(tables: Iterable[str]) -> list[str]:
    """`tables` as they are to be mended: a device before its hooks and routes, and what has no rows
    last, since it follows from rows.
    """
    places = {step.table: at for at, step in reversed(list(enumerate(STEPS)))}
    return sorted(tables, key=lambda table: (places.get(table, len(STEPS)), table))
