"""Programs where packets and sockets meet them: attach, replace in place, detach, list.

Owns which way a program goes to its place: a pod's link by clsact with shared blocks, or by tcx
where another's ingress qdisc stands; uplinks and the overlay by tcx (clsact where the kernel has
none), sockets by links on the cgroup2 root. All of it outlives the daemon. Links are those of the
network namespace in which `Hooks` was made.
"""

import errno
import os
import re
from collections.abc import Collection, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from weft.bpf import clsact, pinned_link, syscall
from weft.bpf.clsact import LinkDirection
from weft.bpf.load import Program
from weft.bpf.pinned_link import Target
from weft.bpf.pins import HOOKS, ForeignPin
from weft.bpf.rtnl import Answer, Rtnl
from weft.bpf.syscall import AttachType, BpfError

# The programs of pods' links; each has the shared block of its direction.
POD_PROGRAMS = {"from_pod": LinkDirection.INGRESS, "to_pod": LinkDirection.EGRESS}
# Stands in a listing for a program of ours that an earlier daemon loaded.
STALE = "stale:"
_TCX = {
    LinkDirection.INGRESS: AttachType.TCX_INGRESS,
    LinkDirection.EGRESS: AttachType.TCX_EGRESS,
}
_NO_TCX = (
    "its ingress qdisc is left to others (a bandwidth annotation, or a qdisc on it), and programs "
    "beside that need tcx, Linux 6.6 or later"
)
_NOTHING_ELSE = "what should replace it is not attached: the pod would run no program at all"
_LINK_PIN = re.compile(r"link-([0-9]+)-(ingress|egress)")
_CGROUP_PIN = re.compile(r"cgroup-([a-z0-9_]+)")


@dataclass(frozen=True, slots=True)
class LinkPlace:
    """One direction of a network device. shared: through the block of all pods' links, which is
    for programs of POD_PROGRAMS only; a link may be in it and have hooks of its own for a moment.
    """

    ifindex: int
    direction: LinkDirection
    shared: bool = False


@dataclass(frozen=True, slots=True)
class SocketPlace:
    """A socket hook of the cgroup2 root: connect4, ..."""

    hook: str


Place = LinkPlace | SocketPlace
Errors = Mapping[Place, str]
"""Places whose program could not be attached or detached, with the kernel's word."""


