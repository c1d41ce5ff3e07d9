"""Reading and writing one map: the `Table` contract, the kernel's tables and a fake of them.

Owns batching and what a full or absent row means. Rows are bytes: `layout` knows their meaning.
"""

import ctypes
import errno
import os
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

from weft.bpf import syscall
from weft.bpf.syscall import BpfError, Command
from weft.bpf.wire import TableKind, TableSpec, unpack_u32

_BATCH = 4096
_NO_ROOM = (-errno.E2BIG, -errno.ENOSPC, -errno.ENOMEM)
_FIXED = (TableKind.ARRAY, TableKind.PERCPU_ARRAY, TableKind.PROG_ARRAY)


@dataclass(frozen=True, slots=True)
class Page:
    """Some rows of a table: keys one after another, values likewise."""

    count: int
    keys: bytes
    values: bytes


class TableFull(Exception):
    """A table has no room: `refused` rows were not written, all others of the call were."""

    def __init__(self, table: str, max_entries: int, refused: Mapping[bytes, bytes]) -> None:
        super().__init__(
            f"table {table} is full at {max_entries:,} rows: {len(refused):,} rows refused; "
            f"raise its size in the settings"
        )
        self.table, self.max_entries, self.refused = table, max_entries, refused


class Table(Protocol):
    """One map. Keys and values are packed structs, of exactly the table's sizes.

    A per-CPU table's value is every possible CPU's row one after another, each padded to 8 bytes.
    LPM tables answer a look-up with the row of the longest matching prefix.
    """

    @property
    def name(self) -> str: ...
    @property
    def max_entries(self) -> int: ...

    def lookup(self, key: bytes) -> bytes | None:
        """The value, or None where there is no row."""

    def update(self, rows: Mapping[bytes, bytes]) -> None:
        """Write rows, new or not, in their order. Raises TableFull after writing what fits."""

    def delete(self, keys: Iterable[bytes]) -> None:
        """Remove rows; a key without a row is no error. Arrays have all their rows for ever."""

    def items(self) -> Iterator[tuple[bytes, bytes]]:
        """Every row. One that comes or goes meanwhile may or may not appear."""

    def __len__(self) -> int:
        """How many rows there are; costs a walk."""


