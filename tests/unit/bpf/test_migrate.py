"""State maps of other versions: rows go on, whatever was made, copied or left half-way before."""

import os
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from weft.bpf import migrate, pins, syscall
from weft.bpf.features import jiffies_now
from weft.bpf.layout import LAYOUTS, TABLES, Counter, Flow, Tuple, pack_u32
from weft.bpf.migrate import Migration, copy_rest, write_types
from weft.bpf.rowtype import Layouts
from weft.bpf.syscall import MapType
from weft.bpf.table import KernelTable, Page
from weft.bpf.wire import TableSpec

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="kernel tables need root")

# What a version after this one may make of a flow: a field in the middle, one wider, one gone.
NEWER_FLOW = (
    "56",
    "initiator_revision:__u64@0",
    "marker:__u64@8",
    "responder_revision:__u64@16",
    "vip:struct-address@24",
    "vip_port:__be16@40",
    "flags:__u16@42",
    "way:__u8@44",
    "pad0:__u8[3]@45",
    "seen:__u32@48",
    "pad1:__u32@52",
)
NEWER: Layouts = LAYOUTS | {"Flow": NEWER_FLOW}
FLOWS = replace(TABLES["flows"], entries=1_024)


@dataclass(slots=True)
class Version:
    """A version of the code, as far as its state maps go."""

    pins: Path
    stack: ExitStack
    layouts: Layouts = field(default_factory=lambda: LAYOUTS)
    entries: int = 1_024

    def spec(self, spec: TableSpec = FLOWS) -> TableSpec:
        return replace(spec, value_size=int(self.layouts[spec.value][0]), entries=self.entries)

    def pin(self, spec: TableSpec = FLOWS) -> Path:
        return pins.map_pin(self.pins, self.spec(spec), self.entries, dict(self.layouts))

    def make(self, spec: TableSpec = FLOWS) -> KernelTable:
        """Step a: the map, pinned, with what its rows are made of; or the one that is there."""
        spec, pin = self.spec(spec), self.pin(spec)
        write_types(pin, spec, self.layouts)
        if pin.exists():
            return self.stack.enter_context(KernelTable(spec, syscall.open_pin(pin)))
        sizes = spec.key_size, spec.value_size, self.entries
        fd = syscall.create_map(MapType[spec.kind.name], sizes, 0, spec.name)
        table = self.stack.enter_context(KernelTable(spec, fd))
        syscall.pin(fd, pin)
        return table

    def start(self, table: KernelTable, spec: TableSpec = FLOWS) -> Migration:
        """Steps a and b."""
        current = {spec.name: self.pin(spec)}
        older = [(path, table) for path in pins.old_maps(self.pins, current)]
        return migrate.migrate(older, self.layouts, self.stack)


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def old(bpffs: Path, stack: ExitStack) -> Version:
    place = bpffs / "w"
    stack.enter_context(pins.held(place))
    return Version(place, stack)


@pytest.fixture
def new(old: Version) -> Version:
    return Version(old.pins, old.stack, NEWER)


def key(number: int) -> bytes:
    return number.to_bytes(4, "big") + bytes(Tuple.SIZE - 4)


def flow(number: int, seen: int = 0) -> bytes:
    row = Flow.unpack(bytes(Flow.SIZE))
    return replace(row, initiator_revision=number, flags=number % 256, path=2, seen=seen).pack()


def flows(count: int) -> dict[bytes, bytes]:
    return {key(number): flow(number, jiffies_now() % 2**32) for number in range(count)}


def revisions(table: KernelTable) -> dict[int, int]:
    """The two fields that every version knows, by number of the flow."""
    return {
        int.from_bytes(key[:4], "big"): int.from_bytes(row[:8], "little")
        for key, row in table.items()
    }


def names(place: Path) -> list[str]:
    return sorted(path.name for path in place.iterdir())


def as_counted(numbers: range) -> dict[int, int]:
    return {number: number for number in numbers}


def test_flows_go_to_the_next_version_and_back(old: Version, new: Version) -> None:
    was = old.make()
    was.update(flows(100))
    now = new.make()
    migration = new.start(now)
    assert revisions(now) == as_counted(range(100))
    assert [(one.rows, one.unfit) for one in migration.copied] == [(100, 0)]
    list(migration.finish())
    assert names(old.pins / "maps") == names(old.pins / "types") == [new.pin().name]

    again = old.make()
    assert revisions(again) == {}
    list(old.start(again).finish())
    assert revisions(again) == as_counted(range(100))
    assert names(old.pins / "maps") == [old.pin().name]
    assert all(Flow.unpack(row).flags == Flow.unpack(row).initiator_revision % 256
               for _, row in again.items())  # fmt: skip


def test_a_field_that_a_version_does_not_know_is_zero_after_it(old: Version, new: Version) -> None:
    old.make().update(flows(1))
    now = new.make()
    list(new.start(now).finish())
    again = old.make()
    old.start(again)
    ((_, row),) = again.items()
    assert Flow.unpack(row).path == 0, "the newer version calls it otherwise"


def test_what_the_old_programs_write_until_they_are_replaced_comes_too(
    old: Version, new: Version
) -> None:
    was = old.make()
    was.update(flows(10))
    now = new.make()
    migration = new.start(now)
    was.update({key(10): flow(10)})
    was.update({key(3): flow(99)})
    list(migration.finish())
    assert revisions(now) == as_counted(range(11)), "the new programs' rows stay"


class Crash(Exception):
    """The daemon ends here."""


CRASHES = ("made", "half copied", "copied", "half of the rest", "the rest", "unpinned, types left")


