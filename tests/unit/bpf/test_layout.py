"""layout.py is what genlayout makes of the headers, and its bytes are the compiler's."""

import struct
import time
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path

import pytest

from weft.bpf import genlayout, layout
from weft.bpf.btf import Enum, Field, LayoutError, Struct, compile_header, read

INCLUDE = Path(genlayout.__file__).parent / "include"


def btf_of(text: str, folder: Path) -> tuple[tuple[Struct, ...], tuple[Enum, ...]]:
    header = folder / "one.h"
    header.write_text("#include <linux/types.h>\n" + text)
    return read(compile_header(header))


def test_the_checked_in_mirror_equals_the_generated_one() -> None:
    assert Path(layout.__file__).read_text() == genlayout.generate(INCLUDE)


def test_network_order_ports_are_plain_numbers_in_python() -> None:
    key = layout.FrontendKey(IPv4Address("10.96.0.1"), 443, 6)
    assert key.pack().hex() == "00000000000000000000ffff0a60000101bb0600"
    assert layout.FrontendKey.unpack(key.pack()) == key


def test_the_unspecified_ipv6_address_is_all_zero_and_zero_ipv4_is_not() -> None:
    assert layout.pack_address(IPv6Address("::")) == bytes(16)
    assert layout.unpack_address(bytes(16)) == layout.UNSPECIFIED
    assert layout.pack_address(IPv4Address("0.0.0.0")) == bytes(10) + b"\xff\xff" + bytes(4)


@pytest.mark.parametrize("text", ["10.0.0.1", "0.0.0.0", "fd00::1", "::", "::1"])
def test_an_address_survives_the_border(text: str) -> None:
    address = ip_address(text)
    assert layout.unpack_address(layout.pack_address(address)) == address


def test_a_nested_struct_and_names_of_builtins_survive_the_border() -> None:
    ends = layout.Tuple(IPv4Address("10.0.0.1"), IPv6Address("fd00::2"), 1, 65535, 17)
    event = layout.Event(1, 2, 3, 4, ends, layout.UNSPECIFIED, 53, 16, 1, 0, 2, 4, 7, 1500)
    assert len(event.pack()) == layout.Event.SIZE
    assert layout.Event.unpack(event.pack()) == event


def test_an_array_of_numbers_is_a_tuple_of_exactly_its_length() -> None:
    verdict = layout.Verdict((1, 2, 3, 1 << 63))
    assert layout.Verdict.unpack(verdict.pack()) == verdict
    with pytest.raises(struct.error):
        layout.Verdict((1, 2, 3)).pack()


def test_a_byte_string_of_the_wrong_length_is_refused() -> None:
    with pytest.raises(ValueError, match="has 5 bytes, the field 6"):
        layout.Workload(0, 0, 0, 0, 1, 0, bytes(5), bytes(6)).pack()


def test_a_port_beyond_16_bits_is_refused() -> None:
    with pytest.raises(OverflowError):
        layout.Fragment(65536, 1, 17, 0).pack()


def test_a_reason_has_one_name_and_bounds_are_constants() -> None:
    assert layout.Reason(layout.REASON_DROPS).name == "POLICY_INGRESS"
    assert "COUNT" not in layout.Reason.__members__
    assert layout.TABLES["counters"].entries == layout.REASON_COUNT * layout.DIRECTION_COUNT


def test_flags_combine() -> None:
    both = layout.PrefixFlag.REMOTE | layout.PrefixFlag.SERVICE
    assert layout.PrefixFlag(9) == both


def test_tables_have_the_sizes_of_their_structs() -> None:
    for table in layout.TABLES.values():
        for name, size in ((table.key, table.key_size), (table.value, table.value_size)):
            if isinstance(one := getattr(layout, name, None), type) and size:
                assert getattr(one, "SIZE", 16) == size


def test_a_hundred_thousand_slots_are_packed_in_half_a_second() -> None:
    started = time.process_time()
    for number in range(100_000):
        layout.SlotKey(7, number).pack()
        layout.Slot(number, IPv4Address(number), 8080).pack()
    assert time.process_time() - started < 0.5


def test_hidden_padding_is_refused(tmp_path: Path) -> None:
    structs, _ = btf_of("struct hole { __u8 a; __u32 b; };", tmp_path)
    with pytest.raises(LayoutError, match="3 bytes before b"):
        genlayout._format(structs[0])


def test_padding_at_the_end_is_refused(tmp_path: Path) -> None:
    structs, _ = btf_of("struct tail { __u32 a; __u8 b; };", tmp_path)
    with pytest.raises(LayoutError, match="3 bytes of padding at its end"):
        genlayout._format(structs[0])


def test_a_union_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LayoutError, match="both"):
        btf_of("union both { __u32 a; __u8 b; };", tmp_path)


def test_an_enum_with_a_stray_name_is_refused(tmp_path: Path) -> None:
    _, enums = btf_of("enum colour { COLOUR_RED, BLUE };", tmp_path)
    with pytest.raises(LayoutError, match="BLUE should start with COLOUR_"):
        genlayout._enum(enums[0])


def test_typedef_names_and_arrays_are_kept(tmp_path: Path) -> None:
    structs, _ = btf_of("struct one { const __be16 a; __u8 b[6]; };", tmp_path)
    assert [field.type.name for field in structs[0].fields] == ["__be16", "__u8"]
    assert structs[0].fields[1] == Field("b", 2, structs[0].fields[1].type)
    assert structs[0].fields[1].size == 6


def test_a_map_macro_that_nobody_knows_is_refused() -> None:
    with pytest.raises(LayoutError, match="BPF_QUEUE"):
        list(genlayout.read_tables("BPF_QUEUE(jobs, u32, 7);", []))