class KernelTable:
    """An open map. Owns the descriptor `fd`.

    stride: a value's bytes as they lie in a row; row_size: those of every CPU's together."""

    def __init__(self, spec: TableSpec, fd: int) -> None:
        info = syscall.map_info(fd, f"table {spec.name}")
        if (info.key_size, info.value_size) != (spec.key_size, spec.value_size):
            raise ValueError(
                f"table {spec.name}: the kernel's rows have {info.key_size}+{info.value_size} "
                f"bytes, layout.py's {spec.key_size}+{spec.value_size}"
            )
        self.spec, self.fd, self.max_entries = spec, fd, info.max_entries
        self.id, self.stride, self.row_size = info.id, info.value_size, info.value_size
        if spec.kind is TableKind.PERCPU_ARRAY:
            self.stride = -(-info.value_size // 8) * 8
            self.row_size = self.stride * possible_cpus()

    @property
    def name(self) -> str:
        return self.spec.name

    def close(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        self.close()

    def lookup(self, key: bytes) -> bytes | None:
        value = syscall.buffer_of(bytes(self.row_size))
        result = self._element(Command.MAP_LOOKUP_ELEM, self._keys([key]), value)
        if result == -errno.ENOENT:
            return None
        self._check(result, f"look up {key.hex()} in")
        return value.raw[: self.row_size]

    def update(self, rows: Mapping[bytes, bytes]) -> None:
        refused: dict[bytes, bytes] = {}
        pairs = iter(rows.items())
        while chunk := list(islice(pairs, _BATCH)):
            done = self._batch_update(chunk)
            refused |= dict(pair for pair in chunk[done:] if not self._update_one(*pair))
        if refused:
            raise TableFull(self.name, self.max_entries, refused)

    def delete(self, keys: Iterable[bytes]) -> None:
        if self.spec.kind in _FIXED:
            return
        remaining = iter(keys)
        while chunk := list(islice(remaining, _BATCH)):
            done = self._batch_delete(chunk)
            for key in chunk[done:]:
                self._delete_one(key)

    def items(self) -> Iterator[tuple[bytes, bytes]]:
        for page in self.pages():
            keys = _cut(page.keys, self.spec.key_size)
            yield from zip(keys, _cut(page.values, self.row_size), strict=True)

    def pages(self) -> Iterator[Page]:
        """Every row, as `items`, without making an object of each."""
        cursor, done = b"", False
        while not done:
            page, cursor, done = self._batch_lookup(cursor)
            yield page

    def put(self, page: Page) -> None:
        """Write a page's rows, new or not; those that a full table refuses are left out."""
        keys, values = syscall.buffer_of(page.keys), syscall.buffer_of(page.values)
        result, done = self._batch(Command.MAP_UPDATE_BATCH, keys, values, page.count)
        if result < 0 and done < page.count:
            rows = zip(
                _cut(page.keys, self.spec.key_size), _cut(page.values, self.row_size), strict=True
            )
            for row in islice(rows, done, None):
                self._update_one(*row)

    def add(self, page: Page) -> list[int]:
        """Write the rows that are absent; the places in the page of those that are not. Between
        two looks at a row nobody can write it."""
        keys, values = syscall.buffer_of(page.keys), syscall.buffer_of(page.values)
        key, value = syscall.address_of(keys), syscall.address_of(values)
        attr, present = syscall.buffer_of(bytes(32)), list[int]()
        for place in range(page.count):
            at = (key + place * self.spec.key_size, value + place * self.row_size)
            struct.pack_into("=I4xQQQ", attr, 0, self.fd, *at, syscall.BPF_NOEXIST)
            result = syscall.bpf(Command.MAP_UPDATE_ELEM, attr)
            if result == -errno.EEXIST:
                present.append(place)
            elif result not in _NO_ROOM:
                self._check(result, "carry a row over to")
        return present

    def __len__(self) -> int:
        return sum(page.count for page in self.pages())

    def _element(
        self,
        command: Command,
        key: ctypes.Array[ctypes.c_char],
        value: ctypes.Array[ctypes.c_char] | None = None,
    ) -> int:
        pointers = (syscall.address_of(key), syscall.address_of(value) if value else 0)
        return syscall.bpf(
            command, syscall.buffer_of(struct.pack("=I4xQQQ", self.fd, *pointers, 0))
        )

    def _update_one(self, key: bytes, value: bytes) -> bool:
        """Whether there was room."""
        result = self._element(Command.MAP_UPDATE_ELEM, self._keys([key]), self._values([value]))
        if result in _NO_ROOM:
            return False
        self._check(result, f"write {key.hex()} to")
        return True

    def _delete_one(self, key: bytes) -> None:
        result = self._element(Command.MAP_DELETE_ELEM, self._keys([key]))
        if result != -errno.ENOENT:
            self._check(result, f"delete {key.hex()} from")

    def _batch_update(self, chunk: Sequence[tuple[bytes, bytes]]) -> int:
        """How many of the first rows are written; the next one was refused by the kernel."""
        keys = self._keys([key for key, _ in chunk])
        values = self._values([value for _, value in chunk])
        return self._batch(Command.MAP_UPDATE_BATCH, keys, values, len(chunk))[1]

    def _batch_delete(self, chunk: Sequence[bytes]) -> int:
        return self._batch(Command.MAP_DELETE_BATCH, self._keys(chunk), None, len(chunk))[1]

    def _keys(self, keys: Sequence[bytes]) -> ctypes.Array[ctypes.c_char]:
        return _joined(self.name, keys, self.spec.key_size)

    def _values(self, values: Sequence[bytes]) -> ctypes.Array[ctypes.c_char]:
        return _joined(self.name, values, self.row_size)

    def _batch(
        self,
        command: Command,
        keys: ctypes.Array[ctypes.c_char],
        values: ctypes.Array[ctypes.c_char] | None,
        count: int,
        cursors: tuple[int, int] = (0, 0),
    ) -> tuple[int, int]:
        """The result and how many rows are done, which the kernel leaves alone when it refuses
        the batch as such."""
        pointers = (*cursors, syscall.address_of(keys), syscall.address_of(values) if values else 0)
        attr = syscall.buffer_of(struct.pack("=4QIIQQ", *pointers, count, self.fd, 0, 0))
        result = syscall.bpf(command, attr)
        done: int = struct.unpack_from("=I", attr, 32)[0]
        return result, 0 if result < 0 and done == count else done

    def _batch_lookup(self, cursor: bytes, count: int = _BATCH) -> tuple[Page, bytes, bool]:
        """Some rows, where to go on, and whether these were the last."""
        key_size = self.spec.key_size
        into = [syscall.buffer_of(bytes(size * count)) for size in (key_size, self.row_size)]
        # Hashes use 4 bytes of the cursor (a bucket), other tables a key.
        before, after = syscall.buffer_of(cursor), syscall.buffer_of(bytes(max(4, key_size)))
        cursors = (syscall.address_of(before) if cursor else 0, syscall.address_of(after))
        result, done = self._batch(Command.MAP_LOOKUP_BATCH, into[0], into[1], count, cursors)
        if result == -errno.ENOSPC:  # one bucket holds more than `count` rows
            return self._batch_lookup(cursor, count * 2)
        if result != -errno.ENOENT:
            self._check(result, "list")
        keys = ctypes.string_at(into[0], key_size * done)
        page = Page(done, keys, ctypes.string_at(into[1], self.row_size * done))
        return page, after.raw, result == -errno.ENOENT

    def _check(self, result: int, tried: str) -> None:
        if result < 0:
            raise BpfError(-result, f"{tried} table {self.name}")


def _joined(table: str, parts: Sequence[bytes], size: int) -> ctypes.Array[ctypes.c_char]:
    """The parts one after another; the kernel would read past the end of shorter ones."""
    data = b"".join(parts)
    if len(data) != size * len(parts):
        raise ValueError(f"table {table}: {len(data)} bytes where {len(parts)} x {size} belong")
    return syscall.buffer_of(data)


def _cut(data: bytes, size: int) -> list[bytes]:
    return [data[at : at + size] for at in range(0, len(data), size)]


def possible_cpus() -> int:
    """How many CPUs the kernel may ever have: as many rows are in a per-CPU value."""
    last = Path("/sys/devices/system/cpu/possible").read_text().strip().rpartition(",")[2]
    return int(last.rpartition("-")[2]) + 1


class FakeTable:
    """A table in memory that answers as the kernel's does."""

    def __init__(self, spec: TableSpec, max_entries: int | None = None) -> None:
        self.spec, self.max_entries = spec, max_entries or spec.entries
        self._rows: dict[bytes, tuple[bytes, bytes]] = {}
        if spec.kind in _FIXED:
            zero = bytes(spec.value_size)
            self._rows = {key: (key, zero) for key in map(_index, range(self.max_entries))}

    @property
    def name(self) -> str:
        return self.spec.name

    def lookup(self, key: bytes) -> bytes | None:
        for candidate in self._matching(self._sized(key, self.spec.key_size)):
            if candidate in self._rows:
                return self._rows[candidate][1]
        return None

    def update(self, rows: Mapping[bytes, bytes]) -> None:
        refused = {key: value for key, value in rows.items() if not self._put(key, value)}
        if refused:
            raise TableFull(self.name, self.max_entries, refused)

    def delete(self, keys: Iterable[bytes]) -> None:
        for key in keys:
            if self.spec.kind not in _FIXED:
                self._rows.pop(self._identity(self._sized(key, self.spec.key_size)), None)

    def items(self) -> Iterator[tuple[bytes, bytes]]:
        return iter(list(self._rows.values()))

    def __len__(self) -> int:
        return len(self._rows)

    def _put(self, key: bytes, value: bytes) -> bool:
        row = self._sized(key, self.spec.key_size), self._sized(value, self.spec.value_size)
        identity = self._identity(key)
        if identity not in self._rows and len(self._rows) >= self.max_entries:
            if self.spec.kind is not TableKind.LRU_HASH:
                return False
            del self._rows[next(iter(self._rows))]
        self._rows[identity] = row
        return True

    def _sized(self, data: bytes, size: int) -> bytes:
        if len(data) != size:
            raise ValueError(f"table {self.name}: {len(data)} bytes where 1 x {size} belong")
        return data

    def _identity(self, key: bytes) -> bytes:
        """What makes rows one: of an LPM key the bits after the prefix do not."""
        if self.spec.kind is not TableKind.LPM_TRIE:
            return key
        return _prefix(key, unpack_u32(key[:4]))

    def _matching(self, key: bytes) -> Iterator[bytes]:
        if self.spec.kind is not TableKind.LPM_TRIE:
            yield key
            return
        for length in range(unpack_u32(key[:4]), -1, -1):
            yield _prefix(key, length)


def _prefix(key: bytes, length: int) -> bytes:
    bits = 8 * (len(key) - 4)
    kept = int.from_bytes(key[4:], "big") >> (bits - length) << (bits - length)
    return struct.pack("=I", length) + kept.to_bytes(bits // 8, "big")


def _index(number: int) -> bytes:
    return struct.pack("=I", number)
