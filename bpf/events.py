"""The datapath's events, read from the ring buffer that the kernel shares with us.

Owns the reader's position. The position lives in the map, so events written while no daemon ran are
read by the next one. There may be one reader only.
"""

import mmap
import struct
from collections.abc import Iterator
from types import TracebackType
from typing import Self

from weft.bpf.layout import Event
from weft.bpf.table import KernelTable

# Documentation/bpf/ringbuf.rst: a record's header is its length with two flags, then 4 bytes.
_BUSY, _DISCARD = 1 << 31, 1 << 30
_HEADER_BYTES = 8
_READ_AT_ONCE = 4096
# Byte of struct event that says the reason; a record is unpacked only where that is wanted.
_REASON_AT = 90


class EventReader:
    """The ring buffer of an open table `events`, which must stay open as long."""

    def __init__(self, table: KernelTable) -> None:
        self._fd, self._size = table.fd, table.max_entries
        page = mmap.PAGESIZE
        self._ours = mmap.mmap(self._fd, page, prot=mmap.PROT_READ | mmap.PROT_WRITE)
        # The data is mapped twice in a row: no record has to be put together.
        self._theirs = mmap.mmap(self._fd, page + 2 * self._size, prot=mmap.PROT_READ, offset=page)
        # Whole-word access: the kernel reads and writes positions meanwhile.
        self._consumer = memoryview(self._ours).cast("Q")
        self._producer = memoryview(self._theirs)[:page].cast("Q")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._consumer.release()
        self._producer.release()
        self._ours.close()
        self._theirs.close()

    def fileno(self) -> int:
        """A descriptor that is readable, by epoll, while there are events."""
        return self._fd

    def read(self, only: int | None = None) -> list[Event]:
        """The events since the last call, oldest first, but no more than a few thousand.

        only: the reason of those that are wanted; the others are skipped at a tenth of the cost.
        """
        if only is None:
            return [Event.unpack(data) for data in self._records()]
        return [Event.unpack(data) for data in self._records() if data[_REASON_AT] == only]

    def _records(self) -> Iterator[bytes]:
        at, end = self._consumer[0], self._producer[0]
        for _ in range(_READ_AT_ONCE):
            if at >= end:
                break
            start = mmap.PAGESIZE + (at & self._size - 1)
            (header,) = struct.unpack_from("=I", self._theirs, start)
            if header & _BUSY:
                break
            length = header & ~_DISCARD
            if not header & _DISCARD:
                yield self._theirs[start + _HEADER_BYTES : start + _HEADER_BYTES + length]
            at += length + _HEADER_BYTES + 7 & ~7
        self._consumer[0] = at
