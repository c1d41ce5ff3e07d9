"""Owns which program hangs on which link and direction, and on the cgroup root.

A key is (what, name): a pod's link, a link of the node, the cgroup root. Rows are frozen
dataclasses in the table "hooks".
"""

from collections.abc import Hashable, Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import cast

from weft.proxy.model.objects import Kind, Link
from weft.proxy.model.world import Change, World
from weft.proxy.plan.node import HELD, HOLD, OVERLAY
from weft.proxy.plan.podneeds import hooks_stand_alone, need_keys
from weft.proxy.plan.rows import Planner, Row
from weft.proxy.plan.uplinks import is_uplink, link_keys


class Direction(StrEnum):
    """Where on a link, or CGROUP: the cgroup2 root."""

    INGRESS = "ingress"
    EGRESS = "egress"
    CGROUP = "cgroup"


@dataclass(frozen=True, slots=True)
class HookPoint:
    """A place for one program. A link: its ifindex; the cgroup root: ifindex 0 and the hook's name
    in `at` (connect4, ...), which is empty for links. shared: in the clsact that all pods' links
    run their programs from; a link that moves has both for a moment, never none.
    """

    ifindex: int
    direction: Direction
    at: str = ""
    shared: bool = False


@dataclass(frozen=True, slots=True)
class Hook:
    """The program's name in weft.bpf (ARCHITECTURE, bpf)."""

    program: str


_CALLS = ("connect", "sendmsg", "recvmsg", "getpeername")
SOCKET_PROGRAMS = tuple(f"{call}{version}" for call in _CALLS for version in (4, 6))
_CGROUP = ("cgroup", "")
# What comes out of an end went into the other.
_HELD_PROGRAMS = {HELD: "held_from_pod", HOLD: "held_to_pod"}


def _rows(world: World, key: Hashable) -> Iterator[Row]:
    what, name = cast(tuple[str, str], key)
    if what == "workload" and (workload := world.workload(name)) is not None:
        shared = not hooks_stand_alone(world, workload)
        yield from _both(workload.ifindex, "from_pod", "to_pod", shared=shared)
    elif what == "link" and (link := world.link(name)) is not None:
        yield from _link_rows(world, link)
    elif what == "cgroup":
        for program in SOCKET_PROGRAMS:
            yield Row("hooks", HookPoint(0, Direction.CGROUP, program), Hook(program))


def _link_rows(world: World, link: Link) -> Iterator[Row]:
    if link.name == OVERLAY and world.settings.has_overlay:
        yield from _both(link.ifindex, "from_overlay", "to_overlay")
    elif link.name in _HELD_PROGRAMS:
        program = Hook(_HELD_PROGRAMS[link.name])
        yield Row("hooks", HookPoint(link.ifindex, Direction.INGRESS), program)
    elif is_uplink(link):
        yield from _both(link.ifindex, "from_uplink", "to_uplink")


def _both(ifindex: int, ingress: str, egress: str, *, shared: bool = False) -> Iterator[Row]:
    for direction, program in ((Direction.INGRESS, ingress), (Direction.EGRESS, egress)):
        yield Row("hooks", HookPoint(ifindex, direction, shared=shared), Hook(program))


def _keys(change: Change, before: World, after: World) -> Iterator[Hashable]:
    yield from (("workload", key) for key in need_keys(change, before, after))
    yield from (("link", name) for name in link_keys(change, before, after))


def _all_keys(world: World) -> Iterable[Hashable]:
    yield _CGROUP
    yield from (("workload", key) for key in world.table(Kind.ATTACHMENT))
    yield from (("link", link.name) for link in world.links())


PLANNER = Planner("hooks", _keys, _rows, _all_keys)
