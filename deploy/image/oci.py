"""Writes folders as layers and layers as an OCI image archive; the same content, the same bytes.

Owns the formats (OCI image-spec v1.1: image-layout, manifest, config; layers are tar, with gzip or
plain).
Never looks at what the files are. Order, owners and times are fixed; nothing reads a clock.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import platform
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

EPOCH_S = 1_767_225_600
"""The one time on every file: 2026-01-01T00:00:00Z."""
_CREATED = "2026-01-01T00:00:00Z"
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
_MEDIA = "application/vnd.oci.image"
PACKED_LAYER = f"{_MEDIA}.layer.v1.tar+gzip"
PLAIN_LAYER = f"{_MEDIA}.layer.v1.tar"


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer on disk. digest: of the packed file; diff_id: of the tar inside (OCI config)."""

    path: Path
    digest: str
    diff_id: str
    size_bytes: int
    media_type: str = PACKED_LAYER


@dataclass(frozen=True, slots=True)
class Image:
    """What a runtime needs to know. full_name: `name` as runtimes complete it before a look-up."""

    name: str
    full_name: str
    entrypoint: tuple[str, ...]
    environment: Mapping[str, str]
    labels: Mapping[str, str]
    command: tuple[str, ...] = ()


class _Sink(Protocol):
    def write(self, data: bytes, /) -> int: ...


class _Hashing(io.RawIOBase):
    """Passes bytes on and hashes them on the way."""

    def __init__(self, target: _Sink) -> None:
        self._target = target
        self.sha256 = hashlib.sha256()

    def writable(self) -> bool:
        return True

    def write(self, data: bytes) -> int:  # type: ignore[override]
        self.sha256.update(data)
        return self._target.write(data)


def write_layer(root: Path, path: Path) -> Layer:
    """Pack everything below `root` into `path` (tar, gzip)."""
    with path.open("wb") as file:
        packed = _Hashing(file)
        with gzip.GzipFile("", "wb", 6, packed, mtime=0) as zipped:
            content = _Hashing(zipped)
            with tarfile.open(fileobj=content, mode="w|", format=tarfile.PAX_FORMAT) as archive:
                for entry in _sorted_tree(root):
                    _add(archive, entry, str(entry.relative_to(root)))
    return Layer(
        path,
        f"sha256:{packed.sha256.hexdigest()}",
        f"sha256:{content.sha256.hexdigest()}",
        path.stat().st_size,
    )


def plain_layer(path: Path) -> Layer:
    """A tar file that is a layer as it lies: nothing to unpack where it is imported."""
    with path.open("rb") as content:
        digest = f"sha256:{hashlib.file_digest(content, 'sha256').hexdigest()}"
    return Layer(path, digest, digest, path.stat().st_size, PLAIN_LAYER)


def _sorted_tree(root: Path) -> Iterator[Path]:
    return iter(sorted(root.rglob("*"), key=lambda p: os.fsencode(p.relative_to(root))))


def _add(archive: tarfile.TarFile, path: Path, name: str) -> None:
    entry = archive.gettarinfo(str(path), arcname=name)
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = ""
    entry.mtime = EPOCH_S
    # Nothing in the image may gain rights by being run (CVE-2024-33522 was such a mode).
    entry.mode &= 0o1777
    if entry.islnk():  # every name carries its content: layers do not depend on walking order
        entry.type, entry.linkname = tarfile.REGTYPE, ""
        entry.size = path.stat().st_size
    if entry.isreg():
        with path.open("rb") as content:
            archive.addfile(entry, content)
    else:
        archive.addfile(entry)


def write_archive(path: Path, image: Image, layers: Sequence[Layer]) -> None:
    """Write the OCI archive to `path`, complete or not at all."""
    config = _json(_config(image, layers))
    manifest = _json(_manifest(config, layers))
    small = {
        "index.json": _json(_index(image, manifest)),
        "oci-layout": _json({"imageLayoutVersion": "1.0.0"}),
        _blob(_digest(config)): config,
        _blob(_digest(manifest)): manifest,
    }
    large = {_blob(layer.digest): layer.path for layer in layers}
    aside = path.with_name(f".{path.name}.new")
    with tarfile.open(aside, "w", format=tarfile.PAX_FORMAT) as archive:
        for name in sorted({*small, *large}):
            _add_blob(archive, name, small.get(name) or large[name])
    aside.rename(path)


def _add_blob(archive: tarfile.TarFile, name: str, content: bytes | Path) -> None:
    entry = tarfile.TarInfo(name)
    entry.mtime, entry.mode = EPOCH_S, 0o644
    if isinstance(content, bytes):
        entry.size = len(content)
        archive.addfile(entry, io.BytesIO(content))
        return
    entry.size = content.stat().st_size
    with content.open("rb") as file:
        archive.addfile(entry, file)


def _config(image: Image, layers: Sequence[Layer]) -> object:
    return {
        "architecture": _ARCHITECTURES[platform.machine()],
        "os": "linux",
        "created": _CREATED,
        "config": {
            "Entrypoint": image.entrypoint,
            "Cmd": image.command,
            "Env": [f"{name}={value}" for name, value in sorted(image.environment.items())],
            "Labels": dict(image.labels),
        },
        "rootfs": {"type": "layers", "diff_ids": [layer.diff_id for layer in layers]},
        "history": [{"created": _CREATED, "created_by": "make image"} for _ in layers],
    }


def _manifest(config: bytes, layers: Sequence[Layer]) -> object:
    return {
        "schemaVersion": 2,
        "mediaType": f"{_MEDIA}.manifest.v1+json",
        "config": _descriptor(f"{_MEDIA}.config.v1+json", config),
        "layers": [
            {
                "mediaType": layer.media_type,
                "digest": layer.digest,
                "size": layer.size_bytes,
            }
            for layer in layers
        ],
    }


def _index(image: Image, manifest: bytes) -> object:
    names = {
        "io.containerd.image.name": image.full_name,
        "org.opencontainers.image.ref.name": image.name,
    }
    descriptor = _descriptor(f"{_MEDIA}.manifest.v1+json", manifest)
    platforms = {"architecture": _ARCHITECTURES[platform.machine()], "os": "linux"}
    return {
        "schemaVersion": 2,
        "mediaType": f"{_MEDIA}.index.v1+json",
        "manifests": [{**descriptor, "annotations": names, "platform": platforms}],
    }


def _descriptor(media_type: str, content: bytes) -> dict[str, object]:
    return {"mediaType": media_type, "digest": _digest(content), "size": len(content)}


def _digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def _blob(digest: str) -> str:
    return f"blobs/{digest.replace(':', '/')}"


def _json(value: object) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()
