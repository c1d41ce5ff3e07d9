"""Pasting headers into one text keeps names, lines and the proof of the layout."""

from pathlib import Path

import pytest

from weft.bpf.layout import LAYOUTS
from weft.bpf.source import SourceError, pasted, static_asserts


def write(folder: Path, **files: str) -> Path:
    for name, text in files.items():
        (folder / name.replace("_h", ".h").replace("_c", ".bpf.c")).write_text(text)
    return folder / "main.bpf.c"


def test_a_header_is_pasted_where_it_is_included(tmp_path: Path) -> None:
    main = write(tmp_path, main_c='int a;\n#include "one.h"\nint c;\n', one_h="int b;\n")
    assert pasted(main, tmp_path).splitlines() == [
        '#line 1 "main.bpf.c"',
        "int a;",
        '#line 1 "one.h"',
        "int b;",
        "",
        '#line 3 "main.bpf.c"',
        "int c;",
    ]


def test_a_header_is_pasted_once_however_often_it_is_included(tmp_path: Path) -> None:
    both = '#include "one.h"\n#include "two.h"\n'
    main = write(tmp_path, main_c=both, one_h="int b;\n", two_h='#include "one.h"\nint c;\n')
    assert pasted(main, tmp_path).count("int b;") == 1


def test_the_systems_headers_are_left_to_the_compiler(tmp_path: Path) -> None:
    main = write(tmp_path, main_c="#include <linux/bpf.h>\n")
    assert "#include <linux/bpf.h>" in pasted(main, tmp_path)


def test_a_missing_header_is_named_with_the_file_that_wants_it(tmp_path: Path) -> None:
    main = write(tmp_path, main_c='#include "gone.h"\n')
    with pytest.raises(SourceError, match=r'main\.bpf\.c includes "gone\.h"'):
        pasted(main, tmp_path)


def test_the_layout_brings_its_proof_along(tmp_path: Path) -> None:
    main = write(tmp_path, main_c='#include "layout.h"\n', layout_h="int a;\n")
    assert pasted(main, tmp_path).endswith(static_asserts())


def test_every_struct_and_field_is_proven() -> None:
    proofs = static_asserts().count("_Static_assert")
    assert proofs == sum(len(words) for words in LAYOUTS.values())
    assert "__builtin_offsetof(struct slot_key, index) == 8" in static_asserts()
