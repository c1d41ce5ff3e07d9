"""Owns when the node's sockets are looked at for Services that have moved under them: after the
turn that took a backend's row, once every source has listed, now and then. Never decides which end.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Collection

from weft.proxy.apply.gate import Stage
from weft.proxy.loop import Turn, View
from weft.proxy.plan.sockets import Target, concerned

log = logging.getLogger(__name__)

AGAIN_S = 0.2
"""A connect() that had chosen before the row went may be through only after the first look."""
ROUND_S = 30.0

Leave = Callable[[Collection[Target] | None], int]
"""Ends what is left of all sockets, or of those at some targets; how many (apply.sockets)."""


class Stranded:
    """Has the sockets looked at, on a thread, for as long as `run` does."""

    def __init__(self, view: View, leave: Leave) -> None:
        self.observers: list[Callable[[int], None]] = []
        """Each is told how many sockets a look has ended."""
        self._view, self._leave = view, leave
        self._stage = view.stage
        self._all = self._stage is Stage.LISTED
        self._due: set[Target] = set()
        self._wake = asyncio.Event()
        view.watch_turns(self._turned)

    async def run(self) -> None:
        """Look whenever a backend went, until cancelled."""
        again: set[Target] = set()
        round_s = time.monotonic() + ROUND_S
        while True:
            await self._sleep(AGAIN_S if again else round_s - time.monotonic())
            targets, self._due = self._due, set()
            if self._all or time.monotonic() >= round_s:
                self._all, round_s = False, time.monotonic() + ROUND_S
                await self._look(None)
            else:
                await self._look(targets | again)
            again = targets

    async def _sleep(self, limit_s: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(0.0, limit_s)):
                await self._wake.wait()
        self._wake.clear()

    async def _look(self, targets: Collection[Target] | None) -> None:
        if self._stage is not Stage.LISTED:
            return
        try:
            ended = await asyncio.to_thread(self._leave, targets)
        except OSError as error:
            log.error("sockets not looked at", extra={"error": str(error)})
            return
        if ended:
            log.info("sockets of backends that are gone ended", extra={"sockets": ended})
            for observer in self.observers:
                observer(ended)

    def _turned(self, turn: Turn) -> None:
        if turn.stage is not Stage.LISTED:
            return
        if self._stage is not Stage.LISTED:
            self._stage, self._all = turn.stage, True
        for change in turn.changes:
            self._due.update(concerned(change, self._view.world))
        if self._due or self._all:
            self._wake.set()
