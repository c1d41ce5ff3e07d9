"""One contract for every table: the kernel's and the fake one answer alike."""

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial

import pytest

from weft.bpf import syscall
from weft.bpf.syscall import MapType
from weft.bpf.table import FakeTable, KernelTable, Table, TableFull
from weft.bpf.wire import TableKind, TableSpec, pack_u32

Maker = Callable[[TableKind, int, int, int], Table]
KEY = 8


def spec(kind: TableKind, key: int, value: int, entries: int) -> TableSpec:
    lazy = kind in (TableKind.HASH, TableKind.LPM_TRIE)
    return TableSpec("trial", kind, "", "", key, value, entries, lazy, False)


def kernel_table(stack: ExitStack, kind: TableKind, key: int, value: int, entries: int) -> Table:
    one = spec(kind, key, value, entries)
    flags = syscall.BPF_F_NO_PREALLOC if one.no_prealloc else 0
    fd = syscall.create_map(MapType[kind.name], (key, value, entries), flags, one.name)
    return stack.enter_context(KernelTable(one, fd))


def fake_table(kind: TableKind, key: int, value: int, entries: int) -> Table:
    return FakeTable(spec(kind, key, value, entries))


@pytest.fixture(params=["kernel", "fake"])
def make(request: pytest.FixtureRequest) -> Iterator[Maker]:
    if request.param == "fake":
        yield fake_table
        return
    if os.geteuid() != 0:
        pytest.skip("making kernel tables needs root")
    with ExitStack() as stack:
        yield partial(kernel_table, stack)


def rows(count: int) -> dict[bytes, bytes]:
    return {number.to_bytes(KEY, "big"): pack_u32(number) for number in range(count)}


def prefix(length: int, *octets: int) -> bytes:
    return pack_u32(length) + bytes(octets)


def test_what_is_written_is_found(make: Maker) -> None:
    table = make(TableKind.HASH, KEY, 4, 16)
    table.update(rows(3))
    assert table.lookup((2).to_bytes(KEY, "big")) == pack_u32(2)
    assert dict(table.items()) == rows(3)
    assert (len(table), table.max_entries, table.name) == (3, 16, "trial")


def test_a_key_without_a_row_gives_none(make: Maker) -> None:
    assert make(TableKind.HASH, KEY, 4, 16).lookup(bytes(KEY)) is None


def test_writing_an_existing_key_replaces_its_value(make: Maker) -> None:
    table = make(TableKind.HASH, KEY, 4, 1)
    table.update({bytes(KEY): b"aaaa"})
    table.update({bytes(KEY): b"bbbb"})
    assert dict(table.items()) == {bytes(KEY): b"bbbb"}


def test_deleting_what_is_absent_is_success(make: Maker) -> None:
    table = make(TableKind.HASH, KEY, 4, 16)
    table.update(rows(4))
    table.delete([b"no such!", (1).to_bytes(KEY, "big"), b"nor this", (3).to_bytes(KEY, "big")])
    assert sorted(table.items()) == sorted(rows(4).items())[::2]


@pytest.mark.parametrize("kind", [TableKind.HASH, TableKind.LRU_HASH])
def test_many_batches_of_rows_come_and_go(make: Maker, kind: TableKind) -> None:
    table = make(kind, KEY, 4, 65_536)
    table.update(rows(10_000))
    assert dict(table.items()) == rows(10_000)
    table.delete(rows(9_999))
    assert dict(table.items()) == {(9_999).to_bytes(KEY, "big"): pack_u32(9_999)}


@pytest.mark.parametrize("count", [0, 1])
def test_tables_of_no_or_one_row_are_listed(make: Maker, count: int) -> None:
    table = make(TableKind.HASH, KEY, 4, 16)
    table.update(rows(count))
    table.delete([])
    assert dict(table.items()) == rows(count)


def test_a_full_table_names_the_rows_that_it_refused_and_writes_the_others(make: Maker) -> None:
    table = make(TableKind.HASH, KEY, 4, 3)
    table.update(rows(2))
    replaced = (0).to_bytes(KEY, "big")
    with pytest.raises(TableFull, match=r"trial is full at 3 rows: 2 rows refused") as full:
        table.update({b"newrow 1": b"1111", b"newrow 2": b"2222", b"newrow 3": b"3333"} | rows(1))
    assert set(full.value.refused) == {b"newrow 2", b"newrow 3"}
    assert table.lookup(replaced) == pack_u32(0)
    assert len(table) == 3


