"""Events by hand, readable as the ring buffer is."""

import asyncio
import socket
from collections.abc import Sequence

from weft.bpf.layout import Event


class Pipe:
    """An EventSource over two sockets. The descriptor is asked for to start and to stop."""

    def __init__(self) -> None:
        self._out, self._in = socket.socketpair()
        self._events: list[Event] = []
        self.joined, self.left = asyncio.Event(), asyncio.Event()

    def send(self, *events: Event) -> None:
        self._events += events
        self._in.send(b"x")

    def fileno(self) -> int:
        (self.left if self.joined.is_set() else self.joined).set()
        return self._out.fileno()

    def read(self) -> Sequence[Event]:
        events, self._events = self._events, []
        if events:
            self._out.recv(4096)
        return events
