"""Who gets what of the datapath's events."""

import asyncio
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from tests.unit.observe.test_flows import event
from weft.bpf.events import _REASON_AT
from weft.bpf.layout import Event, Reason
from weft.proxy.ring import Ring

HELD, DROP = event(reason=Reason.HELD), event(reason=Reason.POLICY_INGRESS)


class ByHand:
    """A reader over two sockets."""

    def __init__(self) -> None:
        self._out, self._in = socket.socketpair()
        self._events: list[Event] = []
        self.asked_only: list[int | None] = []

    def send(self, *events: Event) -> None:
        self._events += events
        self._in.send(b"x")

    def fileno(self) -> int:
        return self._out.fileno()

    def read(self, only: int | None = None) -> Sequence[Event]:
        self._out.recv(4096)
        self.asked_only.append(only)
        events, self._events = self._events, []
        return [one for one in events if only is None or one.reason == only]


class Basket:
    """Takes events; `filled`: there are some."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.filled = asyncio.Event()

    def take(self, events: Sequence[Event]) -> None:
        self.events += events
        self.filled.set()


@asynccontextmanager
async def reading() -> AsyncIterator[tuple[Ring, ByHand, Basket]]:
    hand, held = ByHand(), Basket()
    ring = Ring(hand, held.take)
    ring.start()
    try:
        async with asyncio.timeout(10):
            yield ring, hand, held
    finally:
        ring.stop()


def test_held_packets_are_told_though_nobody_watches_and_nothing_else_is_unpacked() -> None:
    async def story() -> None:
        async with reading() as (_, hand, held):
            hand.send(DROP, HELD)
            await held.filled.wait()
            assert held.events == [HELD]
            assert hand.asked_only == [Reason.HELD]

    asyncio.run(story())


def test_who_watches_gets_every_event_from_then_on_and_none_afterwards() -> None:
    async def story() -> None:
        async with reading() as (ring, hand, held):
            hand.send(DROP, HELD)
            await held.filled.wait()
            basket = Basket()
            unsubscribe = ring.subscribe(basket.take)
            hand.send(HELD, DROP)
            await basket.filled.wait()
            unsubscribe()
            held.filled.clear()
            hand.send(HELD, DROP)
            await held.filled.wait()
            assert basket.events == [HELD, DROP]
            assert held.events == [HELD, HELD, HELD]

    asyncio.run(story())


def test_the_reason_is_found_without_unpacking() -> None:
    for reason in Reason:
        assert event(reason=reason).pack()[_REASON_AT] == reason
