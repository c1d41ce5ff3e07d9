"""Owns which addresses of this node pass from one pod to another, and that other nodes hear of it.

A node that has not seen the former pod go would let the next one in by its rights. Addresses rest
before they are given on (weft.cni.ipam), so this concerns ranges that are nearly full, and pods
whose object outlives their link. Never decides anything: the hearer asks, and judges the answer.
"""

import logging
import time
from collections.abc import Awaitable, Callable, Iterable

from weft.proxy.model.objects import Address, Workload
from weft.proxy.model.world import World

log = logging.getLogger(__name__)

REMEMBERED_S = 600.0
"""Longer than any watch is silent before it is opened anew."""


class Handovers:
    """Is told of links that came and went. announce: tells other nodes of addresses that have
    passed on, and returns whether all have heard.
    """

    def __init__(
        self, world: Callable[[], World], announce: Callable[[Iterable[Address]], Awaitable[bool]]
    ) -> None:
        self._world, self._announce = world, announce
        self._left: dict[Address, tuple[str, float]] = {}
        """Released addresses with their last pod's uid and when, oldest first."""

    async def attached(self, fresh: Workload) -> None:
        """Returns when others know of it, or have had time to: before its pod can send."""
        passed = [a for a in fresh.addresses if self._was_anothers(a, fresh.uid)]
        if passed and not await self._announce(passed):
            said = {"pod": str(fresh.ref), "addresses": " ".join(map(str, passed))}
            log.warning("not every node has heard that an address was given on", extra=said)

    def detached(self, gone: Workload) -> None:
        now_s = time.monotonic()
        for address in gone.addresses:
            self._left.pop(address, None)
            self._left[address] = gone.uid, now_s
        while self._left:
            oldest = next(iter(self._left))
            if now_s - self._left[oldest][1] < REMEMBERED_S:
                break
            del self._left[oldest]

    def _was_anothers(self, address: Address, uid: str) -> bool:
        last = self._left.pop(address, None)
        if last is not None and last[0] != uid:
            return True
        return any(pod.uid != uid for pod in self._world().pods_at(address))
