"""Owns what has not reached the kernel: rows held back or refused, with reason, age and retry.

A row without an entry here is done. Never touches the kernel; the clock is the caller's.
"""

from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from weft.proxy.apply.desired import RowKey

RETRY_FIRST_S = 0.1
RETRY_LAST_S = 30.0


class State(StrEnum):
    PENDING = "pending"
    DONE = "done"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class Status:
    """A row's state; `since_s` on the caller's clock, 0 when done."""

    state: State
    reason: str = ""
    since_s: float = 0.0


DONE = Status(State.DONE)


@dataclass(frozen=True, slots=True)
class _Entry:
    status: Status
    attempts: int
    retry_at_s: float


class Ledger:
    """Rows that are pending or in error."""

    def __init__(self) -> None:
        self._entries: dict[RowKey, _Entry] = {}

    def status(self, place: RowKey) -> Status:
        entry = self._entries.get(place)
        return DONE if entry is None else entry.status

    def unfinished(self) -> Mapping[RowKey, Status]:
        """Every row that is not done."""
        return {place: entry.status for place, entry in self._entries.items()}

    def done(self, places: Iterable[RowKey]) -> None:
        if self._entries:
            for place in places:
                self._entries.pop(place, None)

    def hold(self, place: RowKey, reason: str, now_s: float) -> None:
        """`place` waits for something that is not a time."""
        status = Status(State.PENDING, reason, self._since(place, State.PENDING, now_s))
        self._entries[place] = _Entry(status, 0, float("inf"))

    def fail(self, place: RowKey, reason: str, now_s: float) -> None:
        """`place` was refused; its next attempt comes later each time."""
        held = self._entries.get(place)
        attempts = 0 if held is None else held.attempts
        status = Status(State.ERROR, reason, self._since(place, State.ERROR, now_s))
        delay_s = min(RETRY_FIRST_S * 2**attempts, RETRY_LAST_S)
        self._entries[place] = _Entry(status, attempts + 1, now_s + delay_s)

    def due(self, now_s: float) -> tuple[RowKey, ...]:
        """Rows in error whose next attempt has come."""
        return tuple(p for p, entry in self._entries.items() if entry.retry_at_s <= now_s)

    def held(self) -> tuple[RowKey, ...]:
        """Rows that wait for something that is not a time."""
        pending = State.PENDING
        return tuple(p for p, entry in self._entries.items() if entry.status.state is pending)

    def next_retry_s(self) -> float:
        """When `due` next has something; infinity: never."""
        return min((e.retry_at_s for e in self._entries.values()), default=float("inf"))

    def errors(self) -> dict[str, int]:
        """Rows in error by table. May be asked while a turn runs: it reads a copy."""
        counts: dict[str, int] = {}
        for place, entry in list(self._entries.items()):
            if entry.status.state is State.ERROR:
                counts[place.table] = counts.get(place.table, 0) + 1
        return counts

    def _since(self, place: RowKey, state: State, now_s: float) -> float:
        held = self._entries.get(place)
        return now_s if held is None or held.status.state is not state else held.status.since_s


def key_text(key: Hashable) -> str:
    """A row's key for people: bytes as hexadecimal, the rest as it prints."""
    return key.hex() if isinstance(key, bytes) else str(key)
