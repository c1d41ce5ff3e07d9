"""The list that a runtime reads: right for old and new libcni, kind to other tools' entries."""

import json
from pathlib import Path
from typing import Any

from weft.cni.conflist import render
from weft.cni.install import install_conflist


def rendered(present: bytes | None = None) -> Any:
    text = render(present)
    assert text is not None
    return json.loads(text)


def test_old_libcni_reads_1_0_0_and_new_libcni_chooses_from_the_list() -> None:
    assert rendered()["cniVersion"] == "1.0.0"
    assert rendered()["cniVersions"] == ["0.3.1", "0.4.0", "1.0.0", "1.1.0"]


def test_annotations_addresses_and_macs_are_asked_for_and_ports_are_not() -> None:
    capabilities = rendered()["plugins"][0]["capabilities"]
    assert capabilities == {"io.kubernetes.cri.pod-annotations": True, "ips": True, "mac": True}


def test_plugins_that_others_appended_stay_behind_ours() -> None:
    mesh = {"type": "istio-cni", "kubernetes": {"k": 1}}
    present = rendered() | {"plugins": [{"type": "weft-cni", "old": True}, mesh]}
    assert [one["type"] for one in rendered(json.dumps(present).encode())["plugins"]] == [
        "weft-cni", "istio-cni"
    ]  # fmt: skip
    assert rendered(json.dumps(present).encode())["plugins"][1] == mesh


def test_a_list_that_says_it_already_is_not_written_again() -> None:
    assert render(render(None)) is None


def test_a_file_that_does_not_read_is_replaced_whole() -> None:
    for garbage in (b"", b"{", b"[]", b'{"plugins": 5}'):
        assert len(rendered(garbage)["plugins"]) == 1


def test_installing_is_one_rename_of_a_name_that_no_runtime_reads(tmp_path: Path) -> None:
    assert install_conflist(tmp_path)
    before = (tmp_path / "05-weft.conflist").stat().st_ino
    assert not install_conflist(tmp_path)
    assert [one.name for one in tmp_path.iterdir()] == ["05-weft.conflist"]
    assert (tmp_path / "05-weft.conflist").stat().st_ino == before
