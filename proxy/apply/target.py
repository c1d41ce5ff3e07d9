"""Owns the seam between desired rows and a part of the kernel: Target, and Target over a BPF table.

A target never decides what is wanted and never remembers what it wrote.
"""

from collections.abc import Collection, Hashable, Iterator, Mapping
from typing import Protocol, cast

from weft.bpf.table import Table, TableFull

Errors = Mapping[Hashable, str]
"""Rows that were not written or deleted, with the kernel's word; all others were."""


class NotMended(Exception):
    """What a repair could not put back, with the reason and what to do; `mended`: what it could."""

    def __init__(self, why: str, mended: int = 0) -> None:
        super().__init__(why)
        self.mended = mended


class Target(Protocol):
    """One table of rows in the kernel."""

    def dump(self) -> Iterator[tuple[Hashable, object]]:
        """Every row of ours that the kernel holds. Raises OSError."""

    def write(self, upserts: Mapping[Hashable, object], deletes: Collection[Hashable]) -> Errors:
        """Write and delete; what is absent counts as deleted. Raises OSError for all at once."""


class TableTarget:
    """A BPF table of packed rows.

    An array has all its rows from birth: there `zero_row` stands for none. Other tables: b"".
    """

    def __init__(self, table: Table, zero_row: bytes) -> None:
        self._table = table
        self._zero_row = zero_row

    def dump(self) -> Iterator[tuple[Hashable, object]]:
        for key, value in self._table.items():
            if value != self._zero_row:
                yield key, value

    def write(self, upserts: Mapping[Hashable, object], deletes: Collection[Hashable]) -> Errors:
        if deletes:
            self._delete(cast(Collection[bytes], deletes))
        if not upserts:
            return {}
        try:
            self._table.update(cast(Mapping[bytes, bytes], upserts))
        except TableFull as full:
            return dict.fromkeys(full.refused, str(full))
        return {}

    def _delete(self, keys: Collection[bytes]) -> None:
        if self._zero_row:
            self._table.update(dict.fromkeys(keys, self._zero_row))
        else:
            self._table.delete(keys)
