"""C to cached objects: `python -m weft.bpf.build [--out DIR]`.

Owns the compiler: BCC is imported here only, and only in a child process that ends with its one
object (LLVM stays mapped for ever, 75 to 136 MB). Compiling makes real maps, so it needs root.
"""

import argparse
import ctypes
import fcntl
import hashlib
import os
import shutil
import struct
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from weft.bpf import headers
from weft.bpf.headers import HeadersMissing
from weft.bpf.objects import (
    INSTRUCTION_BYTES,
    MapDeclaration,
    MapReference,
    Object,
    ObjectError,
    Program,
    layout_hash,
    read_object,
    write_object,
)
from weft.bpf.source import SourceError, pasted

FOLDER = Path(__file__).resolve().parent
IMAGE_FOLDER = Path("/usr/lib/weft/objects")
# BCC belongs to the distribution's Python, and works in any other.
_DIST_PACKAGES = Path("/usr/lib/python3/dist-packages")
_FLAGS = (
    "-O2",
    "-Wall",
    # BCC turns a call of nothing into a load that fails with no name in it.
    "-Werror=implicit-function-declaration",
    "-Wno-unused-function",
    "-Wno-macro-redefined",
)
_INSTALL = "on Debian: apt install python3-bpfcc linux-headers-amd64"
_LOAD_IMM64, _PSEUDO_MAP_FD = 0x18, 1
_CALL, _PSEUDO_CALL = 0x85, 1


class CompileError(Exception):
    """The compiler refused a source: its words, or what is missing to run it."""


def cache_folder() -> Path:
    """Where this user's compiled things are kept: $WEFT_CACHE, or ~/.cache/weft."""
    return Path(os.environ.get("WEFT_CACHE") or Path.home() / ".cache" / "weft")


def objects_folder() -> Path:
    """The image's objects where they are installed, else the checkout's, compiled on first use."""
    if IMAGE_FOLDER.is_dir():
        return IMAGE_FOLDER
    return build(sorted(FOLDER.glob("*.bpf.c")), FOLDER / "include", cache_folder())


def build(sources: Iterable[Path], include: Path, cache: Path) -> Path:
    """A folder below `cache` with one object for each source, named by all that decides them."""
    texts = {source.name.removesuffix(".bpf.c"): pasted(source, include) for source in sources}
    compiler = _compiler()
    keys = {name: _hash(text, *_FLAGS, compiler) for name, text in texts.items()}
    folder = cache / "objects" / _hash(layout_hash(), *sorted(keys.values()))
    if folder.is_dir():  # whole: it was renamed to that
        return folder
    with _locked(cache / "objects"):
        if not folder.is_dir():
            units = {name: _unit(cache, keys[name], name, text) for name, text in texts.items()}
            _publish(units, folder)
    return folder


def _unit(cache: Path, key: str, name: str, text: str) -> Object:
    """One source's object, from the cache where it did not change since."""
    place = cache / "objects" / "units" / f"{key}.json"
    try:
        return read_object(place)
    except ObjectError:
        one = _compile_in_child(
            name, text, headers.merged(headers.header_parts(), cache / "headers")
        )
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(write_object(one))
        return one


def _publish(units: dict[str, Object], folder: Path) -> None:
    aside = Path(tempfile.mkdtemp(dir=folder.parent))
    for name, one in units.items():
        (aside / f"{name}.json").write_text(write_object(one))
    aside.chmod(0o755)
    os.rename(aside, folder)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """One build at a time for each cache: several tests start at once."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _hash(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def _compiler() -> str:
    """What tells one compiler from another without loading it: the library's file and headers."""
    libraries = sorted(Path("/usr/lib").glob("*/libbcc.so.0"))
    if not libraries or not (_DIST_PACKAGES / "bcc").is_dir():
        raise CompileError(f"BCC is not installed; {_INSTALL}")
    status = libraries[0].stat()
    parts = (str(part) for part in headers.header_parts())
    return (
        f"{libraries[0].resolve().name} {status.st_size} {int(status.st_mtime)} {' '.join(parts)}"
    )


