"""Opening the datapath: maps survive their daemon, strangers are refused, nothing is lost."""

from pathlib import Path

import pytest

from weft.bpf import syscall
from weft.bpf.layout import LAYOUTS, TABLES, Backend, Flow, Settings, pack_u32, pack_u64
from weft.bpf.load import check_declarations, default_entries, open_datapath
from weft.bpf.migrate import write_types
from weft.bpf.objects import MapDeclaration, Object, ObjectError, Program, layout_hash, write_object
from weft.bpf.pins import MAPS, TYPES, ForeignPin, PinsUnusable, map_pin, type_pin
from weft.bpf.syscall import BpfError, MapType

SMALL = {"flows": 1_024, "translations": 1_024, "snat": 1_024, "sockets": 1_024}
KEY = pack_u64(7)
BACKEND = Backend(1, 0).pack()


def pin_of(pins: Path, name: str, layouts: dict[str, tuple[str, ...]] | None = None) -> Path:
    entries = (default_entries() | SMALL)[name]
    return map_pin(pins, TABLES[name], entries, layouts or LAYOUTS)


def test_programs_are_loaded_and_every_table_is_open(bpffs: Path, tiny_objects: Path) -> None:
    with open_datapath(pins=bpffs / "w", objects=tiny_objects, entries=SMALL) as datapath:
        assert set(datapath.tables) == set(TABLES)
        program = datapath.program("from_pod")
        assert (len(program.tag), program.verified_insns > 5) == (16, True)
        assert datapath.tables["flows"].max_entries == 1_024


def test_rows_outlive_the_daemon(bpffs: Path, tiny_objects: Path) -> None:
    with open_datapath(pins=bpffs / "w", objects=tiny_objects, entries=SMALL) as datapath:
        datapath.tables["backends"].update({KEY: BACKEND})
    with open_datapath(pins=bpffs / "w", objects=tiny_objects, entries=SMALL) as datapath:
        assert datapath.tables["backends"].lookup(KEY) == BACKEND
        assert (datapath.retired, datapath.migration.moves) == ((), ())
        assert not datapath.untyped, "this kernel takes BTF with every kind of map"


def test_a_second_daemon_is_refused(bpffs: Path, tiny_objects: Path) -> None:
    with (
        open_datapath(pins=bpffs / "w", objects=tiny_objects, entries=SMALL),
        pytest.raises(PinsUnusable, match="another daemon has"),
        open_datapath(pins=bpffs / "w", objects=tiny_objects, entries=SMALL),
    ):
        pass


def test_only_a_bpf_file_system_will_do(tmp_path: Path, tiny_objects: Path) -> None:
    with (
        pytest.raises(PinsUnusable, match="mount -t bpf bpf /sys/fs/bpf"),
        open_datapath(pins=tmp_path / "w", objects=tiny_objects),
    ):
        pass
    assert not (tmp_path / "w").exists()


def test_a_map_whose_rows_follow_from_the_plan_is_made_anew_in_another_size(
    bpffs: Path, tiny_objects: Path
) -> None:
    with open_datapath(pins=bpffs / "w", objects=tiny_objects, entries=SMALL) as datapath:
        datapath.tables["backends"].update({KEY: BACKEND})
    larger = SMALL | {"backends": 99}
    with open_datapath(pins=bpffs / "w", objects=tiny_objects, entries=larger) as datapath:
        assert datapath.tables["backends"].max_entries == 99
        assert len(datapath.tables["backends"]) == 0
        assert datapath.retired == (pin_of(bpffs / "w", "backends"),)
        assert datapath.retired[0].exists(), "hooks still use it"
        datapath.retire()
        assert not datapath.retired[0].exists()


def test_flows_are_carried_over_to_a_table_of_another_size(bpffs: Path, tiny_objects: Path) -> None:
    flow = {bytes(40): bytes(range(Flow.SIZE))}
    with open_datapath(pins=bpffs / "w", objects=tiny_objects, entries=SMALL) as datapath:
        datapath.tables["flows"].update(flow)
    larger = SMALL | {"flows": 2_048}
    with open_datapath(pins=bpffs / "w", objects=tiny_objects, entries=larger) as datapath:
        assert datapath.tables["flows"].max_entries == 2_048
        assert dict(datapath.tables["flows"].items()) == flow
        assert pin_of(bpffs / "w", "flows").exists(), "hooks still use it"
        list(datapath.migration.finish())
    assert [pin.name.partition("-")[0] for pin in (bpffs / "w" / MAPS).iterdir()].count(
        "flows"
    ) == 1
    assert len(list((bpffs / "w" / TYPES).iterdir())) == len(TABLES)


def test_flows_whose_version_did_not_say_what_they_hold_are_reported_and_left(
    bpffs: Path, tiny_objects: Path
) -> None:
    with open_datapath(pins=bpffs / "w", objects=tiny_objects, entries=SMALL):
        pass
    older = pin_of(bpffs / "w", "flows", LAYOUTS | {"Flow": ("40", "other:__u64@0")})
    pin_of(bpffs / "w", "flows").rename(older)
    with open_datapath(pins=bpffs / "w", objects=tiny_objects, entries=SMALL) as datapath:
        assert set(datapath.migration.unmigrated) == {older}
        datapath.retire()
        list(datapath.migration.finish())
    assert older.exists()


