"""Events by hand, readable as the ring buffer is."""

import asyncio
import os
from collections.abc import Sequence

from weft.bpf.layout import Event


class Pipe:
    """An EventSource over a pipe. The descriptor is asked for to start and to stop listening."""

    def __init__(self) -> None:
        self._out, self._in = os.pipe()
        self._events: list[Event] = []
        self.joined, self.left = asyncio.Event(), asyncio.Event()

    def send(self, *events: Event) -> None:
        self._events += events
        os.write(self._in, b"x")

    def fileno(self) -> int:
        (self.left if self.joined.is_set() else self.joined).set()
        return self._out

    def read(self) -> Sequence[Event]:
        events, self._events = self._events, []
        if events:
            os.read(self._out, 4096)
        return events

    def close(self) -> None:
        os.close(self._out)
        os.close(self._in)
