"""Owns when a table is compared with what is desired, though nothing said that it changed.

One table at a time, each once in ROUND_S, and never more than SHARE of a core.
"""

import time
from collections.abc import Callable, Sequence
from itertools import cycle

from weft.proxy.apply.applier import Applier

ROUND_S = 30.0
SHARE = 0.005


class Patrol:
    """Walks the tables of an applier, one each time that `next_s` comes."""

    def __init__(
        self, applier: Applier, tables: Sequence[str], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._applier = applier
        self._tables = cycle(tables)
        self._pause_s = ROUND_S / len(tables)
        self._clock = clock
        self.next_s = clock() + self._pause_s

    def step(self) -> None:
        """Compare the next table, if its time has come."""
        started_s = self._clock()
        if started_s < self.next_s:
            return
        self._applier.compare(next(self._tables))
        spent_s = self._clock() - started_s
        self.next_s = started_s + max(self._pause_s, spent_s / SHARE)
