"""Owns the folder in which the shim leaves the DELs that found no daemon.

One file per attachment, named `<containerID>@<ifname>`, holding the request as it was; the shim
writes it beside, syncs and renames it. Names with a dot in front are still being written.
"""

import logging
from pathlib import Path

from weft.cni.files import sync_folder
from weft.cni.frame import REQUEST_HEADER, BadFrame, Call, decode_call
from weft.cni.spec import Key

log = logging.getLogger(__name__)


class DeletionQueue:
    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def open(self) -> None:
        """The shim never makes the folder's parents on its own: a node without Weft stays clean."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def waiting(self) -> list[Key]:
        """Whose deletion is queued now."""
        names = sorted(path.name.partition("@") for path in self._folder.glob("[!.]*@*"))
        return [Key(container_id, ifname) for container_id, _, ifname in names]

    def find(self, key: Key) -> Call | None:
        """The queued deletion of `key`; a file that is none is said and removed."""
        return self._read(self._path(key))

    def remove(self, key: Key) -> None:
        """Called once the deletion is done for good; absent is success."""
        self._path(key).unlink(missing_ok=True)
        sync_folder(self._folder)

    def _path(self, key: Key) -> Path:
        return self._folder / f"{key.container_id}@{key.ifname}"

    def _read(self, path: Path) -> Call | None:
        try:
            data = path.read_bytes()
            if len(data) < REQUEST_HEADER.size:
                raise BadFrame(f"{len(data)} bytes")
            return decode_call(data[: REQUEST_HEADER.size], data[REQUEST_HEADER.size :])
        except FileNotFoundError:
            return None
        except OSError as error:
            log.error("cannot read the queued deletion %s, leaving it: %s", path, error)
        except BadFrame as error:
            log.error("the queued deletion %s is none, removing it: %s", path, error)
            path.unlink(missing_ok=True)
        return None
