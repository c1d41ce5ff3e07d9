"""Compiled objects into the kernel: maps opened from their pins or made, programs loaded.

Owns which maps are reused, kept for later or retired. Attaches nothing (hook.py) and writes no
row. Needs neither LLVM nor headers.
"""

import os
import struct
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from weft.bpf import objects as compiled
from weft.bpf import pins as pinned
from weft.bpf import syscall
from weft.bpf.layout import LAYOUTS, TABLES
from weft.bpf.migrate import Migration, migrate, write_types
from weft.bpf.objects import INSTRUCTION_BYTES, MapDeclaration, Object, ObjectError, read_objects
from weft.bpf.pins import ForeignPin
from weft.bpf.rowtype import encode
from weft.bpf.syscall import AttachType, BpfError, MapType, ProgramType
from weft.bpf.table import KernelTable
from weft.bpf.wire import TableSpec

# What a map of the programs' own may be: rows that mean nothing after the packet, or soon after.
_SCRATCH_KINDS = (MapType.ARRAY, MapType.PERCPU_ARRAY, MapType.LRU_HASH)
# The kernel takes no BTF for these.
_WITHOUT_TYPES = (MapType.RINGBUF, MapType.PROG_ARRAY)
# A flow has one row in the first, may have one in the second and two in the third.
_FLOW_TABLES = ("flows", "translations", "snat")
_FLOWS_PER_GIB, _FLOWS_MIN, _FLOWS_MAX = 65_536, 65_536, 524_288
# An empty row costs 16 bytes: 8 MB a table where there is memory for so many Services.
_SERVICES_PER_GIB = 262_144
_SERVICE_TABLES = ("frontends", "slots", "backends", "rings")


@dataclass(frozen=True, slots=True)
class Program:
    """A loaded program. tag: the kernel's hash of its code; verified_insns: how many instructions
    the verifier walked (0 where the kernel is older than 5.16)."""

    fd: int
    name: str
    tag: str
    verified_insns: int
    kind: ProgramType
    attach: AttachType


@dataclass(frozen=True, slots=True)
class Datapath:
    """The node's maps and programs, open.

    migration: state maps of another shape, whose rows are in today's ones already.
    retired: pins of derived maps of another shape, and of tables that only another version has: of
    no use once every hook is replaced.
    untyped: tables that this kernel holds without the names of their fields, with its word.
    pins: where each table is pinned.
    """

    tables: Mapping[str, KernelTable]
    programs: Mapping[str, Program]
    migration: Migration
    retired: tuple[Path, ...]
    untyped: Mapping[str, str]
    pins: Mapping[str, Path]

    def repin(self) -> int:
        """Pin what another hand unpinned; how many maps. Without its pin a map would go with this
        process and the hooks, and the next start find nothing of what it knew. Raises OSError."""
        lost = [name for name, path in self.pins.items() if not path.exists()]
        for folder in {self.pins[name].parent.parent for name in lost}:
            pinned.make_folders(folder)
        for name in lost:
            write_types(self.pins[name], TABLES[name], LAYOUTS)
            syscall.pin(self.tables[name].fd, self.pins[name])
        return len(lost)

    def program(self, name: str) -> Program:
        """Raises KeyError for a program that no object has."""
        return self.programs[name]

    def retire(self) -> None:
        """Let go of derived maps of other shapes; call it when every hook runs these programs."""
        for path in self.retired:
            pinned.unpin(path)


@contextmanager
def open_datapath(
    *, pins: Path, objects: Path, entries: Mapping[str, int] | None = None
) -> Iterator[Datapath]:
    """The maps of layout.TABLES pinned below `pins` and every program of the folder `objects`.

    entries: sizes by table name that differ from the defaults (a ring buffer's in bytes). Leaving
    the context closes descriptors; pins and hooks stay. Raises PinsUnusable, ForeignPin,
    ObjectError, BpfError.
    """
    units = read_objects(objects)
    check_declarations(units)
    sizes = default_entries() | dict(entries or {})
    paths = {
        spec.name: pinned.map_pin(pins, spec, sizes[spec.name], LAYOUTS) for spec in TABLES.values()
    }
    with ExitStack() as stack:
        stack.enter_context(pinned.held(pins))
        old = pinned.old_maps(pins, paths)
        untyped = dict[str, str]()
        tables = {
            spec.name: stack.enter_context(
                _open_table(spec, sizes[spec.name], paths[spec.name], untyped)
            )
            for spec in TABLES.values()
        }
        programs = load_programs(units, tables, stack)
        states = {path: name for path, name in old.items() if _is_state(name)}
        older = [(path, tables[name]) for path, name in states.items()]
        migration = migrate(older, LAYOUTS, stack)
        retired = tuple(path for path in old if path not in states)
        yield Datapath(tables, programs, migration, retired, untyped, paths)


def _is_state(name: str) -> bool:
    return name in TABLES and TABLES[name].is_state


def default_entries() -> dict[str, int]:
    """Every table's size; flows and Services by the node's memory."""
    gib = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") >> 30
    sizes = {spec.name: spec.entries for spec in TABLES.values()}
    flows = min(_FLOWS_MAX, max(_FLOWS_MIN, _FLOWS_PER_GIB * gib))
    sizes |= dict.fromkeys(_FLOW_TABLES, flows)
    for name in _SERVICE_TABLES:
        sizes[name] = min(sizes[name], _SERVICES_PER_GIB * max(1, gib))
    return sizes


