"""The laws of the house: what may import what, what is generated, how large things grow.

Reads the checkout only; never runs a program of ours.
"""

import ast
import re
import statistics
import subprocess
import tomllib
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
GENERATED = re.compile(r"(_pb2|_pb2_grpc)\.pyi?$|^bpf/layout\.py$")

PURE = (
    "bpf/layout.py",
    "bpf/wire.py",
    "cni/spec.py",
    "cni/ipam.py",
    "cni/conflist.py",
    "cni/verbs.py",
    "proxy/model",
    "proxy/plan",
)
IMPURE = {
    "asyncio", "bcc", "ctypes", "grpc", "kubernetes", "logging", "mmap", "multiprocessing", "os",
    "pyroute2", "random", "selectors", "signal", "socket", "subprocess", "tempfile", "threading",
    "time", "urllib3",
}  # fmt: skip
PURE_WEFT = ("weft.bpf.layout", "weft.bpf.wire", "weft.proxy.model", "weft.proxy.plan", "weft.cni")

# Room -> the rooms of ours that it may import, besides itself. ARCHITECTURE.md draws it.
MAY_IMPORT = {
    "weft.bpf": (),
    "weft.cni": (),
    "weft.cli": ("weft.proxy.api",),
    "weft.proxy.api": (),
    "weft.proxy.model": (),
    "weft.proxy.plan": ("weft.proxy.model", "weft.bpf.layout"),
    "weft.proxy.watch": ("weft.proxy.model",),
    "weft.proxy.apply": ("weft.proxy.model", "weft.proxy.plan", "weft.bpf"),
    "weft.proxy.observe": (
        "weft.proxy.api", "weft.proxy.apply", "weft.proxy.model", "weft.proxy.plan",
        "weft.proxy.loop", "weft.bpf",
    ),
}  # fmt: skip

FUNCTION_MEDIAN, FUNCTION_P90, FUNCTION_MAX, FILE_MAX = 8, 25, 60, 400


@cache
def tracked() -> tuple[Path, ...]:
    names = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    ).stdout.split()  # fmt: skip
    return tuple(p for n in sorted(set(names)) if (p := ROOT / n).is_file())


def own(suffixes: tuple[str, ...]) -> list[Path]:
    return [
        p
        for p in tracked()
        if p.suffix in suffixes and not GENERATED.search(str(p.relative_to(ROOT)))
    ]


def module_name(path: Path) -> str:
    relative = path.relative_to(ROOT).with_suffix("")
    parts = relative.parts[:-1] if relative.name == "__init__" else relative.parts
    return ".".join(("weft", *parts))


def imports(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def room_of(module: str) -> str | None:
    rooms = [r for r in MAY_IMPORT if module == r or module.startswith(r + ".")]
    return max(rooms, key=len) if rooms else None


def shipped() -> list[Path]:
    return [
        p for p in tracked()
        if p.suffix == ".py" and p.relative_to(ROOT).parts[0] in ("bpf", "cni", "proxy", "cli")
    ]  # fmt: skip


@pytest.mark.parametrize("path", shipped(), ids=lambda p: str(p.relative_to(ROOT)))
def test_a_room_imports_only_the_rooms_it_may(path: Path) -> None:
    room = room_of(module_name(path))
    if room is None:
        return
    allowed = (room, *MAY_IMPORT[room])
    ours = {name for name in imports(path) if name.startswith("weft.")}
    strangers = {
        name for name in ours if not any(inside(name, a) or inside(a, name) for a in allowed)
    }
    assert not strangers, f"{path.relative_to(ROOT)} imports {sorted(strangers)}"


def inside(name: str, room: str) -> bool:
    return name == room or name.startswith(room + ".")


@pytest.mark.parametrize("pure", PURE)
def test_pure_code_touches_nothing_outside(pure: str) -> None:
    base = ROOT / pure
    files = [base] if base.suffix else [p for p in shipped() if base in p.parents]
    assert files, f"{pure} is empty"
    for path in files:
        names = imports(path)
        assert not {n.split(".")[0] for n in names} & IMPURE, path
        assert all(n == "weft" or n.startswith(PURE_WEFT) for n in names if n.startswith("weft")), (
            path
        )


def test_only_the_builder_imports_bcc() -> None:
    importers = [p for p in own((".py",)) if any(n.split(".")[0] == "bcc" for n in imports(p))]
    assert {str(p.relative_to(ROOT)) for p in importers} <= {"bpf/build.py", "bpf/compile.py"}


def test_the_list_of_packages_is_complete() -> None:
    listed = set(
        tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    )
    assert listed == {module_name(p) for p in shipped() if p.name == "__init__.py"}


def functions() -> list[tuple[int, str]]:
    return [
        *(item for p in own((".py",)) for item in python_functions(p)),
        *(item for p in own((".c", ".h")) for item in c_functions(p)),
    ]


def python_functions(path: Path) -> list[tuple[int, str]]:
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and node.end_lineno:
            doc = node.body[0] if ast.get_docstring(node) else None
            spare = (doc.end_lineno or 0) - doc.lineno + 1 if doc else 0
            found.append((node.end_lineno - node.lineno + 1 - spare, f"{path}:{node.lineno}"))
    return found


def c_functions(path: Path) -> list[tuple[int, str]]:
    found: list[tuple[int, str]] = []
    start = 0
    for number, line in enumerate(path.read_text().splitlines(), 1):
        if line == "{" or re.match(r"^[a-zA-Z_].*\)\s*\{$", line):
            start = number
        elif line == "}" and start:
            found.append((number - start + 1, f"{path}:{start}"))
            start = 0
    return found


def test_functions_are_short() -> None:
    sizes = sorted(n for n, _ in functions())
    assert not [f for f in functions() if f[0] > FUNCTION_MAX]
    assert statistics.median(sizes) <= FUNCTION_MEDIAN
    assert sizes[int(len(sizes) * 0.9)] <= FUNCTION_P90


def test_files_are_short() -> None:
    sizes = {
        str(p.relative_to(ROOT)): len(p.read_text().splitlines()) for p in own((".py", ".c", ".h"))
    }
    assert not {name: n for name, n in sizes.items() if n > FILE_MAX}


def test_every_module_says_what_it_owns() -> None:
    silent = [
        str(p.relative_to(ROOT)) for p in shipped()
        if p.read_text().strip() and not GENERATED.search(str(p.relative_to(ROOT)))
        and not ast.get_docstring(ast.parse(p.read_text()))
    ]  # fmt: skip
    assert not silent


def test_every_c_file_names_its_licence() -> None:
    for path in own((".c", ".h")):
        kernel_side = path.relative_to(ROOT).parts[0] == "bpf"
        licence = "GPL-2.0-only OR BSD-2-Clause" if kernel_side else "Apache-2.0"
        assert f"SPDX-License-Identifier: {licence}" in path.read_text().splitlines()[0], path


def test_the_readme_names_only_commands_that_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", make_text(), re.MULTILINE))
    named = set(re.findall(r"`?make ([a-z][a-z-]+)", (ROOT / "README.md").read_text()))
    assert named <= targets, named - targets


def make_text() -> str:
    return "\n".join(p.read_text() for p in tracked() if p.name == "Makefile" or p.suffix == ".mk")


def test_the_table_of_paths_is_the_one_that_is_tested() -> None:
    from tests.netns.paths import markdown

    assert markdown() in (ROOT / "ARCHITECTURE.md").read_text()


def test_the_table_of_upstream_specs_that_are_not_run_is_the_one_in_force() -> None:
    from tests.cluster.specs import markdown

    assert markdown() in (ROOT / "tests" / "README.md").read_text()
