"""Owns the lease file: which attachment holds which address, and which addresses rest.

One file of JSON lines. The first names the boot; each later one is one change, appended and synced
before anyone hears of it, so that the cost of a lease does not grow with their number. Opening the
file writes it anew, by rename, without its history. A reboot frees everything.
Never looks at the kernel's links: `repair` compares the two.
"""

import fcntl
import os
import time
from collections.abc import Sequence
from contextlib import ExitStack
from ipaddress import ip_address
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec

from weft.cni.batch import Batch
from weft.cni.files import replace_file, write_all
from weft.cni.ipam import AddressBook
from weft.cni.spec import Attachment, CniError, Code, Key

_FORMAT = 1
_LOCK_POLL_S = 0.01
# History is dropped when it is this much longer than what it tells.
_HISTORY_LINES_MAX = 10_000


class _Held(msgspec.Struct):
    container_id: str
    ifname: str
    netns: str
    pod_namespace: str
    pod_name: str
    pod_uid: str
    addresses: tuple[str, ...]
    host_ifname: str
    host_ifindex: int
    host_mac: str
    pod_mac: str
    mtu_bytes: int
    network: str
    netns_cookie: int = 0


class _Released(msgspec.Struct):
    container_id: str
    ifname: str
    at_s: float


class _Resting(msgspec.Struct):
    address: str
    at_s: float


class _Line(msgspec.Struct, omit_defaults=True, forbid_unknown_fields=True):
    """Exactly one key per line. Times are seconds of CLOCK_BOOTTIME."""

    boot: str = ""
    format: int = 0
    held: _Held | None = None
    released: _Released | None = None
    resting: _Resting | None = None


def boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def now_s() -> float:
    """Seconds since the boot that `boot_id` names, suspended time included."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class LeaseStore:
    """The leases of this node, in memory and in one file; one process at a time holds it open.

    `with LeaseStore(path) as leases:` locks, reads and rewrites the file; leaving it unlocks.
    """

    def __init__(self, path: Path, lock_timeout_s: float = 10.0) -> None:
        self.path = path
        self.book = AddressBook()
        self._lock_timeout_s = lock_timeout_s
        self._held: dict[Key, Attachment] = {}
        self._lines: dict[Key, bytes] = {}
        self._history_lines = 0
        self._fd = -1
        self._changes = Batch(self._write)
        self._exit = ExitStack()

    def __enter__(self) -> Self:
        """Raises CniError LEASES_UNUSABLE: another process holds the file, or it does not read."""
        with ExitStack() as undo:
            self.path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
            self._lock(undo)
            self._load()
            self._rewrite()
            undo.callback(lambda: os.close(self._fd))
            self._exit = undo.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self._exit.close()

    def check(self) -> None:
        """Reads the file and changes nothing. Raises CniError LEASES_UNUSABLE."""
        self._load()

    def attachments(self) -> tuple[Attachment, ...]:
        return tuple(self._held.values())

    def find(self, key: Key) -> Attachment | None:
        return self._held.get(key)

    async def hold(self, attachment: Attachment) -> None:
        """Returns when the lease is on disk. Raises CniError IO_FAILURE and holds nothing."""
        line = msgspec.json.encode({"held": attachment}, enc_hook=str) + b"\n"
        self._keep(attachment, line)
        try:
            await self._append(line)
        except CniError:
            del self._held[attachment.key], self._lines[attachment.key]
            raise

    async def release(self, key: Key) -> None:
        """The attachment's addresses rest from now on; an unknown key is success.

        Raises CniError IO_FAILURE when the file could not be written; the lease is released in
        memory all the same, and a restart finds its link gone.
        """
        attachment = self._held.pop(key, None)
        self._lines.pop(key, None)
        if attachment is None:
            return
        at_s = now_s()
        self.book.release(key, attachment.addresses, at_s)
        released = _Released(key.container_id, key.ifname, at_s)
        await self._append(msgspec.json.encode(_Line(released=released)) + b"\n")

    def _keep(self, attachment: Attachment, line: bytes) -> None:
        self._held[attachment.key] = attachment
        self._lines[attachment.key] = line
        self.book.restore(attachment.key, attachment.addresses)

    def _lock(self, undo: ExitStack) -> None:
        lock = self.path.with_name(f"{self.path.name}.lock")
        fd = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        undo.callback(os.close, fd)
        deadline_s = time.monotonic() + self._lock_timeout_s
        while True:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                if time.monotonic() > deadline_s:
                    raise CniError(
                        Code.LEASES_UNUSABLE,
                        "another process holds the lease file",
                        f"waited {self._lock_timeout_s:.0f} s for {lock}: does a second weftd run?",
                    ) from error
                time.sleep(_LOCK_POLL_S)
            else:
                return

    def _load(self) -> None:
        try:
            data = self.path.read_bytes()
        except FileNotFoundError:
            return
        # A line without its end was being written when the writer died: nobody heard of it.
        lines = data[: data.rfind(b"\n") + 1].splitlines()
        header = self._decode(0, lines[0]) if lines else _Line()
        if not header.boot or header.format != _FORMAT:
            raise self._unreadable(1, "the first line does not name a boot and format 1")
        if header.boot != boot_id():
            return
        for index, line in enumerate(lines[1:], 1):
            self._replay(self._decode(index, line), line)

    def _decode(self, index: int, line: bytes) -> _Line:
        try:
            return msgspec.json.decode(line, type=_Line)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise self._unreadable(index + 1, str(error)) from error

    def _unreadable(self, number: int, why: str) -> CniError:
        return CniError(
            Code.LEASES_UNUSABLE,
            "the lease file cannot be read",
            f"{self.path}, line {number}: {why}. Pods keep their network, new ones wait. "
            f"Move the file away once no pod runs on this node, or put the right one back",
        )

    def _replay(self, line: _Line, raw: bytes) -> None:
        if line.held is not None:
            fields = msgspec.structs.asdict(line.held)
            fields["addresses"] = tuple(map(ip_address, line.held.addresses))
            self._keep(Attachment(**fields), raw + b"\n")
        elif line.released is not None:
            key = Key(line.released.container_id, line.released.ifname)
            self._lines.pop(key, None)
            if (attachment := self._held.pop(key, None)) is not None:
                self.book.release(key, attachment.addresses, line.released.at_s)
        elif line.resting is not None:
            self.book.rest(ip_address(line.resting.address), line.resting.at_s)

    def _rewrite(self) -> None:
        """The file anew, without history, and the descriptor that appends to it."""
        lines = [msgspec.json.encode(_Line(boot=boot_id(), format=_FORMAT)) + b"\n"]
        for address, at_s in self.book.resting(now_s()).items():
            resting = _Resting(str(address), at_s)
            lines.append(msgspec.json.encode(_Line(resting=resting)) + b"\n")
        replace_file(self.path, b"".join([*lines, *self._lines.values()]))
        previous, self._fd = self._fd, os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
        self._history_lines = 0
        if previous >= 0:
            os.close(previous)

    def _write(self, lines: Sequence[bytes]) -> None:
        """Appends all of `lines` or, where the disk is full, nothing. Runs in a thread.

        Memory is ahead of the file, so writing the file anew covers `lines` too.
        """
        if self._history_lines > _HISTORY_LINES_MAX + len(self._held):
            self._rewrite()
            return
        end = os.fstat(self._fd).st_size
        try:
            write_all(self._fd, b"".join(lines))
            os.fdatasync(self._fd)
        except OSError:
            os.ftruncate(self._fd, end)
            raise
        self._history_lines += len(lines)

    async def _append(self, line: bytes) -> None:
        try:
            await self._changes.put(line)
        except OSError as error:
            raise CniError(
                Code.IO_FAILURE, "cannot write the lease file", f"{self.path}: {error}"
            ) from error
