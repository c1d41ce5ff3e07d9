"""Owns one inotify watch on a folder, by libc: Python has none. Never reads a file."""

import ctypes
import os
import select
from pathlib import Path

_CLOSE_WRITE, _MOVED_FROM, _MOVED_TO, _DELETE = 0x8, 0x40, 0x80, 0x200
_DELETE_SELF, _MOVE_SELF = 0x400, 0x800
# Files that are whole: closed after writing, or renamed into place.
_WHOLE = _CLOSE_WRITE | _MOVED_FROM | _MOVED_TO | _DELETE | _DELETE_SELF | _MOVE_SELF
_LIBC = ctypes.CDLL(None, use_errno=True)


class FolderWatch:
    """Tells that something in `folder` may have changed. Raises OSError when it cannot be watched.

    `wait` may be ended from another thread by `close`.
    """

    def __init__(self, folder: Path) -> None:
        self._fd = _LIBC.inotify_init1(os.O_CLOEXEC | os.O_NONBLOCK)
        if self._fd < 0:
            raise OSError(ctypes.get_errno(), "inotify_init1")
        if _LIBC.inotify_add_watch(self._fd, os.fsencode(folder), _WHOLE) < 0:
            code = ctypes.get_errno()
            os.close(self._fd)
            raise OSError(code, os.strerror(code), str(folder))
        self._ended, self._end = os.pipe()

    def wait(self) -> bool:
        """Block until something happened; False once closed. What had piled up counts once."""
        ready, _, _ = select.select([self._fd, self._ended], [], [])
        if self._ended in ready:
            os.close(self._fd)
            os.close(self._ended)
            return False
        os.read(self._fd, 65536)
        return True

    def close(self) -> None:
        os.close(self._end)
