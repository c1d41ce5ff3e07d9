"""Owns whether the host ends of pods' links are up: put back up, or cut off without their hooks.

A pod whose link runs no program of ours could reach everything, so such a link is set down until it
does. Never touches a link that is down because its pod is being made.
"""

import fcntl
import logging
import socket
import struct
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, field

from weft.proxy.apply.netlink import conversation
from weft.proxy.apply.target import NotMended
from weft.proxy.model.objects import Workload
from weft.proxy.model.world import World

log = logging.getLogger(__name__)

NAME = "pod links"

_GET_FLAGS, _GET_INDEX = 0x8913, 0x8933
_IFREQ = struct.Struct("=16sH22x")
_IFREQ_INDEX = struct.Struct("=16si20x")
_IFF_UP = 1
_MADE_WITHIN_S = 15.0
"""An ADD ends, well or not, before a link has been down for so long (weft.proxy.node)."""


def cut_off(ifindexes: Collection[int]) -> None:
    """Set links down that lack their programs. Raises OSError."""
    log.error(
        "pods cut off: their hooks could not be attached, without them no policy holds",
        extra={"links": sorted(ifindexes)},
    )
    _set(ifindexes, "down")


@dataclass(slots=True)
class PodLinks:
    """Sets links up again that another hand set down, or that were cut off and have their hooks.

    hooked: asks the kernel which links run both programs of a pod.
    """

    hooked: Callable[[], Collection[int]]
    clock: Callable[[], float] = time.monotonic
    _seen_up: set[int] = field(default_factory=set)
    _down_since_s: dict[int, float] = field(default_factory=dict)

    def mend(self, world: World) -> int:
        """How many were set up. Raises OSError, and NotMended for those without hooks."""
        fallen = [workload for workload in self._down(world) if self._is_made(workload.ifindex)]
        if not fallen:
            return 0
        hooked = self.hooked()
        bare = [str(workload.ref) for workload in fallen if workload.ifindex not in hooked]
        ready = [workload for workload in fallen if workload.ifindex in hooked]
        _set([workload.ifindex for workload in ready], "up")
        if ready:
            said = [str(workload.ref) for workload in ready[:5]]
            log.warning("drift", extra={"table": NAME, "rows": len(ready), "first": said})
        if bare:
            raise NotMended(
                f"cut off, since their hooks are missing: {', '.join(bare)}", len(ready)
            )
        return len(ready)

    def _down(self, world: World) -> list[Workload]:
        now_s, found, alive = self.clock(), [], set()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as channel:
            for workload in world.workloads():
                alive.add(workload.ifindex)
                up = _is_up(channel, workload.key, workload.ifindex)
                if up:
                    self._seen_up.add(workload.ifindex)
                    self._down_since_s.pop(workload.ifindex, None)
                elif up is not None:
                    self._down_since_s.setdefault(workload.ifindex, now_s)
                    found.append(workload)
        self._seen_up &= alive
        self._down_since_s = {one: at for one, at in self._down_since_s.items() if one in alive}
        return found

    def _is_made(self, ifindex: int) -> bool:
        """Whether the pod's ADD is over: what it leaves down is not for us to open."""
        waits_s = self.clock() - self._down_since_s[ifindex]
        return ifindex in self._seen_up or waits_s > _MADE_WITHIN_S


def _is_up(channel: socket.socket, name: str, ifindex: int) -> bool | None:
    """None: the link is gone, or another has its name. An ioctl each: no dump every second."""
    try:
        asked = _IFREQ.pack(name.encode(), 0)
        _, index = _IFREQ_INDEX.unpack(fcntl.ioctl(channel, _GET_INDEX, asked))
        _, flags = _IFREQ.unpack(fcntl.ioctl(channel, _GET_FLAGS, asked))
    except OSError:
        return None
    return bool(flags & _IFF_UP) if index == ifindex else None


def _set(ifindexes: Collection[int], state: str) -> None:
    with conversation() as netlink:
        for ifindex in ifindexes:
            netlink.link("set", index=ifindex, state=state)
