"""Owns when a table is compared with what is desired, though nothing said that it changed.

One table at a time, each once in ROUND_S; a few also every OFTEN_S: what other daemons are known to
alter without a word. Never more than SHARE of a core for either.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import cycle

from weft.proxy.apply.applier import Applier

ROUND_S = 30.0
OFTEN_S = 1.0
SHARE = 0.005


@dataclass(slots=True)
class _Walk:
    """Groups of tables in their order, over and over, with a pause after each."""

    groups: Iterator[Sequence[str]]
    pause_s: float
    next_s: float


class Patrol:
    """Walks the tables of an applier, one of a walk each time that `next_s` comes.

    often: the tables that are all compared every OFTEN_S, and repairs that failed with them.
    """

    def __init__(
        self,
        applier: Applier,
        tables: Sequence[str],
        often: Sequence[str] = (),
        clock: Callable[[], float] = time.monotonic,
        spent: Callable[[], float] = time.thread_time,
    ) -> None:
        """spent: processor time, since a machine that is busy with others must not slow repairs."""
        self._applier = applier
        self._clock, self._spent = clock, spent
        pause_s = ROUND_S / len(tables)
        self._walks = [_Walk(cycle((one,) for one in tables), pause_s, clock() + pause_s)]
        if often:
            self._walks.append(_Walk(self._together(often), OFTEN_S, clock() + OFTEN_S))

    @property
    def next_s(self) -> float:
        return min(walk.next_s for walk in self._walks)

    def _together(self, often: Sequence[str]) -> Iterator[Sequence[str]]:
        while True:
            yield (*often, *(name for name in self._applier.unmended if name not in often))

    def step(self) -> None:
        """Compare the next tables of each walk whose time has come."""
        for walk in self._walks:
            now_s, before_s = self._clock(), self._spent()
            if now_s >= walk.next_s:
                mended = sum(self._applier.compare(table) for table in next(walk.groups))
                # Who has just altered something may go on: then cost is no reason to wait.
                rest_s = 0.0 if mended else (self._spent() - before_s) / SHARE
                walk.next_s = now_s + max(walk.pause_s, rest_s)
