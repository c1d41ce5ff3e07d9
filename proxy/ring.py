"""Owns the one reader of the datapath's ring buffer, and who gets which of its events.

Held packets go to who finds out what they wait for, always; all events go to those that watch.
Never says what an event means.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import Protocol

from weft.bpf.layout import Event, Reason

Take = Callable[[Sequence[Event]], None]
PAUSE_S = 0.002
"""Between two reads: a storm of drops costs a share of the event loop, not all of it."""


class Reader(Protocol):
    """What weft.bpf.events reads."""

    def fileno(self) -> int:
        """A descriptor that turns readable when there are events."""

    def read(self, only: int | None = None) -> Sequence[Event]:
        """The events since the last call, though no more than are to be read at once."""


class Ring:
    """Reads from `start` to `stop`, on the event loop. held: takes what waits on the hold link."""

    def __init__(self, reader: Reader, held: Take) -> None:
        self._reader, self._held = reader, held
        self._watchers: set[Take] = set()
        self._resume: asyncio.TimerHandle | None = None

    def start(self) -> None:
        asyncio.get_running_loop().add_reader(self._reader.fileno(), self._read)

    def stop(self) -> None:
        asyncio.get_running_loop().remove_reader(self._reader.fileno())
        if self._resume is not None:
            self._resume.cancel()

    def subscribe(self, take: Take) -> Callable[[], None]:
        """Hand every event from now on to `take`, until what is returned is called."""
        self._watchers.add(take)
        return lambda: self._watchers.discard(take)

    def _read(self) -> None:
        loop = asyncio.get_running_loop()
        loop.remove_reader(self._reader.fileno())
        self._resume = loop.call_later(PAUSE_S, self.start)
        events = self._reader.read(None if self._watchers else Reason.HELD)
        held = [event for event in events if event.reason == Reason.HELD]
        if held:
            self._held(held)
        for take in tuple(self._watchers):
            take(events)