class Hooks:
    """Every hook of this node. programs: by name; cgroup: the host's cgroup2 root."""

    def __init__(
        self, programs: Mapping[str, Program], pins: Path, cgroup: Path, *, has_tcx: bool
    ) -> None:
        self._programs, self._pins, self._has_tcx = programs, pins / HOOKS, has_tcx
        self._ids = {
            name: syscall.program_info(program.fd, name).id for name, program in programs.items()
        }
        with ExitStack() as undo:
            self._rtnl = undo.enter_context(Rtnl())
            self._cgroup = os.open(cgroup, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            undo.pop_all()
        self._cgroup_id, self._cgroup_path = os.fstat(self._cgroup).st_ino, cgroup
        self._refused: set[LinkPlace] = set()
        """Where a pod's program was to be attached and is not: its other place stays till then."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        self._rtnl.close()
        os.close(self._cgroup)

    def attach(self, wanted: Mapping[Place, str]) -> Errors:
        """Run programs, by name, at places. What another load of ours runs there is replaced
        between two packets. All pods' links cost one or two exchanges with the kernel."""
        shared: dict[LinkPlace, str] = {}
        errors: dict[Place, str] = {}
        for place, name in wanted.items():
            if isinstance(place, LinkPlace) and place.shared:
                shared[place] = name
            else:
                errors |= self._attach_one(place, self._programs[name])
        errors |= dict(self._attach_shared(shared))
        pods = {place for place, name in wanted.items() if name in POD_PROGRAMS}
        tried = {place for place in pods if isinstance(place, LinkPlace)}
        self._refused = (self._refused - tried) | (tried & errors.keys())
        return errors

    def detach(self, places: Collection[Place]) -> Errors:
        """Run nothing of ours there any more. A place whose link is gone is no error."""
        links = {place for place in places if isinstance(place, LinkPlace)}
        self._refused -= links
        kept = {place for place in links if self._is_last(place)}
        left: dict[int, object] = {place.ifindex: _NOTHING_ELSE for place in kept}
        shared = {place.ifindex for place in links if place.shared}
        left |= clsact.leave_blocks(self._rtnl, shared - left.keys())
        errors: dict[Place, str] = {}
        for place in places:
            if not isinstance(place, LinkPlace):
                pinned_link.detach(self._pin(place))
            elif place in kept or (place.shared and place.ifindex in left):
                errors[place] = f"detach from link {place.ifindex}: {left[place.ifindex]}"
            elif not place.shared:
                errors |= self._detach_link(place)
        return errors

    def _is_last(self, place: LinkPlace) -> bool:
        """Whether the pod's link was to run its programs from its other place, and does not."""
        other = (place.ifindex, not place.shared)
        return any((one.ifindex, one.shared) == other for one in self._refused)

    def attached(self) -> Mapping[Place, str]:
        """What runs where, by name; of a program of an earlier load STALE and its name or its id.

        Pins of links that are gone are removed on the way. Raises ForeignPin."""
        found = self.pinned()
        shared = {way: clsact.block_filter(self._rtnl, way) for way in LinkDirection}
        for ifindex in clsact.block_members(self._rtnl):
            self._note(found, ifindex, shared, is_shared=True)
        for ifindex in clsact.single_links(self._rtnl):
            own = {way: clsact.link_filter(self._rtnl, ifindex, way) for way in LinkDirection}
            self._note(found, ifindex, own, is_shared=False)
        return found

    def outdated(self) -> bool:
        """Whether a program of an earlier load runs anywhere. Raises OSError, ForeignPin."""
        return any(name.startswith(STALE) for name in self.attached().values())

    def pinned(self) -> dict[Place, str]:
        """Those of `attached` that hang on pins: all but pods' links and what lies below 6.6."""
        return dict(self._pinned())

    def _attach_shared(self, wanted: Mapping[LinkPlace, str]) -> Iterator[tuple[Place, str]]:
        links = {place.ifindex for place in wanted}
        failed = clsact.join_blocks(self._rtnl, links)
        if len(failed) < len(links):
            for name, words in self._set_blocks():
                yield from ((place, words) for place in wanted if wanted[place] == name)
        for place, name in wanted.items():
            if (answer := failed.get(place.ifindex)) is not None:
                yield place, f"attach {name} to link {place.ifindex}: {answer}"

    def _set_blocks(self) -> Iterator[tuple[str, str]]:
        """Put the present programs in both blocks; the names and errors of those that failed."""
        for name, direction in POD_PROGRAMS.items():
            present = clsact.block_filter(self._rtnl, direction)
            if present is not None and present.program_id == self._ids[name]:
                continue
            answer = clsact.set_block(self._rtnl, direction, name, self._programs[name].fd)
            if answer.error:
                yield name, f"put {name} on all pods' links: {answer}"

    def _attach_one(self, place: Place, program: Program) -> Errors:
        if isinstance(place, LinkPlace) and not self._has_tcx:
            if program.name in POD_PROGRAMS:
                return {place: f"attach {program.name} to link {place.ifindex}: {_NO_TCX}"}
            where = (place.ifindex, place.direction)
            answer = clsact.set_filter(self._rtnl, *where, program.name, program.fd)
            return _errors(place, f"attach {program.name} to link {place.ifindex}", answer)
        try:
            pinned_link.attach(self._pin(place), program, self._target(place, program))
        except OSError as error:
            return {place: str(error)}
        return {}

    def _detach_link(self, place: LinkPlace) -> Errors:
        pinned_link.detach(self._pin(place))
        if self._has_tcx:
            return {}
        answer = clsact.remove_filter(self._rtnl, place.ifindex, place.direction)
        return _errors(place, f"detach from link {place.ifindex}", answer)

    def _target(self, place: Place, program: Program) -> Target:
        if isinstance(place, LinkPlace):
            words = f"link {place.ifindex} {place.direction}"
            return Target(place.ifindex, place.ifindex, _TCX[place.direction], words)
        words = f"{place.hook} of cgroup {self._cgroup_path}"
        return Target(self._cgroup, self._cgroup_id, program.attach, words)

    def _pin(self, place: Place) -> Path:
        if isinstance(place, LinkPlace):
            return self._pins / f"link-{place.ifindex}-{place.direction}"
        return self._pins / f"cgroup-{place.hook}"

    def _pinned(self) -> Iterator[tuple[Place, str]]:
        for pin in self._pins.iterdir():
            place, identity = self._place_of(pin)
            program_id = pinned_link.attached_program(pin, identity)
            if program_id is None:
                pinned_link.detach(pin)
            else:
                yield place, self._name_of(program_id)

    def _place_of(self, pin: Path) -> tuple[Place, int]:
        """What a pin's name says it is attached to, and that thing's identity in the kernel."""
        if match := _LINK_PIN.fullmatch(pin.name):
            return LinkPlace(int(match[1]), LinkDirection(match[2])), int(match[1])
        if match := _CGROUP_PIN.fullmatch(pin.name):
            return SocketPlace(match[1]), self._cgroup_id
        raise ForeignPin(pin, "unknown", "a hook (link-IFINDEX-DIRECTION or cgroup-HOOK)")

    def _name_of(self, program_id: int) -> str:
        for name, number in self._ids.items():
            if number == program_id:
                return name
        try:
            descriptor = syscall.program_by_id(program_id)
        except BpfError as error:
            # Opening by id needs CAP_SYS_ADMIN, which the daemon of a node does without.
            if error.errno != errno.EPERM:
                raise
            return f"{STALE}{program_id}"
        try:
            return STALE + syscall.program_info(descriptor, f"program {program_id}").name
        finally:
            os.close(descriptor)

    def _note(
        self,
        found: dict[Place, str],
        ifindex: int,
        filters: Mapping[LinkDirection, clsact.Filter | None],
        *,
        is_shared: bool,
    ) -> None:
        for direction, one in filters.items():
            if one is not None:
                found[LinkPlace(ifindex, direction, is_shared)] = self._name_of(one.program_id)


def _errors(place: Place, tried: str, answer: Answer) -> Errors:
    return {place: f"{tried}: {answer}"} if answer.error else {}
