"""Owns which program hangs where in the kernel, by weft.bpf.hook; never what a program does."""

import ctypes
import errno
import logging
import os
from collections.abc import Collection, Hashable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import cast

from weft.bpf.clsact import LinkDirection
from weft.bpf.hook import POD_PROGRAMS, Hooks, LinkPlace, Place, SocketPlace
from weft.proxy.apply.podlinks import cut_off
from weft.proxy.apply.target import Errors
from weft.proxy.plan.hooks import Direction, Hook, HookPoint

log = logging.getLogger(__name__)

_CGROUP2_MAGIC = 0x63677270


class HooksTarget:
    """The table `hooks`: HookPoint -> Hook. A program of an earlier load is another value."""

    def __init__(self, hooks: Hooks) -> None:
        self._hooks = hooks
        self._pinned: Mapping[Place, str] = {}

    def dump(self) -> Iterator[tuple[Hashable, object]]:
        for place, program in self._hooks.attached().items():
            yield _point(place), Hook(program)

    def write(self, upserts: Mapping[Hashable, object], deletes: Collection[Hashable]) -> Errors:
        wanted = {_place(cast(HookPoint, point)): _program(row) for point, row in upserts.items()}
        errors = dict(self._hooks.attach(wanted)) if wanted else {}
        if refused := {_point(place).ifindex for place in errors if wanted[place] in POD_PROGRAMS}:
            self._cut_off(refused)
        if deletes:
            errors |= self._hooks.detach(_places(cast(Iterable[HookPoint], deletes)))
        return {_point(place): reason for place, reason in errors.items()}

    def pins_moved(self) -> bool:
        """Whether hooks that hang on pins are others than when asked last: no message tells of a
        pin that is deleted or a program that is detached. Raises OSError.
        """
        before, self._pinned = self._pinned, self._hooks.pinned()
        return before != self._pinned

    def hooked_pods(self) -> frozenset[int]:
        """Links that run programs of ours in both directions. Raises OSError."""
        places = [place for place in self._hooks.attached() if isinstance(place, LinkPlace)]
        sides = {(place.ifindex, place.direction) for place in places}
        both = (place.ifindex for place in places)
        return frozenset(one for one in both if all((one, way) in sides for way in LinkDirection))

    def _cut_off(self, refused: Collection[int]) -> None:
        """A pod is closed while its link lacks a program, not open."""
        try:
            if bare := set(refused) - self.hooked_pods():
                cut_off(bare)
        except OSError as error:
            log.error("cannot cut off pods", extra={"links": sorted(refused), "error": str(error)})


def find_cgroup2(root: Path) -> Path:
    """The version 2 hierarchy at `root` or, beside version 1, below it. OSError: neither is."""
    for path in (root, root / "unified"):
        if path.is_dir() and _file_system(path) == _CGROUP2_MAGIC:
            return path
    raise OSError(
        errno.ENOENT,
        f"no cgroup2 hierarchy at {root} or {root}/unified: Services are reached from sockets by "
        "hooks on its root; mount it (mount -t cgroup2 none FOLDER) and set --cgroup FOLDER",
    )


def _file_system(path: Path) -> int:
    # struct statfs starts with its type, one long, on every 64-bit machine.
    answer = (ctypes.c_long * 64)()
    if ctypes.CDLL(None, use_errno=True).statfs(os.fsencode(path), answer) != 0:
        return 0
    return int(answer[0])


def _program(row: object) -> str:
    return cast(Hook, row).program


def _places(points: Iterable[HookPoint]) -> list[Place]:
    return [_place(point) for point in points]


def _place(point: HookPoint) -> Place:
    if point.direction is Direction.CGROUP:
        return SocketPlace(point.at)
    return LinkPlace(point.ifindex, LinkDirection(point.direction.value), shared=point.shared)


def _point(place: Place) -> HookPoint:
    if isinstance(place, SocketPlace):
        return HookPoint(0, Direction.CGROUP, place.hook)
    return HookPoint(place.ifindex, Direction(place.direction.value), shared=place.shared)
