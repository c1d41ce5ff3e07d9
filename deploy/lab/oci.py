"""Writes container images as OCI archives: no engine, no registry, layers as plain tar files.

Owns the format only. Source: the OCI image specification, version 1.1 (image layout, index,
manifest, configuration), and containerd's annotation for the name of an imported image.
"""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from dataclasses import dataclass
from pathlib import Path

_MEDIA = "application/vnd.oci.image"


@dataclass(frozen=True, slots=True)
class Image:
    """One image: its full name, its layers from the bottom up, what it runs."""

    name: str
    layers: tuple[Path, ...]
    entrypoint: tuple[str, ...]
    command: tuple[str, ...] = ()


def write_archive(image: Image, path: Path) -> None:
    """Writes `image` as an archive that `ctr images import` reads; replaces `path` at the end."""
    fresh = path.with_suffix(".new")
    with tarfile.open(fresh, "w") as archive:
        layers = [_add_file(archive, layer) for layer in image.layers]
        config = _add_json(archive, f"{_MEDIA}.config.v1+json", _config(image, layers))
        body = {
            "schemaVersion": 2,
            "mediaType": f"{_MEDIA}.manifest.v1+json",
            "config": config,
            "layers": layers,
        }
        manifest = _add_json(archive, f"{_MEDIA}.manifest.v1+json", body)
        named = {**manifest, "annotations": {"io.containerd.image.name": image.name}}
        _add(archive, "index.json", {"schemaVersion": 2, "manifests": [named]})
        _add(archive, "oci-layout", {"imageLayoutVersion": "1.0.0"})
    fresh.replace(path)


def _config(image: Image, layers: list[dict[str, object]]) -> dict[str, object]:
    return {
        "architecture": "amd64",
        "os": "linux",
        "config": {
            "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
            "Entrypoint": list(image.entrypoint),
            "Cmd": list(image.command),
        },
        # Layers are not compressed, so a layer's digest is also its diff id.
        "rootfs": {"type": "layers", "diff_ids": [layer["digest"] for layer in layers]},
    }


def _add_file(archive: tarfile.TarFile, path: Path) -> dict[str, object]:
    with path.open("rb") as content:
        digest = hashlib.file_digest(content, "sha256").hexdigest()
        entry = tarfile.TarInfo(f"blobs/sha256/{digest}")
        entry.size = path.stat().st_size
        content.seek(0)
        archive.addfile(entry, content)
    return _descriptor(f"{_MEDIA}.layer.v1.tar", digest, entry.size)


def _add_json(archive: tarfile.TarFile, media: str, body: object) -> dict[str, object]:
    digest = hashlib.sha256(_bytes(body)).hexdigest()
    _add(archive, f"blobs/sha256/{digest}", body)
    return _descriptor(media, digest, len(_bytes(body)))


def _add(archive: tarfile.TarFile, name: str, body: object) -> None:
    entry = tarfile.TarInfo(name)
    entry.size = len(_bytes(body))
    archive.addfile(entry, io.BytesIO(_bytes(body)))


def _bytes(body: object) -> bytes:
    return json.dumps(body, separators=(",", ":")).encode()


def _descriptor(media: str, digest: str, size: int) -> dict[str, object]:
    return {"mediaType": media, "digest": f"sha256:{digest}", "size": size}
