"""One node's tables and programs without hooks: a packet goes through one program.

Owns BPF_PROG_TEST_RUN and the reading of counters. Redirects only report themselves there: where
to is seen from the reason that was counted and the MACs that were written.
"""

import ctypes
import struct
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from enum import IntEnum
from typing import Protocol

from weft.bpf import syscall
from weft.bpf.build import objects_folder
from weft.bpf.events import EventReader
from weft.bpf.layout import TABLES, Counter, Direction, Event, Reason, unpack_u32
from weft.bpf.load import Program, create_table, load_programs
from weft.bpf.objects import read_objects
from weft.bpf.table import KernelTable
from weft.bpf.wire import TableKind

# Offsets in struct __sk_buff.
_MARK, _INGRESS_IFINDEX, _IFINDEX, _CONTEXT_BYTES = 8, 36, 40, 192
_DIRECTIONS = 8
# linux/time.h; it moves with the jiffies.
_CLOCK_MONOTONIC_COARSE = 6


class Action(IntEnum):
    """What a program returns to tc."""

    NEXT = -1
    DROP = 2
    REDIRECT = 7


class Row(Protocol):
    def pack(self) -> bytes: ...


@dataclass(frozen=True, slots=True)
class Outcome:
    """counted: what this packet added to the counters, in packets."""

    action: Action
    packet: bytes
    mark: int
    counted: Mapping[tuple[Reason, Direction], int]
    events: tuple[Event, ...]
    duration_ns: int

    @property
    def reason(self) -> Reason:
        """Of the one exit that counted."""
        ((reason, _),) = self.counted
        return reason


class Node:
    """The tables and programs of one load; `clear` between tests."""

    def __init__(
        self, tables: Mapping[str, KernelTable], programs: Mapping[str, Program], ring: EventReader
    ) -> None:
        self.tables, self.programs, self._ring = tables, programs, ring

    def put(self, table: str, key: Row | bytes | int, value: Row | bytes) -> None:
        """One row; a number is a u32 or u64 key as the table wants it."""
        if isinstance(key, int):
            key = key.to_bytes(TABLES[table].key_size, "little")
        packed = key if isinstance(key, bytes) else key.pack()
        row = value if isinstance(value, bytes) else value.pack()
        self.tables[table].update({packed: row})

    def rows(self, table: str) -> dict[bytes, bytes]:
        return dict(self.tables[table].items())

    def clear(self) -> None:
        for table in self.tables.values():
            if table.spec.kind in (TableKind.HASH, TableKind.LRU_HASH, TableKind.LPM_TRIE):
                table.delete([key for key, _ in table.items()])
        for name in ("settings", "north_south"):
            self.put(name, 0, bytes(TABLES[name].value_size))
        self._ring.read()

    def run(
        self, program: str, packet: bytes, *, ifindex: int = 1, received_on: int = 0, mark: int = 0
    ) -> Outcome:
        """One packet through `program` on the link `ifindex`, which must exist; received_on: the
        link by which the node got it, 0 for its own. It runs in a later tick than what was done
        before, so that nothing is recalled (recent.h)."""
        await_tick()
        before = self.counts()
        run = self.repeat(program, packet, 1, ifindex=ifindex, received_on=received_on, mark=mark)
        after = self.counts()
        counted = {exit: n - before.get(exit, 0) for exit, n in after.items()}
        counted = {exit: n for exit, n in counted.items() if n}
        action = Action(ctypes.c_int32(run.verdict).value)
        left = struct.unpack_from("=I", run.context, _MARK)[0]
        events = self.told()
        return Outcome(action, run.packet, left, counted, events, run.duration_ns)

    def repeat(
        self,
        program: str,
        packet: bytes,
        times: int,
        *,
        ifindex: int = 1,
        received_on: int = 0,
        mark: int = 0,
    ) -> syscall.ProgramRun:
        """The same packet `times` over, for its mean duration; what a run changes stays changed."""
        context = bytearray(_CONTEXT_BYTES)
        struct.pack_into("=I", context, _MARK, mark)
        struct.pack_into("=II", context, _INGRESS_IFINDEX, received_on, ifindex)
        return syscall.run_program(self.programs[program].fd, packet, bytes(context), times)

    def told(self) -> tuple[Event, ...]:
        """The events since they were last asked for."""
        return tuple(self._ring.read())

    def counts(self) -> dict[tuple[Reason, Direction], int]:
        """Packets by exit since the load, those that were ever taken."""
        totals = {}
        for key, value in self.tables["counters"].items():
            rows = [value[at : at + Counter.SIZE] for at in range(0, len(value), Counter.SIZE)]
            if packets := sum(Counter.unpack(row).packets for row in rows):
                reason, direction = divmod(unpack_u32(key), _DIRECTIONS)
                totals[Reason(reason), Direction(direction)] = packets
        return totals


def await_tick() -> None:
    """Until the kernel's jiffies have moved on."""
    now = time.clock_gettime_ns(_CLOCK_MONOTONIC_COARSE)
    while time.clock_gettime_ns(_CLOCK_MONOTONIC_COARSE) == now:
        pass


@contextmanager
def loaded(sizes: Mapping[str, int] | None = None) -> Iterator[Node]:
    """Every program of this checkout on tables of its own; sizes: other than the defaults."""
    with ExitStack() as stack:
        tables = {
            spec.name: stack.enter_context(
                create_table(spec, (sizes or {}).get(spec.name, spec.entries))
            )
            for spec in TABLES.values()
        }
        programs = load_programs(read_objects(objects_folder()), tables, stack)
        ring = stack.enter_context(EventReader(tables["events"]))
        yield Node(tables, programs, ring)
