"""Events by hand, handed to those that subscribed."""

import asyncio
from collections.abc import Callable, Sequence

from weft.bpf.layout import Event

Take = Callable[[Sequence[Event]], None]


class Pipe:
    """An EventSource. `joined` and `left`: somebody has subscribed, and stopped."""

    def __init__(self) -> None:
        self._takes: list[Take] = []
        self.joined, self.left = asyncio.Event(), asyncio.Event()

    def send(self, *events: Event) -> None:
        for take in self._takes:
            take(events)

    def subscribe(self, take: Take) -> Callable[[], None]:
        self._takes.append(take)
        self.joined.set()
        return lambda: self._leave(take)

    def _leave(self, take: Take) -> None:
        self._takes.remove(take)
        self.left.set()
