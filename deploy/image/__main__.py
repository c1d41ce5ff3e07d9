"""`python -m deploy.image`: the base layer from the cache or made anew, Weft's layer, the archive.

Owns the order of the steps and the cache of the base folder. Needs root: apt unpacks with owners.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from deploy.image import oci, rootfs

NAME = "weft/weft:dev"
# A short name is completed so before it is looked up (distribution/reference, normalize.go).
FULL_NAME = f"docker.io/{NAME}"
LIMIT_BYTES = 250_000_000
KEPT_BASES = 3
BUILD = rootfs.CHECKOUT / "build"


def main() -> int:
    arguments = _arguments()
    started = time.monotonic()
    try:
        unpacked_bytes = build(arguments.objects, arguments.shim, arguments.out)
    except (rootfs.ImageError, OSError) as error:
        print(f"image: {error}", file=sys.stderr)
        return 1
    print(
        f"{arguments.out}: {NAME}, {arguments.out.stat().st_size / 1e6:.0f} MB packed, "
        f"{unpacked_bytes / 1e6:.0f} MB unpacked, {time.monotonic() - started:.0f} s"
    )
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m deploy.image", description=__doc__)
    parser.add_argument("--objects", type=Path, help="compiled objects; default: compile them")
    parser.add_argument("--shim", type=Path, default=BUILD / "weft-cni")
    parser.add_argument("--out", type=Path, default=BUILD / "weft-image.tar")
    return parser.parse_args()


def build(objects: Path | None, shim: Path, out: Path) -> int:
    """Write the image to `out`; the bytes it takes unpacked. Raises ImageError, OSError."""
    if os.geteuid() != 0:
        raise rootfs.ImageError("needs root: apt unpacks packages with their owners")
    if not shim.is_file():
        raise rootfs.ImageError(f"{shim} is missing: make {shim.name}")
    with tempfile.TemporaryDirectory(prefix="weft-image-") as scratch, _base() as base:
        work = Path(scratch)
        root = work / "weft"
        root.mkdir()
        rootfs.make_weft(root, base / "root", objects or _compile(work / "objects"), shim)
        unpacked_bytes = rootfs.size_bytes((base / "root", root))
        if unpacked_bytes > LIMIT_BYTES:
            raise rootfs.ImageError(f"{unpacked_bytes} bytes unpacked: {LIMIT_BYTES} are allowed")
        layers = (_layer(base / "layer.tar.gz", base), oci.write_layer(root, work / "layer.tar.gz"))
        out.parent.mkdir(parents=True, exist_ok=True)
        oci.write_archive(out, _image(), layers)
    return unpacked_bytes


def _image() -> oci.Image:
    return oci.Image(
        name=NAME,
        full_name=FULL_NAME,
        entrypoint=("/usr/bin/weftd",),
        environment={
            "PATH": "/usr/sbin:/usr/bin",
            "PYTHONUNBUFFERED": "1",
            "PYTHONDONTWRITEBYTECODE": "1",
        },
        labels={
            "org.opencontainers.image.title": "weft",
            "org.opencontainers.image.licenses": "Apache-2.0",
        },
    )


def _compile(folder: Path) -> Path:
    rootfs.run(sys.executable, "-m", "weft.bpf.build", "--out", str(folder))
    return folder


@contextmanager
def _base() -> Iterator[Path]:
    """The cached folder that holds `root` and its layer, ours alone while in use."""
    cache = Path(os.environ.get("WEFT_CACHE") or Path.home() / ".cache" / "weft") / "image"
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        base = cache / _base_identity()
        if not (base / "layer.tar.gz").exists():
            _make_base(base)
            _prune(cache)
        yield base


def _prune(cache: Path) -> None:
    """Checkouts share the cache, so the newest few stay."""
    folders = sorted((p for p in cache.iterdir() if p.is_dir()), key=lambda p: p.stat().st_mtime)
    for old in folders[:-KEPT_BASES]:
        shutil.rmtree(old)


def _base_identity() -> str:
    """Everything that decides what is in the base folder."""
    parts = (Path(rootfs.__file__), Path(oci.__file__), rootfs.REQUIREMENTS)
    return hashlib.sha256(b"\0".join(part.read_bytes() for part in parts)).hexdigest()[:16]


def _make_base(base: Path) -> None:
    shutil.rmtree(base, ignore_errors=True)
    (base / "root").mkdir(parents=True)
    rootfs.make_base(base / "root")
    packed = oci.write_layer(base / "root", base / ".layer.tar.gz")
    (base / "layer.ids").write_text(f"{packed.digest} {packed.diff_id}\n")
    packed.path.rename(base / "layer.tar.gz")


def _layer(path: Path, base: Path) -> oci.Layer:
    digest, diff_id = (base / "layer.ids").read_text().split()
    return oci.Layer(path, digest, diff_id, path.stat().st_size)


if __name__ == "__main__":
    sys.exit(main())