def _compile_in_child(name: str, text: str, tree: Path) -> Object:
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "object.json"
        result = subprocess.run(
            [sys.executable, "-m", "weft.bpf.build", "--compile", name, "--out", str(out)],
            input=text,
            env=os.environ | {"BCC_KERNEL_SOURCE": str(tree)},
            stderr=subprocess.PIPE,
            text=True,
        )
        if result.returncode != 0:
            words = result.stderr.strip() or f"the compiler died with {result.returncode}"
            raise CompileError(f"compile {name}.bpf.c:\n{words}")
        sys.stderr.write(result.stderr)
        return read_object(out)


def _compile(name: str, text: str) -> Object:
    """In the child: the object of one text."""
    sys.path.append(str(_DIST_PACKAGES))
    import bcc

    try:
        module = bcc.BPF(text=text, cflags=list(_FLAGS))
    except Exception as error:  # BCC knows nothing more precise; clang's words are on stderr
        raise CompileError(str(error)) from error
    tables, descriptors = {}, {}
    for declaration, descriptor in _declarations(bcc.lib, module.module):
        tables[declaration.name] = declaration
        descriptors[descriptor] = declaration.name
    names = [
        bcc.lib.bpf_function_name(module.module, index).decode()
        for index in range(bcc.lib.bpf_num_functions(module.module))
    ]
    programs = tuple(_program(one, module.dump_func(one.encode()), descriptors) for one in names)
    return Object(name, layout_hash(), programs, tuple(tables.values()))


def _declarations(library: Any, module: int) -> Iterator[tuple[MapDeclaration, int]]:
    """Every map of a compiled module with the descriptor that stands for it in the code."""
    numbers = ("type", "key_size", "leaf_size", "max_entries", "flags", "fd")
    for what in (*numbers, "name"):
        ask = getattr(library, f"bpf_table_{what}" + ("" if what == "name" else "_id"))
        ask.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
        ask.restype = ctypes.c_char_p if what == "name" else ctypes.c_int
    library.bpf_num_tables.argtypes = [ctypes.c_void_p]
    for index in range(library.bpf_num_tables(module)):
        values = [getattr(library, f"bpf_table_{what}_id")(module, index) for what in numbers]
        yield MapDeclaration(library.bpf_table_name(module, index).decode(), *values[:5]), values[5]


def _program(name: str, insns: bytes, descriptors: dict[int, str]) -> Program:
    references = []
    for index, at in enumerate(range(0, len(insns), INSTRUCTION_BYTES)):
        code, registers, immediate = struct.unpack_from("=BB2xi", insns, at)
        if code == _LOAD_IMM64 and registers >> 4 == _PSEUDO_MAP_FD:
            references.append(MapReference(index, descriptors[immediate]))
        if code == _CALL and registers >> 4 == _PSEUDO_CALL:
            # BCC hands out the program without what it calls.
            raise CompileError(f"{name}: instruction {index} calls a function that is not inlined")
    return Program(name, insns, tuple(references))


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m weft.bpf.build", description=__doc__)
    parser.add_argument("--out", type=Path, help="copy the objects here")
    parser.add_argument("--compile", metavar="NAME", help=argparse.SUPPRESS)
    options = parser.parse_args()
    try:
        if options.compile:
            options.out.write_text(write_object(_compile(options.compile, sys.stdin.read())))
        else:
            print(_build_here(options.out))
    except (CompileError, SourceError, HeadersMissing) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def _build_here(out: Path | None) -> Path:
    folder = build(sorted(FOLDER.glob("*.bpf.c")), FOLDER / "include", cache_folder())
    return Path(shutil.copytree(folder, out, dirs_exist_ok=True)) if out else folder


if __name__ == "__main__":
    sys.exit(main())
