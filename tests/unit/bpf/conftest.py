"""What tests of the kernel side share: a BPF file system of their own and a tiny object."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.bpf.tiny import TINY
from weft.bpf import build


@pytest.fixture
def bpffs(tmp_path: Path) -> Iterator[Path]:
    """A BPF file system that ends with the test, and with it all that it pins."""
    if os.geteuid() != 0:
        pytest.skip("mounting a BPF file system needs root")
    place = tmp_path / "bpffs"
    place.mkdir()
    subprocess.run(["mount", "-t", "bpf", "bpf", str(place)], check=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True)


@pytest.fixture(scope="session")
def tiny_objects(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the compiled object of TINY."""
    if os.geteuid() != 0:
        pytest.skip("compiling makes maps: needs root")
    folder = tmp_path_factory.mktemp("tiny")
    (folder / "tiny.bpf.c").write_text(TINY)
    return build.build([folder / "tiny.bpf.c"], build.FOLDER / "include", folder / "cache")
