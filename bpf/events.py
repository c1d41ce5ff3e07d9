"""Reading the events that programs report through the ring buffer.

Owns the ring's memory as the kernel shares it (Documentation/bpf/ringbuf.rst): a page with our
position, a page with the producer's, then the data, mapped twice so that no record is ever cut.
Never knows what an event means.
"""

import mmap
import struct
from collections.abc import Iterator
from types import TracebackType
from typing import Self

from weft.bpf.layout import Event
from weft.bpf.table import KernelTable

_POSITION = struct.Struct("=Q")
_HEADER = struct.Struct("=II")
# include/uapi/linux/bpf.h: in a record's length, still being written, and given up.
_BUSY, _DISCARDED = 1 << 31, 1 << 30


class EventRing:
    """The events map, open for reading: one reader at a time. Owns its mappings."""

    def __init__(self, table: KernelTable) -> None:
        self._table, self._size = table, table.max_entries
        page = mmap.PAGESIZE
        self._consumer = mmap.mmap(table.fd, page)
        self._shared = mmap.mmap(table.fd, page + 2 * self._size, prot=mmap.PROT_READ, offset=page)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        self._shared.close()
        self._consumer.close()

    def fileno(self) -> int:
        """Turns readable when there are events."""
        return self._table.fd

    def read(self) -> Iterator[Event]:
        """The events since the last call; each is the reader's once it was yielded."""
        at: int = _POSITION.unpack_from(self._consumer)[0]
        while at < _POSITION.unpack_from(self._shared)[0]:
            start = mmap.PAGESIZE + at % self._size
            length, _ = _HEADER.unpack_from(self._shared, start)
            if length & _BUSY:
                return
            size = length & ~(_BUSY | _DISCARDED)
            data = self._shared[start + _HEADER.size : start + _HEADER.size + size]
            at += -(-(size + _HEADER.size) // 8) * 8
            _POSITION.pack_into(self._consumer, 0, at)
            if not length & _DISCARDED and size >= Event.SIZE:
                yield Event.unpack(data[: Event.SIZE])