def run_until(version: Version, step: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """One start of a version that ends after the step, the loop's turns left out."""
    table = version.make()
    if step == CRASHES[0]:
        return
    with monkeypatch.context() as patched:
        if step == CRASHES[1]:
            crash_after(patched, "put", 1)
        migration = version.start(table)
    if step == CRASHES[2]:
        return
    with monkeypatch.context() as patched:
        if step == CRASHES[3]:
            crash_after(patched, "add", 1)
        for move in migration.moves:
            list(copy_rest(move))
    if step == CRASHES[4]:
        return
    for move in migration.moves:
        move.pin.unlink()


def crash_after(patched: pytest.MonkeyPatch, name: str, calls: int) -> None:
    """The table's method raises Crash once it has run so often."""
    whole, done = getattr(KernelTable, name), list[None]()

    def some(self: KernelTable, page: Page) -> object:
        if len(done) == calls:
            raise Crash
        done.append(None)
        return whole(self, page)

    patched.setattr(KernelTable, name, some)


@pytest.mark.parametrize("after", ["upgrade", "downgrade"])
@pytest.mark.parametrize("step", CRASHES)
def test_a_crash_after_any_step_loses_no_flow(
    old: Version, new: Version, step: str, after: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    old.entries = new.entries = 16_384
    was = old.make()
    was.update(flows(10_000))
    with suppress(Crash):
        run_until(new, step, monkeypatch)
    survivor = new if after == "upgrade" else old
    table = survivor.make()
    list(survivor.start(table).finish())
    assert revisions(table) == as_counted(range(10_000))
    assert names(old.pins / "maps") == [survivor.pin().name]


def test_of_a_flow_in_several_maps_the_one_seen_last_goes_on(old: Version, new: Version) -> None:
    """An upgrade that stopped half-way, then the version before: its own map has grown old."""
    now = jiffies_now() % 2**32
    was = old.make()
    was.update({key(1): flow(1, now - 500), key(2): flow(2, now)})
    newer = new.make()
    new.start(newer)
    newest = dict(newer.items())[key(1)]
    newest = (77).to_bytes(8, "little") + newest[8:48] + pack_u32(now) + newest[52:]
    newer.update({key(1): newest})
    list(old.start(was).finish())
    assert revisions(was) == {1: 77, 2: 2}


def test_several_older_maps_are_joined(old: Version, new: Version) -> None:
    old.make().update(flows(5))
    new.make().update({key(7): (7).to_bytes(8, "little") + bytes(48)})
    third = Version(old.pins, old.stack, LAYOUTS, entries=4_096)
    table = third.make()
    migration = third.start(table)
    assert revisions(table) == as_counted(range(5)) | {7: 7}
    list(migration.finish())
    assert names(old.pins / "maps") == [third.pin().name]


def test_a_smaller_table_takes_the_flows_seen_last(old: Version) -> None:
    old.entries = 8_192
    now = jiffies_now()
    old.make().update({key(n): flow(n, (now - n) % 2**32) for n in range(8_000)})
    small = Version(old.pins, old.stack, entries=2_048)
    table = small.make()
    small.start(table)
    kept = revisions(table)
    assert max(kept) < 2_048
    # An LRU table keeps a few free places for each CPU.
    assert len(kept) > 2_000


def test_a_revision_too_large_for_its_field_is_dropped_and_counted(
    old: Version, new: Version
) -> None:
    large = 0x1FF
    row = (5).to_bytes(8, "little") + bytes(34) + large.to_bytes(2, "little") + bytes(12)
    new.make().update({key(1): row, key(2): row[:42] + bytes(2) + row[44:]})
    was = old.make()
    (copied,) = old.start(was).copied
    assert (copied.rows, copied.unfit) == (1, 1)
    assert revisions(was) == {2: 5}


def test_counters_go_on_counting(old: Version) -> None:
    spec = TABLES["counters"]
    was = old.make(spec)
    cpus = was.row_size // was.stride
    was.update({pack_u32(3): Counter(5, 60).pack() * cpus, pack_u32(4): bytes(was.row_size)})
    larger = Version(old.pins, old.stack, entries=2_048)
    now = larger.make(spec)
    now.update({pack_u32(4): Counter(1, 1).pack() * cpus})
    list(larger.start(now, spec).finish())
    assert now.lookup(pack_u32(3)) == Counter(5, 60).pack() * cpus
    assert now.lookup(pack_u32(4)) == Counter(1, 1).pack() * cpus


def test_half_a_million_flows_take_seconds(
    old: Version, new: Version, capsys: pytest.CaptureFixture[str]
) -> None:
    old.entries = new.entries = 524_288
    was = old.make()
    # An LRU table fills its lists unevenly: not every last row has room.
    rows = {key(n): flow(n) for n in range(512_000)}
    was.update(rows)
    held = len(was)
    now = new.make()
    # Of processor time: others may be at work on this machine.
    started_s = time.process_time()
    migration = new.start(now)
    copied_s, longest_s, last_s = time.process_time(), 0.0, time.process_time()
    for _ in migration.finish():
        longest_s, last_s = max(longest_s, time.process_time() - last_s), time.process_time()
    with capsys.disabled():
        print(f"\n{held:,} flows: copied in {copied_s - started_s:.2f} s, compared again in "
              f"{last_s - copied_s:.2f} s, at most {longest_s * 1000:.1f} ms at once")  # fmt: skip
    assert len(now) >= 0.99 * held
    assert copied_s - started_s < 5
    assert longest_s < 0.05
