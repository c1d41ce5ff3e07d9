"""Compiling: in a child, once for each change, with errors that name file and line."""

import os
import shutil
import sys
from pathlib import Path

import pytest

from tests.unit.bpf.tiny import TINY
from weft.bpf import build, headers
from weft.bpf.layout import Settings
from weft.bpf.objects import (
    MapDeclaration,
    MapReference,
    Object,
    ObjectError,
    Program,
    layout_hash,
    read_object,
    read_objects,
    write_object,
)
from weft.bpf.syscall import AttachType, MapType, ProgramType

INCLUDE = build.FOLDER / "include"
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="compiling makes maps: needs root")


def source(folder: Path, text: str = TINY) -> Path:
    path = folder / "tiny.bpf.c"
    path.write_text(text)
    return path


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@needs_root
def test_an_object_names_its_programs_and_the_maps_that_they_use(
    tmp_path: Path, cache: Path
) -> None:
    (one,) = read_objects(build.build([source(tmp_path)], INCLUDE, cache))
    programs = {program.name: program for program in one.programs}
    assert set(programs) == {"connect4", "from_pod", "to_pod", "from_uplink", "to_uplink"}
    assert {at.table for at in programs["connect4"].references} == {"settings", "counters"}
    assert programs["connect4"].attach is AttachType.CGROUP_INET4_CONNECT
    assert programs["from_pod"].kind is ProgramType.SCHED_CLS
    assert MapDeclaration("settings", MapType.ARRAY, 4, Settings.SIZE, 1, 0) in one.maps
    assert "bcc" not in sys.modules


@needs_root
def test_nothing_is_compiled_twice(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = build.build([source(tmp_path)], INCLUDE, cache)
    monkeypatch.delattr(build, "_compile_in_child")
    assert build.build([source(tmp_path)], INCLUDE, cache) == folder


@needs_root
def test_an_error_names_the_file_and_line(tmp_path: Path, cache: Path) -> None:
    broken = TINY.replace("return -1;", "return nothing;", 1)
    line = broken[: broken.index("nothing;")].count("\n") + 1
    words = rf"(?s)compile tiny.*tiny\.bpf\.c:{line}:9: error"
    with pytest.raises(build.CompileError, match=words):
        build.build([source(tmp_path, broken)], INCLUDE, cache)


@needs_root
def test_a_function_that_is_called_and_not_inlined_is_refused(tmp_path: Path, cache: Path) -> None:
    section = '__attribute__((section(".bpf.fn.from_pod"))) static noinline int count'
    called = TINY.replace("static int count", section)
    with pytest.raises(build.CompileError, match="calls a function that is not inlined"):
        build.build([source(tmp_path, called)], INCLUDE, cache)


@needs_root
def test_a_struct_that_python_sees_otherwise_does_not_compile(tmp_path: Path, cache: Path) -> None:
    include = tmp_path / "include"
    shutil.copytree(INCLUDE, include)
    text = (INCLUDE / "layout.h").read_text()
    moved = text.replace(
        "	__u32 overlay_ifindex;", "	__u32 added;\n	__u32 overlay_ifindex;"
    )
    (include / "layout.h").write_text(moved)
    with pytest.raises(build.CompileError, match=r"struct settings\.overlay_ifindex"):
        build.build([source(tmp_path)], include, cache)


def test_an_object_survives_its_file(tmp_path: Path) -> None:
    program = Program("connect6", bytes(range(16)), (MapReference(1, "slots"),))
    declared = MapDeclaration("slots", 1, 16, 32, 64, 1)
    one = Object("socket", layout_hash(), (program,), (declared,))
    (tmp_path / "socket.json").write_text(write_object(one))
    assert read_object(tmp_path / "socket.json") == one


def test_an_object_of_another_layout_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "socket.json"
    path.write_text(write_object(Object("socket", "0123456789abcdef", (), ())))
    with pytest.raises(ObjectError, match="was built for layout 0123456789abcdef"):
        read_object(path)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"name": 1, "layout": "", "programs": [{}]}'])
def test_a_broken_object_is_refused_with_its_path(tmp_path: Path, text: str) -> None:
    (tmp_path / "bad.json").write_text(text)
    with pytest.raises(ObjectError, match=r"read object .*bad\.json"):
        read_objects(tmp_path)


def test_a_folder_without_objects_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ObjectError, match="no compiled objects"):
        read_objects(tmp_path)


def test_missing_headers_say_what_to_install(tmp_path: Path) -> None:
    with pytest.raises(headers.HeadersMissing, match="apt install linux-headers-amd64"):
        headers.header_parts(tmp_path)


def test_the_two_halves_of_debians_headers_become_one_tree(tmp_path: Path) -> None:
    for half, below in (("build", "generated"), ("source", "linux")):
        for where in ("include", "arch/x86/include"):
            (tmp_path / "6.1.0" / half / where / below).mkdir(parents=True)
    tree = headers.merged(headers.header_parts(tmp_path), tmp_path / "cache")
    assert sorted(path.name for path in (tree / "include").iterdir()) == ["generated", "linux"]
    assert headers.merged(headers.header_parts(tmp_path), tmp_path / "cache") == tree
