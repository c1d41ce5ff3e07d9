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


class _Claim(NamedTuple):
    owner: Owner
    table: str
    key: Hashable
    value: object


class Desired:
    """The union of all owners' rows, and what changed of it since `take_delta` was last asked."""

    def __init__(self) -> None:
        self._wants: dict[Owner, tuple[_Claim, ...]] = {}
        self._rows: dict[str, dict[Hashable, _Claim]] = {}
        self._shared: dict[RowKey, dict[Owner, _Claim]] = {}
        self._before: dict[str, dict[Hashable, _Claim | None]] = {}

    def replace(self, owner: Owner, rows: Iterable[Row]) -> None:
        """What `owner` wants from now on; nothing: it goes."""
        claims: dict[tuple[str, Hashable], _Claim] = {}
        for row in rows:
            claim = _Claim(owner, *row)
            twice = claims.setdefault((row.table, row.key), claim)
            if twice.value != claim.value:
                claims[row.table, row.key] = _winner((twice, claim))
        held = self._wants.get(owner, ())
        for claim in held:
            if (claim.table, claim.key) not in claims:
                self._release(claim)
        for claim in claims.values():
            self._hold(claim)
        if claims:
            self._wants[owner] = tuple(claims.values())
        elif held:
            del self._wants[owner]

    def take_delta(self) -> Delta:
        """The difference between now and the last call."""
        delta = Delta()
        for table, before in self._before.items():
            rows = self._rows[table]
            for key, claim in before.items():
                now = rows.get(key)
                if now is None:
                    if claim is not None:
                        delta.delete(RowKey(table, key))
                elif claim is None or claim.value != now.value:
                    delta.upsert(RowKey(table, key), now.value)
        self._before = {}
        return delta

    def owners(self, planner: str) -> tuple[Hashable, ...]:
        """The keys of one planner that want anything."""
        return tuple(key for name, key in self._wants if name == planner)

    def places(self, owner: Owner) -> tuple[RowKey, ...]:
        """Where `owner` wants rows."""
        return tuple(RowKey(claim.table, claim.key) for claim in self._wants.get(owner, ()))

    def tables(self) -> frozenset[str]:
        return frozenset(table for table, rows in self._rows.items() if rows)

    def rows(self, table: str) -> dict[Hashable, object]:
        """One table's desired rows, copied."""
        return {key: claim.value for key, claim in self._rows.get(table, {}).items()}

    def value(self, place: RowKey) -> object | None:
        claim = self._rows.get(place.table, {}).get(place.key)
        return None if claim is None else claim.value

    def count(self, table: str) -> int:
        return len(self._rows.get(table, ()))

    def conflicts(self) -> Mapping[RowKey, tuple[Owner, ...]]:
        """Rows for which owners want different values, with those owners."""
        return {
            place: tuple(claims)
            for place, claims in self._shared.items()
            if len({rank(claim.value) for claim in claims.values()}) > 1
        }

    def _hold(self, claim: _Claim) -> None:
        rows = self._rows.setdefault(claim.table, {})
        held = rows.get(claim.key)
        if held is not None:
            place = RowKey(claim.table, claim.key)
            if held.owner != claim.owner or place in self._shared:
                claims = self._shared.setdefault(place, {held.owner: held})
                claims[claim.owner] = claim
                claim = _winner(claims.values())
        self._put(rows, held, claim)

    def _release(self, claim: _Claim) -> None:
        rows, place = self._rows[claim.table], RowKey(claim.table, claim.key)
        held = rows[claim.key]
        claims = self._shared.get(place)
        if claims is None:
            self._note(held, held)
            del rows[claim.key]
            return
        del claims[claim.owner]
        if len(claims) == 1:
            del self._shared[place]
        self._put(rows, held, _winner(claims.values()))

    def _put(self, rows: dict[Hashable, _Claim], held: _Claim | None, claim: _Claim) -> None:
        if held is None or held.value != claim.value:
            self._note(claim, held)
        rows[claim.key] = claim

    def _note(self, at: _Claim, before: _Claim | None) -> None:
        """Remember what the last delta left at `at`'s place, the first time that it moves."""
        self._before.setdefault(at.table, {}).setdefault(at.key, before)


def _winner(claims: Iterable[_Claim]) -> _Claim:
    return min(claims, key=lambda claim: rank(claim.value))
