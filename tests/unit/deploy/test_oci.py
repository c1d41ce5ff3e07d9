"""Layers and archives: the same content gives the same bytes, and nothing gains rights in them."""

import gzip
import hashlib
import json
import os
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from deploy.image.oci import EPOCH_S, Image, Layer, write_archive, write_layer

IMAGE = Image(
    name="weft/weft:dev",
    full_name="docker.io/weft/weft:dev",
    entrypoint=("/usr/bin/weftd",),
    environment={"PATH": "/usr/bin"},
    labels={"a": "b"},
)


def tree(folder: Path) -> Path:
    (folder / "usr/bin").mkdir(parents=True)
    (folder / "usr/bin/tool").write_text("#!/bin/sh\n")
    (folder / "usr/bin/tool").chmod(0o4755)
    (folder / "usr/bin/link").symlink_to("tool")
    (folder / "etc").mkdir()
    (folder / "etc/name").write_text("x")
    os.link(folder / "etc/name", folder / "etc/twin")
    return folder


def layer(folder: Path, name: str = "layer") -> Layer:
    return write_layer(folder, folder.with_name(f"{folder.name}-{name}.tar.gz"))


def members(path: Path) -> Mapping[str, tarfile.TarInfo]:
    with tarfile.open(path) as archive:
        return {member.name: member for member in archive}


def blobs(archive: Path) -> Mapping[str, bytes]:
    with tarfile.open(archive) as opened:
        return {m.name: f.read() for m in opened if (f := opened.extractfile(m)) is not None}


def test_equal_trees_make_equal_layers_whenever_they_were_made(tmp_path: Path) -> None:
    first, second = tree(tmp_path / "a"), tree(tmp_path / "b")
    for path in second.rglob("*"):
        os.utime(path, (1, 1), follow_symlinks=False)
    assert layer(first).digest == layer(second).digest


def test_nothing_in_a_layer_gains_rights_by_being_run(tmp_path: Path) -> None:
    found = members(layer(tree(tmp_path / "a")).path)
    assert found["usr/bin/tool"].mode == 0o755
    assert {(m.uid, m.gid, m.uname) for m in found.values()} == {(0, 0, "")}
    assert {m.mtime for m in found.values()} == {EPOCH_S}


def test_links_stay_and_every_name_carries_its_content(tmp_path: Path) -> None:
    found = members(layer(tree(tmp_path / "a")).path)
    assert found["usr/bin/link"].linkname == "tool"
    assert found["etc/twin"].isreg()
    assert found["etc/twin"].size == 1


def test_digests_are_those_of_the_bytes(tmp_path: Path) -> None:
    made = layer(tree(tmp_path / "a"))
    packed = made.path.read_bytes()
    assert made.digest == f"sha256:{hashlib.sha256(packed).hexdigest()}"
    assert made.diff_id == f"sha256:{hashlib.sha256(gzip.decompress(packed)).hexdigest()}"


def test_an_archive_leads_from_its_index_to_its_layers(tmp_path: Path) -> None:
    made = layer(tree(tmp_path / "a"))
    archive = tmp_path / "image.tar"
    write_archive(archive, IMAGE, [made])
    found = blobs(archive)
    assert json.loads(found["oci-layout"]) == {"imageLayoutVersion": "1.0.0"}
    (descriptor,) = json.loads(found["index.json"])["manifests"]
    assert descriptor["annotations"]["io.containerd.image.name"] == IMAGE.full_name
    manifest = blob(found, descriptor)
    config = blob(found, manifest["config"])
    assert [part["digest"] for part in manifest["layers"]] == [made.digest]
    assert config["rootfs"]["diff_ids"] == [made.diff_id]
    assert config["config"]["Entrypoint"] == ["/usr/bin/weftd"]


def blob(found: Mapping[str, bytes], descriptor: Mapping[str, Any]) -> Any:
    content = found[f"blobs/{descriptor['digest'].replace(':', '/')}"]
    assert len(content) == descriptor["size"]
    assert f"sha256:{hashlib.sha256(content).hexdigest()}" == descriptor["digest"]
    return json.loads(content)


def test_a_failed_write_leaves_the_archive_that_was_there(tmp_path: Path) -> None:
    archive = tmp_path / "image.tar"
    archive.write_text("the last one")
    missing = Layer(tmp_path / "gone.tar.gz", "sha256:0", "sha256:0", 0)
    with pytest.raises(FileNotFoundError):
        write_archive(archive, IMAGE, [missing])
    assert archive.read_text() == "the last one"
