"""State that outlives the code: rows of older state maps go on in this version's, by field name.

Owns the order in which that is safe, each step a function that may be the last one to run:
the new map is made and pinned (load.py), `copy` fills it, the hooks are replaced (hook.py),
`copy_rest` brings what the old programs wrote meanwhile, `pins.unpin` lets go of the old map.
Until then every start finds it and does the same again, of whichever version that start is.
"""

import os
from array import array
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from weft.bpf import pins, syscall
from weft.bpf.columns import Recipe, Run, recipe, without
from weft.bpf.features import jiffies_hz, jiffies_now
from weft.bpf.rowtype import Layouts, Leaf, RowType, decode, encode
from weft.bpf.syscall import MapType
from weft.bpf.table import KernelTable, Page
from weft.bpf.wire import TableKind, TableSpec, pack_u32, unpack_u32

_FIXED = (TableKind.ARRAY, TableKind.PERCPU_ARRAY)
# Rows written one by one between two turns of the daemon's loop: 2 to 3 ms.
_REST_ROWS = 1_024
_SEEN, _JIFFIES = "seen", 1 << 32


@dataclass(frozen=True, slots=True)
class Move:
    """An older map, `pin`, whose rows `new` takes over.

    seen: where in a new row's value stands when the programs saw it last; None: nowhere.
    """

    pin: Path
    old: KernelTable
    new: KernelTable
    key: Recipe
    value: Recipe
    seen: int | None


@dataclass(frozen=True, slots=True)
class Copied:
    """What came of one older map: rows carried over, and those with a value that is too large for
    its field of today."""

    pin: Path
    rows: int
    unfit: int


@dataclass(frozen=True, slots=True)
class Migration:
    """Every older state map. unmigrated: pins of those whose rows cannot be carried over, with the
    reason; they stay for the version that made them."""

    moves: tuple[Move, ...]
    copied: tuple[Copied, ...]
    unmigrated: Mapping[Path, str]

    def finish(self) -> Iterator[None]:
        """The last steps, when every hook runs this version's programs: what the others' wrote
        last, then the older maps go. Comes back every few ms, so that a loop can go on."""
        for move in self.moves:
            yield from copy_rest(move)
            pins.unpin(move.pin)
            move.old.close()


def write_types(pin: Path, spec: TableSpec, layouts: Layouts) -> None:
    """Pin what a map's rows are made of, before the map itself is pinned."""
    place = pins.type_pin(pin)
    if place.exists():
        return
    data = encode(spec, layouts).data
    with ExitStack() as stack:
        sizes = (4, len(data), 1)
        fd = syscall.create_map(MapType.ARRAY, sizes, 0, f"btf_{spec.name}")
        table = stack.enter_context(KernelTable(_types_spec(spec.name, len(data)), fd))
        table.update({pack_u32(0): data})
        syscall.pin(fd, place)


def read_types(pin: Path) -> RowType | None:
    """What the rows of a pinned map are made of; None where its version did not say so."""
    place = pins.type_pin(pin)
    if not place.exists():
        return None
    fd = syscall.open_pin(place)
    size = syscall.map_info(fd, f"pin {place}").value_size
    with KernelTable(_types_spec(pin.name, size), fd) as table:
        return decode(table.lookup(pack_u32(0)) or b"")


def migrate(
    old: Iterable[tuple[Path, KernelTable]], layouts: Layouts, stack: ExitStack
) -> Migration:
    """Carry over the rows of older maps, each with the table that takes its place; `stack` closes
    them. The one made last goes first: where rows say nothing of their age, its count."""
    moves, unmigrated = list[Move](), dict[Path, str]()
    for pin, new in old:
        found = _move(pin, new, layouts, stack)
        if isinstance(found, Move):
            moves.append(found)
        else:
            unmigrated[pin] = found
    moves.sort(key=lambda move: move.old.id, reverse=True)
    return Migration(tuple(moves), tuple(copy(move) for move in moves), unmigrated)


def copy(move: Move) -> Copied:
    """Rows of the older map into the new one. Of a row that is in both the younger stays: whichever
    version ran last wrote it."""
    rows = unfit = 0
    is_empty = move.new.spec.kind not in _FIXED and not any(p.count for p in move.new.pages())
    for page, lost in _translated(move, _oldest(move)):
        if move.new.spec.kind in _FIXED:
            _fill_zeros(move.new, page)
        elif is_empty:
            move.new.put(page)
        else:
            _put_younger(move, page, move.new.add(page))
        rows, unfit = rows + page.count, unfit + lost
    return Copied(move.pin, rows, unfit)


def copy_rest(move: Move) -> Iterator[None]:
    """What the new map has no row for; a row that it has stays, since its programs wrote it."""
    for page, _ in _translated(move, _oldest(move)):
        if move.new.spec.kind in _FIXED:
            _fill_zeros(move.new, page)
            continue
        for part in _parts(page, move.new.spec.key_size, move.new.row_size):
            move.new.add(part)
            yield