def test_the_kernel_tells_the_fields_of_a_tables_rows_apart(
    bpffs: Path, tiny_objects: Path
) -> None:
    with open_datapath(pins=bpffs / "w", objects=tiny_objects, entries=SMALL) as datapath:
        datapath.tables["flows"].update({bytes(40): bytes(range(Flow.SIZE))})
        datapath.tables["backends"].update({KEY: BACKEND})
    dump = pin_of(bpffs / "w", "flows").read_text()
    assert f": {{{Flow.unpack(bytes(range(Flow.SIZE))).initiator_revision}," in dump
    assert "7: {1,0,0,}" in pin_of(bpffs / "w", "backends").read_text()


def test_a_table_that_only_another_version_has_goes_once_every_hook_is_replaced(
    bpffs: Path, tiny_objects: Path
) -> None:
    place = bpffs / "w" / MAPS / "extras-0123456789abcdef"
    with open_datapath(pins=bpffs / "w", objects=tiny_objects, entries=SMALL) as datapath:
        write_types(place, TABLES["snat"], LAYOUTS)
        syscall.pin(datapath.tables["snat"].fd, place)
    with open_datapath(pins=bpffs / "w", objects=tiny_objects, entries=SMALL) as datapath:
        assert datapath.retired == (place,)
        datapath.retire()
    assert not place.exists()
    assert not type_pin(place).exists()


@pytest.mark.parametrize("name", ["maps/cilium_lxc", "maps/flows", "maps/other-0123456789abcdef"])
def test_a_pin_that_is_no_table_is_refused_and_named(
    bpffs: Path, tiny_objects: Path, name: str
) -> None:
    with open_datapath(pins=bpffs / "w", objects=tiny_objects, entries=SMALL) as datapath:
        syscall.pin(datapath.tables["settings"].fd, bpffs / "w" / name)
    with (
        pytest.raises(ForeignPin, match=rf"{name} is unknown, where a map out of .*backends"),
        open_datapath(pins=bpffs / "w", objects=tiny_objects, entries=SMALL),
    ):
        pass


def test_an_unknown_folder_among_the_pins_is_refused(bpffs: Path, tiny_objects: Path) -> None:
    (bpffs / "w" / "tc").mkdir(parents=True)
    with (
        pytest.raises(
            ForeignPin, match="tc is unknown, where only maps/, hooks/ and types/ belongs"
        ),
        open_datapath(pins=bpffs / "w", objects=tiny_objects, entries=SMALL),
    ):
        pass


def test_a_map_that_is_not_what_its_name_says_is_refused(bpffs: Path, tiny_objects: Path) -> None:
    with open_datapath(pins=bpffs / "w", objects=tiny_objects, entries=SMALL) as datapath:
        place = pin_of(bpffs / "w", "backends")
        place.unlink()
        syscall.pin(datapath.tables["settings"].fd, place)
    with (
        pytest.raises(
            ForeignPin, match=r"is a map \(2, 4, \d+, 0\), where a map .*HASH.*8, 16, 1\)"
        ),
        open_datapath(pins=bpffs / "w", objects=tiny_objects, entries=SMALL),
    ):
        pass


def test_settings_written_by_python_are_read_back(bpffs: Path, tiny_objects: Path) -> None:
    row = Settings.unpack(bytes(range(Settings.SIZE)))
    with open_datapath(pins=bpffs / "w", objects=tiny_objects, entries=SMALL) as datapath:
        datapath.tables["settings"].update({pack_u32(0): row.pack()})
        assert dict(datapath.tables["settings"].items()) == {pack_u32(0): row.pack()}


def test_a_refused_program_is_named_with_the_verifiers_last_words(
    bpffs: Path, tmp_path: Path
) -> None:
    leave_without_answer = bytes.fromhex("9500000000000000")
    broken = Object("bad", layout_hash(), (Program("from_pod", leave_without_answer, ()),), ())
    (tmp_path / "bad.json").write_text(write_object(broken))
    with (
        pytest.raises(BpfError, match=r"(?s)load program from_pod \(SCHED_CLS\): E.*R0 !read_ok"),
        open_datapath(pins=bpffs / "w", objects=tmp_path, entries=SMALL),
    ):
        pass


@pytest.mark.parametrize(
    ("declared", "words"),
    [
        (MapDeclaration("jobs", MapType.HASH, 4, 4, 1, 0), "map jobs is not declared in maps.h"),
        (MapDeclaration("slots", MapType.HASH, 16, 40, 1, 1), r"16, 40, 1\), layout says .*16, 32"),
    ],
)
def test_an_object_with_other_maps_than_the_layout_is_refused(
    declared: MapDeclaration, words: str
) -> None:
    with pytest.raises(ObjectError, match=words):
        check_declarations([Object("tiny", layout_hash(), (), (declared,))])
