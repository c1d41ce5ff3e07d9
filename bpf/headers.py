"""The kernel headers that BCC compiles against: found, and put into one tree of symlinks.

Nothing has to match the running kernel: only user-space structs are used. Debian splits a tree in
two packages (…-common, …-amd64) that share no folder at the places BCC reads.
"""

import os
import platform
import tempfile
from pathlib import Path

MODULES = Path("/lib/modules")
_ARCHES = {"x86_64": "x86", "aarch64": "arm64"}


class HeadersMissing(Exception):
    """No kernel headers on this machine."""

    def __init__(self, modules: Path) -> None:
        super().__init__(
            f"no kernel headers below {modules}/*/build; on Debian: apt install linux-headers-amd64"
        )


def header_parts(modules: Path = MODULES) -> tuple[Path, ...]:
    """The trees that make up the newest headers: one, or the architecture's and the common one."""
    builds = sorted(modules.glob("*/build"), key=lambda path: path.stat().st_mtime)
    builds = [path for path in builds if (path / "include").is_dir()]
    if not builds:
        raise HeadersMissing(modules)
    parts = (builds[-1], builds[-1].with_name("source"))
    return tuple(part.resolve() for part in parts if (part / "include").is_dir())


def merged(parts: tuple[Path, ...], folder: Path) -> Path:
    """A tree below `folder` with the parts' `include` and `arch/*/include` side by side."""
    tree = folder / "+".join(part.name for part in parts)
    if tree.is_dir():
        return tree
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as aside:
        made = Path(aside) / "tree"
        for where in ("include", f"arch/{_ARCHES[platform.machine()]}/include"):
            (made / where).mkdir(parents=True)
            _link_children(parts, where, made / where)
        _rename_unless_there(made, tree)
    return tree


def _link_children(parts: tuple[Path, ...], where: str, into: Path) -> None:
    for part in parts:
        for child in (part / where).iterdir():
            if not (into / child.name).is_symlink():
                (into / child.name).symlink_to(child)


def _rename_unless_there(made: Path, place: Path) -> None:
    try:
        os.rename(made, place)
    except OSError:
        # Another build was faster; its tree is the same.
        if not place.is_dir():
            raise
