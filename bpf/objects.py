"""Compiled objects as files: what the build writes and the loader reads.

Owns the format, JSON with one file for each source: programs with their references to maps by
name, and the maps as they were declared. Neither compiles nor loads.
"""

import base64
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from weft.bpf import layout
from weft.bpf.syscall import AttachType, ProgramType

INSTRUCTION_BYTES = 8
# Which hook a program is for: named by the hook where it is a socket's, else on a link.
SOCKET_PROGRAMS = {
    "connect4": AttachType.CGROUP_INET4_CONNECT,
    "connect6": AttachType.CGROUP_INET6_CONNECT,
    "sendmsg4": AttachType.CGROUP_UDP4_SENDMSG,
    "sendmsg6": AttachType.CGROUP_UDP6_SENDMSG,
    "recvmsg4": AttachType.CGROUP_UDP4_RECVMSG,
    "recvmsg6": AttachType.CGROUP_UDP6_RECVMSG,
    "getpeername4": AttachType.CGROUP_INET4_GETPEERNAME,
    "getpeername6": AttachType.CGROUP_INET6_GETPEERNAME,
}


class ObjectError(Exception):
    """A compiled object that is missing, broken, or of other sources than this Python."""


@dataclass(frozen=True, slots=True)
class MapReference:
    """The instruction, counted in 8 bytes, whose immediate must become `table`'s descriptor."""

    instruction: int
    table: str


@dataclass(frozen=True, slots=True)
class Program:
    """One program's instructions, sub-programs behind it."""

    name: str
    insns: bytes
    references: tuple[MapReference, ...]

    @property
    def attach(self) -> AttachType:
        return SOCKET_PROGRAMS.get(self.name, AttachType.NONE)

    @property
    def kind(self) -> ProgramType:
        return (
            ProgramType.CGROUP_SOCK_ADDR if self.name in SOCKET_PROGRAMS else ProgramType.SCHED_CLS
        )


@dataclass(frozen=True, slots=True)
class MapDeclaration:
    """A map as the compiler saw it; kind is the kernel's number, sizes are in bytes."""

    name: str
    kind: int
    key_size: int
    value_size: int
    max_entries: int
    flags: int


@dataclass(frozen=True, slots=True)
class Object:
    """What one source became. layout: `layout_hash` of the sources' time."""

    name: str
    layout: str
    programs: tuple[Program, ...]
    maps: tuple[MapDeclaration, ...]


def layout_hash() -> str:
    """Names every struct and map of this Python's layout.py."""
    text = repr((sorted(layout.LAYOUTS.items()), sorted(layout.TABLES)))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def write_object(one: Object) -> str:
    """The file's text."""
    programs = [
        {
            "name": program.name,
            "type": program.kind.name,
            "attach": program.attach.name,
            "insns": base64.b64encode(program.insns).decode(),
            "references": [[at.instruction, at.table] for at in program.references],
        }
        for program in one.programs
    ]
    maps = [{key: getattr(each, key) for key in each.__slots__} for each in one.maps]
    body = {"name": one.name, "layout": one.layout, "programs": programs, "maps": maps}
    return json.dumps(body, indent=1)


def read_object(path: Path) -> Object:
    """Raises ObjectError where the file is none of ours, or was built from another layout.h."""
    try:
        one = _parse(json.loads(path.read_text()))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ObjectError(f"read object {path}: {error!r}; build it anew (make objects)") from error
    if one.layout != layout_hash():
        raise ObjectError(
            f"object {path} was built for layout {one.layout}, this daemon has {layout_hash()}: "
            f"objects and daemon must come from one build"
        )
    return one


def read_objects(folder: Path) -> tuple[Object, ...]:
    """Every object of the folder, by name. Raises ObjectError, also where there is none."""
    paths = sorted(folder.glob("*.json"))
    if not paths:
        raise ObjectError(f"no compiled objects in {folder}; `make objects` builds them")
    return tuple(read_object(path) for path in paths)


def _parse(body: dict[str, Any]) -> Object:
    programs = tuple(
        Program(
            name=str(each["name"]),
            insns=base64.b64decode(each["insns"], validate=True),
            references=tuple(MapReference(int(at), str(table)) for at, table in each["references"]),
        )
        for each in body["programs"]
    )
    maps = tuple(MapDeclaration(**each) for each in body["maps"])
    return Object(str(body["name"]), str(body["layout"]), programs, maps)
