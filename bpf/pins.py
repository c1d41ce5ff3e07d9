"""Names in the BPF file system: which maps are ours, by the hash of what they hold.

Owns the folder of pins: that it is on a bpffs, that one daemon has it, what a map's pin is called.
Never opens a map.
"""

import ctypes
import fcntl
import hashlib
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from weft.bpf.wire import TableSpec

MAPS, HOOKS = "maps", "hooks"
# Of each map in maps/, under the same name, a map that holds the BTF of its rows.
TYPES = "types"
# A BPF file system refuses names with a dot: EPERM, "reserved for future use".
_BPF_FS_MAGIC = 0xCAFE4A11
_MAP_PIN = re.compile(r"([a-z_0-9]+)-([0-9a-f]{16})")
_SCALARS = ("", "u32", "u64")


class ForeignPin(Exception):
    """Something is pinned in our folder that is not ours, or not what its name says."""

    def __init__(self, path: Path, found: str, expected: str) -> None:
        super().__init__(
            f"{path} is {found}, where {expected} belongs; another program or version of Weft made "
            f"it: stop that one, or remove the pin (rm {path}) if nothing uses it"
        )
        self.path = path


class PinsUnusable(Exception):
    """The folder cannot hold pins, or another daemon has it."""


@contextmanager
def held(pins: Path) -> Iterator[None]:
    """Make the folder and hold it against a second daemon. Raises PinsUnusable, ForeignPin."""
    _check_file_system(pins)
    make_folders(pins)
    for entry in pins.iterdir():
        if entry.name not in (MAPS, HOOKS, TYPES):
            raise ForeignPin(entry, "unknown", f"only {MAPS}/, {HOOKS}/ and {TYPES}/")
    descriptor = os.open(pins, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        _lock(descriptor, pins)
        yield
    finally:
        os.close(descriptor)


def make_folders(pins: Path) -> None:
    """The folder of pins and those below it, where they are not there."""
    for folder in (pins, pins / MAPS, pins / HOOKS, pins / TYPES):
        folder.mkdir(mode=0o700, exist_ok=True)


def map_pin(pins: Path, spec: TableSpec, entries: int, layouts: dict[str, tuple[str, ...]]) -> Path:
    """Where a map is pinned: its name says all that one made anew would have."""
    shape = [spec.kind, spec.key_size, spec.value_size, spec.no_prealloc]
    shape += [name if name in _SCALARS else layouts[name] for name in (spec.key, spec.value)]
    digest = hashlib.sha256(repr([*shape, entries]).encode()).hexdigest()[:16]
    return pins / MAPS / f"{spec.name}-{digest}"


def type_pin(map_pin: Path) -> Path:
    """Where the BTF of a map's rows is pinned."""
    return map_pin.parent.parent / TYPES / map_pin.name


def old_maps(pins: Path, current: dict[str, Path]) -> dict[Path, str]:
    """Maps pinned for other shapes than the current ones, and their tables' names, which may be
    those of tables that only another version has.

    Types whose map is gone go too. Raises ForeignPin for what no version of ours made."""
    found = {}
    for path in (pins / MAPS).iterdir():
        name = _table_name(path, current)
        if path != current.get(name):
            found[path] = name
    for path in (pins / TYPES).iterdir():
        if not (pins / MAPS / path.name).exists():
            path.unlink()
    return found


def unpin(map_pin: Path) -> None:
    """Let go of a map. Its types go last: without a map they are of no use, but not in the way."""
    map_pin.unlink(missing_ok=True)
    type_pin(map_pin).unlink(missing_ok=True)


def _table_name(path: Path, current: dict[str, Path]) -> str:
    match = _MAP_PIN.fullmatch(path.name)
    # Types are pinned before their map: who has none is nobody's of ours.
    if match is None or not (match[1] in current or type_pin(path).exists()):
        raise ForeignPin(path, "unknown", f"a map out of {', '.join(sorted(current))}")
    return match[1]


def _check_file_system(pins: Path) -> None:
    place = next(path for path in (pins, *pins.parents) if path.exists())
    # struct statfs starts with its type, one long, on every 64-bit machine.
    answer = (ctypes.c_long * 64)()
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.statfs(os.fsencode(place), answer) != 0:
        raise PinsUnusable(f"look at {place}: {os.strerror(ctypes.get_errno())}")
    if answer[0] != _BPF_FS_MAGIC:
        raise PinsUnusable(
            f"{pins} is not on a BPF file system, so hooks would end with this process; mount the "
            f"host's one: mount -t bpf bpf /sys/fs/bpf (in a container with mountPropagation)"
        )
    if not pins.parent.exists():
        raise PinsUnusable(f"{pins.parent}, which should hold {pins.name}/, is not there")


def _lock(descriptor: int, pins: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise PinsUnusable(f"another daemon has {pins}; only one may run on a node") from error