def check_declarations(units: Iterable[Object]) -> None:
    """Every map that an object declares is a table of layout.py, alike, or the programs' own
    scratch space. Raises ObjectError."""
    for unit in units:
        for declared in unit.maps:
            spec = TABLES.get(declared.name)
            if spec is None and declared.kind not in _SCRATCH_KINDS:
                raise ObjectError(f"{unit.name}: map {declared.name} is not declared in maps.h")
            if spec and (found := _shape(declared)) != (wanted := table_shape(spec)):
                raise ObjectError(f"{unit.name}: map {spec.name} is {found}, layout says {wanted}")


def table_shape(spec: TableSpec) -> tuple[MapType, int, int, int]:
    """Kind, size of a key and of a value, and flags, as the kernel wants them."""
    flags = syscall.BPF_F_NO_PREALLOC if spec.no_prealloc else 0
    return MapType[spec.kind.name], spec.key_size, spec.value_size, flags


def _shape(declared: MapDeclaration) -> tuple[int, int, int, int]:
    return declared.kind, declared.key_size, declared.value_size, declared.flags


def create_table(
    spec: TableSpec, entries: int, untyped: dict[str, str] | None = None
) -> KernelTable:
    """A new map of the table's shape that nothing has pinned; `untyped` takes the kernel's word
    where it refuses to hold the names of its fields."""
    kind, key_size, value_size, flags = table_shape(spec)
    sizes = key_size, value_size, entries
    if kind not in _WITHOUT_TYPES:
        try:
            return KernelTable(spec, _create_typed(spec, kind, sizes, flags))
        except BpfError as error:
            (untyped if untyped is not None else {})[spec.name] = str(error)
    return KernelTable(spec, syscall.create_map(kind, sizes, flags, spec.name))


def _create_typed(spec: TableSpec, kind: MapType, sizes: tuple[int, int, int], flags: int) -> int:
    types = encode(spec, LAYOUTS)
    btf = syscall.load_btf(types.data, f"table {spec.name}")
    try:
        numbers = btf, types.key_id, types.value_id
        return syscall.create_map(kind, sizes, flags, spec.name, numbers)
    finally:
        os.close(btf)


def _open_table(spec: TableSpec, entries: int, path: Path, untyped: dict[str, str]) -> KernelTable:
    write_types(path, spec, LAYOUTS)
    if not path.exists():
        with ExitStack() as undo:
            table = undo.enter_context(create_table(spec, entries, untyped))
            syscall.pin(table.fd, path)
            undo.pop_all()
        return table
    fd = syscall.open_pin(path)
    info = syscall.map_info(fd, f"pin {path}")
    found = (info.kind, info.key_size, info.value_size, info.flags)
    if found != (wanted := table_shape(spec)):
        os.close(fd)
        raise ForeignPin(path, f"a map {found}", f"a map {wanted} (kind, key, value, flags)")
    return KernelTable(spec, fd)


def load_programs(
    units: Iterable[Object], tables: Mapping[str, KernelTable], stack: ExitStack
) -> dict[str, Program]:
    """Every program of the objects on these tables; `stack` closes their descriptors.

    Scratch space is made for this load and lives as long as its programs."""
    found: dict[str, compiled.Program] = {}
    maps = {name: table.fd for name, table in tables.items()}
    for unit in units:
        for declared in unit.maps:
            if declared.name not in maps:
                maps[declared.name] = _create_scratch(declared, stack)
        for one in unit.programs:
            if one.name in found:
                raise ObjectError(f"{unit.name}: program {one.name} is in another object too")
            found[one.name] = one
    fds = _load_all(found.values(), maps, stack)
    return {name: _program(one, fds[name]) for name, one in found.items()}


def _load_all(
    programs: Iterable[compiled.Program], maps: Mapping[str, int], stack: ExitStack
) -> dict[str, int]:
    """Beside each other, the longest first: the kernel verifies on the CPU of whoever asks, which
    is most of what a start takes.
    """
    longest_first = sorted(programs, key=lambda one: -len(one.insns))
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        loading = {one.name: pool.submit(_load, one, maps) for one in longest_first}
        wait(loading.values())
    for load in loading.values():
        if not load.exception():
            stack.callback(os.close, load.result())
    return {name: load.result() for name, load in loading.items()}


def _create_scratch(declared: MapDeclaration, stack: ExitStack) -> int:
    sizes = declared.key_size, declared.value_size, declared.max_entries
    fd = syscall.create_map(MapType(declared.kind), sizes, declared.flags, declared.name)
    stack.callback(os.close, fd)
    return fd


def _load(one: compiled.Program, maps: Mapping[str, int]) -> int:
    insns = bytearray(one.insns)
    for at in one.references:
        # The immediate is the instruction's last 4 bytes.
        place = at.instruction * INSTRUCTION_BYTES + 4
        struct.pack_into("=I", insns, place, maps[at.table])
    return syscall.load_program(one.kind, one.attach, bytes(insns), one.name)


def _program(one: compiled.Program, fd: int) -> Program:
    info = syscall.program_info(fd, f"program {one.name}")
    return Program(fd, one.name, info.tag, info.verified_insns, one.kind, one.attach)
