"""Owns what a source of intent can say: one record moved, a whole kind listed, one not understood.

A source never computes what changed: the loop knows the World and tells the difference.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from weft.proxy.model.objects import Broken, Kind, Link, PathMtu, Shaping, Sighting, Workload
from weft.proxy.model.world import Key, Record


@dataclass(frozen=True, slots=True)
class Moved:
    """`record` is what `key` is now; None: it is gone."""

    kind: Kind
    key: Key
    record: Record | None


@dataclass(frozen=True, slots=True)
class Listed:
    """Every record of `kind`: what is not here is gone, except what `broken` names.

    `cached` says that the checkpoint stands in for the source: nothing may be deleted by it.
    """

    kind: Kind
    records: Mapping[Key, Record]
    broken: tuple[Broken, ...] = ()
    cached: bool = False


@dataclass(frozen=True, slots=True)
class Refused:
    """An object that could not be understood: its last good record stays."""

    broken: Broken


Event = Moved | Listed | Refused


def kind_of(event: Event) -> Kind:
    """The kind of record that an event speaks of."""
    return event.broken.kind if isinstance(event, Refused) else event.kind


Post = Callable[[Event], None]
"""Where a source puts its events; may be called from any thread."""


def key_of(record: Record) -> Key:
    """The key under which World files `record`."""
    if isinstance(record, Link):
        return record.name
    if isinstance(record, Shaping):
        return record.link
    return record.key if isinstance(record, Workload | Sighting | PathMtu) else record.ref
