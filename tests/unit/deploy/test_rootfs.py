"""What goes into the image."""

import tomllib
from pathlib import Path

import pytest

from deploy.image import rootfs
from deploy.image.rootfs import ImageError, package_folders

ROOT = rootfs.CHECKOUT


def test_every_package_of_the_distribution_is_in_the_image() -> None:
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    folders = package_folders()
    assert folders.keys() == set(listed)
    assert folders["weft.proxy.observe"] == "proxy/observe"
    assert all((ROOT / folder / "__init__.py").is_file() for folder in folders.values())


def test_no_compiler_and_no_bcc_is_asked_for() -> None:
    words = " ".join(rootfs.PACKAGES)
    assert not any(name in words for name in ("gcc", "clang", "llvm", "bpfcc", "dev"))


def test_wheels_are_pinned_by_hash() -> None:
    text = rootfs.REQUIREMENTS.read_text()
    pins = [line for line in text.splitlines() if "==" in line and not line.startswith(" ")]
    assert pins
    assert text.count("--hash=sha256:") >= len(pins)


def test_a_tool_that_is_missing_or_fails_is_named_with_its_words() -> None:
    with pytest.raises(ImageError, match="apt-get install no-such-tool"):
        rootfs.run("no-such-tool")
    with pytest.raises(ImageError, match=r"sh -c .*: status 3\noh no"):
        rootfs.run("sh", "-c", "echo oh no; exit 3")


def test_the_size_counts_files_and_not_links(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(bytes(10))
    (tmp_path / "link").symlink_to("file")
    assert rootfs.size_bytes([tmp_path]) == 10
