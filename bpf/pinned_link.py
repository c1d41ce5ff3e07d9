"""Programs on BPF links that outlive the daemon: cgroup hooks, and tcx on links from 6.6.

Owns one pin for each hook, its replacement in place, and what to do when its device or cgroup is
gone. A pinned link runs its program until the pin goes.
"""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from weft.bpf import syscall
from weft.bpf.load import Program
from weft.bpf.pins import ForeignPin
from weft.bpf.syscall import AttachType, BpfError


@dataclass(frozen=True, slots=True)
class Target:
    """What a program is attached to. handle: a cgroup's descriptor or an ifindex; identity: what
    the kernel calls it afterwards (a cgroup's id, which is its inode, or the ifindex)."""

    handle: int
    identity: int
    attach: AttachType
    words: str


def attach(pin: Path, program: Program, target: Target) -> None:
    """Run `program` at the target, replacing in place what the pin holds. Raises BpfError."""
    if not (pin.exists() and _replace(pin, program, target)):
        _create(pin, program, target)


def detach(pin: Path) -> None:
    """Drop the hook; one that is not there is no error."""
    pin.unlink(missing_ok=True)


def attached_program(pin: Path, identity: int) -> int | None:
    """The id of the program that the pinned link runs at what `identity` names, else None."""
    with _opened(pin) as (_, info):
        return info.program_id if info.target == identity else None


def _replace(pin: Path, program: Program, target: Target) -> bool:
    """Whether the pinned link runs the program now; not if its device or cgroup is another."""
    with _opened(pin) as (link, info):
        if info.target != target.identity:
            return False
        if info.program_id == syscall.program_info(program.fd, program.name).id:
            return True
        try:
            syscall.update_link(link, program.fd, f"replace {target.words} by {program.name}")
        except BpfError as error:
            # The device or cgroup went away: the link stays, defunct.
            if error.errno != errno.ENOLINK:
                raise
            return False
        return True


def _create(pin: Path, program: Program, target: Target) -> None:
    tried = f"attach {program.name} to {target.words}"
    link = syscall.create_link(program.fd, target.handle, target.attach, tried)
    try:
        # The new link runs before the pin of a defunct one goes.
        pin.unlink(missing_ok=True)
        syscall.pin(link, pin)
    finally:
        os.close(link)


@contextmanager
def _opened(pin: Path) -> Iterator[tuple[int, syscall.LinkInfo]]:
    descriptor = syscall.open_pin(pin)
    try:
        # A program's or map's info would be taken for a link's.
        what = os.readlink(f"/proc/self/fd/{descriptor}")
        if "link" not in what:
            raise ForeignPin(pin, what, "a link of ours")
        yield descriptor, syscall.link_info(descriptor, f"pin {pin}")
    finally:
        os.close(descriptor)
