"""Owns when rows that no packet will find any more leave the tables of flows, so that the kernel's
LRU need not take live ones for them.

Lists and proposes; which row is dead, the program `sweep` says, and deletes it in the same breath
(bpf/sweep.bpf.c). Never more than SHARE of a core; a table that fills up loses closed connections
early.
"""

import asyncio
import struct
import time
from array import array
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from weft.bpf import syscall
from weft.bpf.features import jiffies_hz, jiffies_now
from weft.bpf.table import KernelTable, Page

NUMBERS = {"flows": 1, "translations": 2, "snat": 3}
"""Tables in their order, as sweep.bpf.c numbers them (enum swept_table)."""

KEYS = 64
"""How many the program takes at once (SWEEP_KEYS)."""

PAUSE_S = 10.0
"""Between two rounds at least."""
SHARE = 0.005

CLOSED_S, CLOSED_WHEN_FULL_S = 60, 5
"""How long a closed connection is kept: late segments still find their way. The first is
IDLE_CLOSING_S of bpf/include/flow.h."""
FULL = 0.75

_CONTEXT_BYTES, _CB = 192, 48  # struct __sk_buff
_MAPPED = bytes(10) + b"\xff\xff"


@dataclass(frozen=True, slots=True)
class Swept:
    """One round through all tables. deleted: rows by family, "IPv4" and "IPv6"."""

    took_s: float
    deleted: Mapping[str, int]


class Sweep:
    """Walks the tables of flows over and over; `observers` are told of each round."""

    def __init__(
        self,
        program: int,
        tables: Mapping[str, KernelTable],
        spent: Callable[[], float] = time.thread_time,
    ) -> None:
        """program: the descriptor of `sweep`."""
        self._program, self._spent = program, spent
        self._tables = {name: tables[name] for name in NUMBERS}
        self._hz = jiffies_hz()
        self._rows = dict.fromkeys(NUMBERS, 0)
        self.observers: list[Callable[[Swept], None]] = []

    async def run(self) -> None:
        """Until cancelled; between two pages of a table others have their turn."""
        while True:
            took_s, deleted = 0.0, {"IPv4": 0, "IPv6": 0}
            for name in NUMBERS:
                pages = self.pages(name)
                while (page := await asyncio.to_thread(next, pages, None)) is not None:
                    took_s += page.took_s
                    for family, count in page.deleted.items():
                        deleted[family] += count
                    await asyncio.sleep(page.took_s / SHARE)
            for observer in self.observers:
                observer(Swept(took_s, deleted))
            await asyncio.sleep(PAUSE_S)

    def pages(self, name: str) -> Iterator[Swept]:
        """Sweep one table, a page of it each time that the next is asked for."""
        table = self._tables[name]
        closed_s = CLOSED_S
        if self._rows[name] > FULL * table.max_entries:
            closed_s = CLOSED_WHEN_FULL_S
        rows, begun_s = 0, self._spent()
        for page in table.pages():
            rows += page.count
            deleted = {
                family: self._propose(name, keys, closed_s)
                for family, keys in self._old(table, page, closed_s).items()
            }
            yield Swept(self._spent() - begun_s, deleted)
            begun_s = self._spent()
        self._rows[name] = rows

    def _old(self, table: KernelTable, page: Page, limit_s: int) -> dict[str, list[bytes]]:
        """The keys, by family, of rows not seen for so long. `seen` is a row's last word."""
        size, words = table.spec.key_size, table.spec.value_size // 4
        seen = array("I", page.values)[words - 1 :: words]
        # What another CPU writes meanwhile may lie a moment ahead: the program looks again.
        now, limit = jiffies_now() & 0xFFFFFFFF, limit_s * self._hz
        found: dict[str, list[bytes]] = {"IPv4": [], "IPv6": []}
        for place, then in enumerate(seen):
            if (now - then) & 0xFFFFFFFF > limit:
                key = page.keys[place * size : (place + 1) * size]
                found["IPv4" if key.startswith(_MAPPED) else "IPv6"].append(key)
        return found

    def _propose(self, name: str, keys: list[bytes], closed_s: int) -> int:
        """How many rows the program deleted."""
        context = bytearray(_CONTEXT_BYTES)
        struct.pack_into("=II", context, _CB, closed_s, NUMBERS[name])
        return sum(
            syscall.run_program(
                self._program, b"".join(keys[at : at + KEYS]), bytes(context)
            ).verdict
            for at in range(0, len(keys), KEYS)
        )
