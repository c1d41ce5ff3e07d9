"""Owns what all planner keys together want: desired rows and their owners; never the kernel.

An owner is one planner key. A row stays while at least one owner yields it. Owners that want
different values for one row are a conflict: the smallest value wins, whatever the order of events
was, and the conflict is reported until it ends.
"""

from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from weft.proxy.plan.rows import Row, rank

Owner = tuple[str, Hashable]
"""Planner's name and one of its keys."""


class RowKey(NamedTuple):
    """One row's place: the table's name and the key in it."""

    table: str
    key: Hashable


@dataclass(slots=True)
class Delta:
    """Rows to write and keys to delete, by table. Empty tables do not appear."""

    upserts: dict[str, dict[Hashable, object]] = field(default_factory=dict)
    deletes: dict[str, set[Hashable]] = field(default_factory=dict)

    def upsert(self, place: RowKey, value: object) -> None:
        self.upserts.setdefault(place.table, {})[place.key] = value

    def delete(self, place: RowKey) -> None:
        self.deletes.setdefault(place.table, set()).add(place.key)

    def __bool__(self) -> bool:
        return bool(self.upserts or self.deletes)

    def places(self) -> Iterable[RowKey]:
        for changed in (self.upserts, self.deletes):
            for table, keys in changed.items():
                yield from (RowKey(table, key) for key in keys)


_ABSENT = object()
_Claims = dict[Owner | None, object]


class Desired:
    """The union of all owners' rows, and what changed of it since `take_delta` was last asked.

    Nearly every row has one owner, and there are many rows: an owner remembers its keys, a row only
    its value. Rows with more owners have their claims in `_shared`, where None stands for the owner
    that was alone there before.
    """

    def __init__(self) -> None:
        self._keys: dict[Owner, dict[str, tuple[Hashable, ...]]] = {}
        self._rows: dict[str, dict[Hashable, object]] = {}
        self._shared: dict[RowKey, _Claims] = {}
        self._before: dict[str, dict[Hashable, object]] = {}

    def replace(self, owner: Owner, rows: Iterable[Row]) -> None:
        """What `owner` wants from now on; nothing: it goes."""
        wanted: dict[str, dict[Hashable, object]] = {}
        for table, key, value in rows:
            place = wanted.setdefault(table, {})
            place[key] = min(place[key], value, key=rank) if key in place else value
        held = self._keys.pop(owner, {})
        for table, keys in held.items():
            for key in keys:
                if key not in wanted.get(table, ()):
                    self._release(RowKey(table, key), owner)
        for table, values in wanted.items():
            mine = frozenset(held.get(table, ()))
            for key, value in values.items():
                self._hold(RowKey(table, key), value, owner, is_mine=key in mine)
        if wanted:
            self._keys[owner] = {table: tuple(values) for table, values in wanted.items()}

    def take_delta(self) -> Delta:
        """The difference between now and the last call."""
        delta = Delta()
        for table, before in self._before.items():
            rows = self._rows[table]
            for key, was in before.items():
                now = rows.get(key, _ABSENT)
                if now is _ABSENT:
                    if was is not _ABSENT:
                        delta.delete(RowKey(table, key))
                elif was is _ABSENT or was != now:
                    delta.upsert(RowKey(table, key), now)
        self._before = {}
        return delta

    def owners(self) -> tuple[Owner, ...]:
        """Everyone who wants anything."""
        return tuple(self._keys)

    def places(self, owner: Owner) -> tuple[RowKey, ...]:
        """Where `owner` wants rows."""
        tables = self._keys.get(owner, {})
        return tuple(RowKey(table, key) for table, keys in tables.items() for key in keys)

    def rows(self, table: str) -> dict[Hashable, object]:
        """One table's desired rows, copied."""
        return dict(self._rows.get(table, {}))

    def value(self, place: RowKey) -> object | None:
        return self._rows.get(place.table, {}).get(place.key)

    def count(self, table: str) -> int:
        return len(self._rows.get(table, ()))

    def conflicts(self) -> Mapping[RowKey, tuple[Owner, ...]]:
        """Rows for which owners want different values, with those owners."""
        return {
            place: self._owners(place)
            for place, claims in self._shared.items()
            if len(set(map(rank, claims.values()))) > 1
        }

    def _owners(self, place: RowKey) -> tuple[Owner, ...]:
        return tuple(
            o for o, tables in self._keys.items() if place.key in tables.get(place.table, ())
        )

    def _hold(self, place: RowKey, value: object, owner: Owner, *, is_mine: bool) -> None:
        rows = self._rows.setdefault(place.table, {})
        if place.key in rows:
            claims = self._shared.get(place)
            if claims is None and not is_mine:
                claims = self._shared[place] = {None: rows[place.key]}
            if claims is not None:
                claims[None if is_mine and owner not in claims else owner] = value
                value = _winner(claims)
        self._put(place, value)

    def _release(self, place: RowKey, owner: Owner) -> None:
        claims = self._shared.get(place)
        if claims is None:
            self._note(place)
            del self._rows[place.table][place.key]
            return
        del claims[owner if owner in claims else None]
        if len(claims) == 1:
            del self._shared[place]
        self._put(place, _winner(claims))

    def _put(self, place: RowKey, value: object) -> None:
        rows = self._rows[place.table]
        if rows.get(place.key, _ABSENT) != value:
            self._note(place)
            rows[place.key] = value

    def _note(self, place: RowKey) -> None:
        """Remember what the last delta left at `place`, the first time that it moves."""
        now = self._rows[place.table].get(place.key, _ABSENT)
        self._before.setdefault(place.table, {}).setdefault(place.key, now)


def _winner(claims: _Claims) -> object:
    return min(claims.values(), key=rank)
