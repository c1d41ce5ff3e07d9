"""Owns how long to wait after a failure: client-go's reflector back-off, to the number.

client-go tools/cache/reflector.go: 0.8 s to 30 s, factor 2, jitter 1.0, reset after 2 minutes.
"""

import random
from collections.abc import Callable

FIRST_S = 0.8
LAST_S = 30.0
FACTOR = 2.0
JITTER = 1.0
RESET_S = 120.0


class Backoff:
    """One source's pauses. The clock is monotonic seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._pause_s = FIRST_S
        self._used_s = clock()

    def next_s(self) -> float:
        """The next pause: between the current step and twice as long."""
        now_s = self._clock()
        if now_s - self._used_s > RESET_S:
            self._pause_s = FIRST_S
        self._used_s = now_s
        pause_s = self._pause_s
        self._pause_s = min(pause_s * FACTOR, LAST_S)
        return pause_s * (1 + JITTER * random.random())