def test_an_lru_table_is_never_full(make: Maker) -> None:
    table = make(TableKind.LRU_HASH, KEY, 4, 1_024)
    table.update(rows(3_000))
    assert len(table) <= 1_024


def test_an_array_has_all_its_rows_from_the_start(make: Maker) -> None:
    table = make(TableKind.ARRAY, 4, 8, 4)
    table.update({pack_u32(2): b"settings"})
    table.delete([pack_u32(2)])
    assert dict(table.items()) == {
        pack_u32(n): b"settings" if n == 2 else bytes(8) for n in range(4)
    }


def test_a_row_beyond_the_end_of_an_array_is_refused(make: Maker) -> None:
    with pytest.raises(TableFull):
        make(TableKind.ARRAY, 4, 8, 4).update({pack_u32(4): b"settings"})


def test_the_longest_matching_prefix_answers(make: Maker) -> None:
    table = make(TableKind.LPM_TRIE, 8, 4, 16)
    table.update({prefix(8, 10, 0, 0, 0): b"wide", prefix(24, 10, 1, 2, 0): b"near"})
    assert table.lookup(prefix(32, 10, 1, 2, 3)) == b"near"
    assert table.lookup(prefix(32, 10, 1, 3, 3)) == b"wide"
    assert table.lookup(prefix(16, 10, 1, 2, 3)) == b"wide"
    assert table.lookup(prefix(32, 11, 1, 2, 3)) is None


def test_prefixes_are_one_row_whatever_follows_their_bits(make: Maker) -> None:
    table = make(TableKind.LPM_TRIE, 8, 4, 16)
    table.update({prefix(8, 10, 0, 0, 0): b"old "})
    table.update({prefix(8, 10, 9, 9, 9): b"new "})
    assert [value for _, value in table.items()] == [b"new "]
    table.delete([prefix(16, 10, 0, 0, 0), prefix(8, 10, 1, 1, 1)])
    assert len(table) == 0


def test_a_full_prefix_table_says_so(make: Maker) -> None:
    table = make(TableKind.LPM_TRIE, 8, 4, 1)
    table.update({prefix(8, 10, 0, 0, 0): b"one "})
    with pytest.raises(TableFull):
        table.update({prefix(8, 11, 0, 0, 0): b"two "})


def test_many_prefixes_come_and_go(make: Maker) -> None:
    table = make(TableKind.LPM_TRIE, 8, 4, 10_000)
    many = {prefix(32, *n.to_bytes(4, "big")): pack_u32(n) for n in range(6_000)}
    table.update(many)
    assert dict(table.items()) == many
    table.delete(many)
    assert len(table) == 0


@pytest.mark.parametrize(("key", "value"), [(b"short", b"1234"), (b"justfine", b"12345")])
def test_rows_of_the_wrong_size_are_refused(make: Maker, key: bytes, value: bytes) -> None:
    with pytest.raises(ValueError, match="where 1 x"):
        make(TableKind.HASH, KEY, 4, 16).update({key: value})


def test_a_table_of_other_sizes_than_the_layout_is_refused() -> None:
    if os.geteuid() != 0:
        pytest.skip("making kernel tables needs root")
    fd = syscall.create_map(MapType.HASH, (8, 8, 1), 0, "trial")
    try:
        with pytest.raises(ValueError, match=r"rows have 8\+8 bytes, layout.py's 8\+4"):
            KernelTable(spec(TableKind.HASH, 8, 4, 1), fd)
    finally:
        os.close(fd)


@pytest.mark.skipif(os.geteuid() != 0, reason="making kernel tables needs root")
def test_rows_go_from_table_to_table_by_the_page_and_replace_none_that_is_there() -> None:
    with ExitStack() as stack:
        source = kernel_table(stack, TableKind.HASH, KEY, 4, 10_000)
        target = kernel_table(stack, TableKind.HASH, KEY, 4, 10_000)
        assert isinstance(source, KernelTable)
        assert isinstance(target, KernelTable)
        source.update(rows(9_000))
        mine = {(7).to_bytes(KEY, "big"): pack_u32(1_000)}
        target.update(mine)
        present = [page.keys[KEY * n :][:KEY] for page in source.pages() for n in target.add(page)]
        assert present == list(mine)
        assert dict(target.items()) == rows(9_000) | mine
        for page in source.pages():
            target.put(page)
        assert dict(target.items()) == rows(9_000)
