"""Rows of an old struct into rows of a new one, by field name, whole pages at a time.

Pure. A byte of every row is a column: one slice with a stride moves it, so that 512,000 rows cost
tenths of a second.
"""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import compress

from weft.bpf.rowtype import Leaf


@dataclass(frozen=True, slots=True)
class Run:
    """`size` bytes at `source` of the old struct, for `target` of the new one."""

    source: int
    target: int
    size: int


@dataclass(frozen=True, slots=True)
class Recipe:
    """How a struct becomes another. must_be_zero: bytes of the old one that the new one has no
    room for, so that the row has no place there unless they are zero."""

    old_size: int
    new_size: int
    runs: tuple[Run, ...]
    must_be_zero: tuple[int, ...]
    is_same: bool

    def translated(self, rows: bytes) -> bytes:
        """Old structs, one after another, as new ones; what only these have is zero."""
        if self.is_same:
            return rows
        answer = bytearray(len(rows) // self.old_size * self.new_size)
        for run in self.runs:
            for byte in range(run.size):
                column = rows[run.source + byte :: self.old_size]
                answer[run.target + byte :: self.new_size] = column
        return bytes(answer)

    def unfit(self, rows: bytes) -> set[int]:
        """Places of rows with a value that is too large for its new field."""
        found: set[int] = set()
        for byte in self.must_be_zero:
            column = rows[byte :: self.old_size]
            if column.count(0) != len(column):
                found.update(compress(range(len(column)), column))
        return found


def recipe(
    old: Sequence[Leaf], new: Sequence[Leaf], old_size: int, new_size: int, *, is_key: bool
) -> Recipe | None:
    """None: a field of this key was something else before, so that no row can be found again.

    Sizes are those of the rows as they lie in a page: a per-CPU row is padded to 8 bytes."""
    before = {leaf.path: leaf for leaf in old}
    runs, must_be_zero = list[Run](), list[int]()
    for leaf in new:
        was = before.get(leaf.path)
        if was is None or _is_pad(leaf):
            continue
        if not _is_compatible(was, leaf):
            if is_key:
                return None
            continue
        runs.append(_run(was, leaf))
        must_be_zero += _lost(was, leaf)
    same = tuple(old) == tuple(new) and old_size == new_size
    return Recipe(old_size, new_size, tuple(runs), tuple(must_be_zero), same)


def without(data: bytes, size: int, places: Collection[int]) -> bytes:
    """The rows of `size` bytes in `data` but for those at `places`."""
    return b"".join(_kept(data, size, places))


def _kept(data: bytes, size: int, places: Collection[int]) -> Iterator[bytes]:
    for place in range(len(data) // size):
        if place not in places:
            yield data[place * size : (place + 1) * size]


def _is_pad(leaf: Leaf) -> bool:
    return leaf.path.rpartition(".")[2].startswith("pad")


def _is_compatible(was: Leaf, leaf: Leaf) -> bool:
    """Numbers of any width, if unsigned; arrays of equal elements."""
    if (was.count is None) != (leaf.count is None) or _order(was) != _order(leaf):
        return False
    if leaf.count is not None or _order(leaf) == "s":
        return was.size == leaf.size
    return True


def _order(leaf: Leaf) -> str:
    """be (network order), s (signed) or u: what bytes of a number mean besides its width."""
    return leaf.type.removeprefix("__").rstrip("0123456789")


def _run(was: Leaf, leaf: Leaf) -> Run:
    if leaf.count is not None and was.count is not None:
        return Run(was.offset, leaf.offset, min(was.count, leaf.count) * leaf.size)
    size = min(was.size, leaf.size)
    # Both machines that Weft runs on are little endian: a number's low bytes come first.
    if _order(leaf) != "be":
        return Run(was.offset, leaf.offset, size)
    return Run(was.offset + was.size - size, leaf.offset + leaf.size - size, size)


def _lost(was: Leaf, leaf: Leaf) -> range:
    """The bytes of a number that its new field has no room for."""
    lost = max(0, was.size - leaf.size) if leaf.count is None else 0
    start = was.offset if _order(leaf) == "be" else was.offset + leaf.size
    return range(start, start + lost)
