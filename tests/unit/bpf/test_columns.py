"""Rows by field name: what stands where in an old struct finds its place in a new one."""

import struct

from hypothesis import given
from hypothesis import strategies as st

from weft.bpf.columns import Recipe, recipe, without
from weft.bpf.layout import LAYOUTS, TABLES
from weft.bpf.rowtype import Layouts, RowType, decode, encode
from weft.bpf.wire import TableKind, TableSpec

END = ("6", "addr:__u8[4]@0", "port:__be16@4")
OLD = {"End": END, "Line": ("16", "a:__u32@0", "end:struct-end@4", "c:__u16@10", "pad:__u8[4]@12")}
NEW = {
    "End": ("8", "port:__be32@0", "addr:__u8[4]@4"),
    "Line": ("24", "c:__u64@0", "added:__u32@8", "end:struct-end@12", "a:__u16@20", "pad:__u16@22"),
}


def rows_of(layouts: Layouts) -> RowType:
    size = int(layouts["Line"][0])
    spec = TableSpec("lines", TableKind.HASH, "u32", "Line", 4, size, 1, False, True)
    return decode(encode(spec, layouts).data)


def between(old: Layouts, new: Layouts, *, is_key: bool = False) -> Recipe | None:
    was, now = rows_of(old), rows_of(new)
    return recipe(was.value, now.value, was.value_size, now.value_size, is_key=is_key)


def test_btf_of_every_table_says_what_the_layout_says() -> None:
    for spec in TABLES.values():
        if spec.key:
            found = decode(encode(spec, LAYOUTS).data)
            assert (found.key_size, found.value_size) == (spec.key_size, spec.value_size)
    flows = decode(encode(TABLES["flows"], LAYOUTS).data)
    assert [leaf.path for leaf in flows.key][:3] == ["src.word", "dst.word", "sport"]
    assert {leaf.path: leaf.offset for leaf in flows.value}["vip.word"] == 16


@given(
    a=st.integers(0, 2**16 - 1), c=st.integers(0, 2**16 - 1), port=st.integers(0, 2**16 - 1),
    addr=st.binary(min_size=4, max_size=4),
)  # fmt: skip
def test_a_field_keeps_its_value_wherever_and_however_wide_it_is_now(
    a: int, c: int, port: int, addr: bytes
) -> None:
    change = between(OLD, NEW)
    assert change is not None
    old = struct.pack("=I4s", a, addr) + port.to_bytes(2, "big") + struct.pack("=H4x", c)
    new = struct.pack("=QI", c, 0) + port.to_bytes(4, "big") + addr + struct.pack("=H2x", a)
    assert change.translated(old * 3) == new * 3
    assert change.unfit(old * 3) == set()


def test_a_value_too_large_for_its_field_is_found_in_its_row_alone() -> None:
    change = between(OLD, NEW)
    assert change is not None
    rows = struct.pack("=I12x", 65_535) + struct.pack("=I12x", 65_536) + bytes(16)
    assert change.unfit(rows) == {1}
    assert without(rows, 16, {1}) == rows[:16] + bytes(16)


def test_a_number_of_another_byte_order_is_another_field() -> None:
    swapped = OLD | {"Line": ("4", "a:__be32@0")}
    change = between(OLD, swapped)
    assert change is not None
    assert change.translated(bytes(range(16))) == bytes(4)
    assert between(OLD, swapped, is_key=True) is None, "no row of such a key is found again"


def test_rows_of_the_same_struct_are_the_same_bytes() -> None:
    change = between(OLD, OLD)
    assert change is not None
    assert change.translated(bytes(range(16))) == bytes(range(16))