def _move(pin: Path, new: KernelTable, layouts: Layouts, stack: ExitStack) -> Move | str:
    """The reason, where the rows cannot be carried over."""
    was = read_types(pin)
    if was is None:
        return "its version did not say what its rows are made of"
    fd = syscall.open_pin(pin)
    spec = replace(new.spec, key_size=was.key_size, value_size=was.value_size)
    with ExitStack() as undo:
        undo.callback(os.close, fd)
        if syscall.map_info(fd, f"pin {pin}").kind != MapType[spec.kind.name]:
            return "it is a map of another kind"
        old = KernelTable(spec, fd)
        undo.pop_all()
    stack.enter_context(old)
    now = decode(encode(new.spec, layouts).data)
    key = recipe(was.key, now.key, was.key_size, now.key_size, is_key=True)
    value = recipe(was.value, now.value, old.stride, new.stride, is_key=False)
    if key is None or value is None:
        return "a field of its key was something else"
    return Move(pin, old, new, key, value, _seen(now.value))


def _types_spec(name: str, size: int) -> TableSpec:
    """An array of one row, the BTF; for the kernel it is bytes."""
    return TableSpec(name, TableKind.ARRAY, "u32", "", 4, size, 1, False, False)


def _seen(value: Iterable[Leaf]) -> int | None:
    return next((leaf.offset for leaf in value if (leaf.path, leaf.size) == (_SEEN, 4)), None)


def _translated(move: Move, oldest: int | None) -> Iterator[tuple[Page, int]]:
    """The older map's rows as the new one's, but for those older than `oldest`; and of each page
    how many have a value that does not fit."""
    each = move.old.row_size // move.old.stride
    for page in move.old.pages():
        unfit = {place // each for place in move.value.unfit(page.values)}
        unfit |= move.key.unfit(page.keys)
        keys, values = move.key.translated(page.keys), move.value.translated(page.values)
        dropped = unfit if oldest is None else unfit | _older(move, values, oldest)
        if dropped:
            keys = without(keys, move.new.spec.key_size, dropped)
            values = without(values, move.new.row_size, dropped)
        yield Page(page.count - len(dropped), keys, values), len(unfit)


def _oldest(move: Move) -> int | None:
    """The greatest age, in jiffies, for which the new map has room; None: for all rows."""
    room = move.new.max_entries
    if move.seen is None or move.old.max_entries <= room:
        return None
    ages = array("I")
    for page in move.old.pages():
        ages.extend(_ages(move, move.value.translated(page.values)))
    return sorted(ages)[room - 1] if len(ages) > room else None


def _older(move: Move, values: bytes, oldest: int) -> set[int]:
    return {place for place, age in enumerate(_ages(move, values)) if age > oldest}


def _ages(move: Move, values: bytes) -> Iterator[int]:
    """Of new rows, how many jiffies ago they were seen."""
    assert move.seen is not None
    column = Recipe(move.new.row_size, 4, (Run(move.seen, 0, 4),), (), is_same=False)
    # The clock is right to a second: a row of just now must not look 2^32 jiffies old.
    now = jiffies_now() + 2 * jiffies_hz()
    return ((now - seen) % _JIFFIES for seen in array("I", column.translated(values)))


def _put_younger(move: Move, page: Page, places: Iterable[int]) -> None:
    """Of rows that are in both maps, write those that the older one saw last."""
    if move.seen is None:
        return
    key_size, row_size, younger = move.new.spec.key_size, move.new.row_size, dict[bytes, bytes]()
    for place in places:
        key = page.keys[place * key_size : (place + 1) * key_size]
        row = page.values[place * row_size : (place + 1) * row_size]
        present = move.new.lookup(key)
        if present is None or _age_between(row, present, move.seen) < _JIFFIES // 2:
            younger[key] = row
    move.new.update(younger)


def _age_between(row: bytes, other: bytes, seen: int) -> int:
    """How many jiffies later `row` was seen; beyond half the range: earlier."""
    return (_u32(row, seen) - _u32(other, seen)) % _JIFFIES


def _u32(row: bytes, at: int) -> int:
    return unpack_u32(row[at : at + 4])


def _fill_zeros(new: KernelTable, page: Page) -> None:
    """An array has all its rows from birth: one that nothing has counted in yet is zero."""
    size, rows = new.row_size, dict[bytes, bytes]()
    for place in range(page.count):
        key = page.keys[4 * place : 4 * place + 4]
        if unpack_u32(key) < new.max_entries and not any(new.lookup(key) or b""):
            rows[key] = page.values[place * size : (place + 1) * size]
    new.update(rows)


def _parts(page: Page, key_size: int, row_size: int) -> Iterator[Page]:
    for at in range(0, page.count, _REST_ROWS):
        count = min(_REST_ROWS, page.count - at)
        keys = page.keys[at * key_size : (at + count) * key_size]
        yield Page(count, keys, page.values[at * row_size : (at + count) * row_size])
