"""The images that a lab's pods run: made here, cached, imported into each node's containerd.

Owns the recipes of pause, agnhost, CoreDNS and of what injects packets that no connection knows.
Weft's own image is not made here: it comes as the archive that `make image` writes.
"""

from __future__ import annotations

import hashlib
import subprocess
import tarfile
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from deploy.image import oci
from deploy.lab import binaries, host
from deploy.lab.node import PAUSE_IMAGE, Running

AGNHOST_IMAGE = "lab.weft.invalid/agnhost:1"
COREDNS_IMAGE = "lab.weft.invalid/coredns:1"
INJECTOR_IMAGE = "lab.weft.invalid/regression-issue-74839:1"
HERE = Path(__file__).resolve().parent

_SUITE = "bookworm"
_PACKAGES = (
    "ca-certificates,conntrack,curl,dnsutils,iperf3,iproute2,iputils-ping,netcat-openbsd,"
    "procps,socat,tcpdump,wget"
)
_LEFT_OUT = ("/usr/share/man/*", "/usr/share/doc/*", "/usr/share/locale/*", "/usr/share/info/*")


@dataclass(frozen=True, slots=True)
class Archives:
    """One OCI archive per image of the lab's own."""

    pause: Path
    coredns: Path
    agnhost: Path
    injector: Path


def collect(tools: Mapping[str, Path]) -> Archives:
    """The archives, made now where the cache does not have them."""
    agnhost = _agnhost(tools["agnhost"], tools["coredns"])
    injector = _alone(INJECTOR_IMAGE, tools["regression-issue-74839"])
    return Archives(_pause(), _alone(COREDNS_IMAGE, tools["coredns"]), agnhost, injector)


def import_archive(node: Running, archive: Path, *, timeout_s: float = 120) -> None:
    """Puts an image into a node's containerd, where kubelet finds it without pulling."""
    with archive.open("rb") as content:
        done = subprocess.run(
            [*node.words(), "ctr", "--namespace=k8s.io", "images", "import", "--local", "-"],
            stdin=content,
            capture_output=True,
            text=True,
            timeout=timeout_s,
        )
    if done.returncode:
        raise RuntimeError(f"node {node.node.name} refused {archive}: {done.stderr.strip()}")


def _cache(name: str, *inputs: object) -> Path:
    """Where an archive made of these inputs is kept."""
    digest = hashlib.sha256(repr(inputs).encode()).hexdigest()[:16]
    folder = binaries.cache_root() / "images"
    folder.mkdir(parents=True, exist_ok=True)
    return folder / f"{name}.{digest}.tar"


def _pause() -> Path:
    source = HERE / "pause.c"
    archive = _cache("pause", source.read_text())
    if not archive.exists():
        with tempfile.TemporaryDirectory() as scratch:
            binary = Path(scratch) / "pause"
            host.run("gcc", "-Os", "-static", "-s", "-Wall", "-o", binary, source)
            layer = _layer(Path(scratch), {"/pause": binary})
            _write(archive, PAUSE_IMAGE, (layer,), "/pause")
    return archive


def _alone(image: str, binary: Path) -> Path:
    """An image of one static binary, which it starts."""
    archive = _cache(binary.name, binary)
    if not archive.exists():
        with tempfile.TemporaryDirectory() as scratch:
            entrypoint = f"/{binary.name}"
            layer = _layer(Path(scratch), {entrypoint: binary})
            _write(archive, image, (layer,), entrypoint)
    return archive


def _agnhost(agnhost: Path, coredns: Path) -> Path:
    """The upstream tests' image: the binary, the files that its commands read, and a shell."""
    archive = _cache("agnhost", agnhost, coredns, _PACKAGES, _LEFT_OUT)
    if not archive.exists():
        porter = _kubernetes_source() / "test/images/agnhost/porter"
        files = {
            "/agnhost": agnhost,
            "/coredns": coredns,
            "/localhost.crt": porter / "localhost.crt",
            "/localhost.key": porter / "localhost.key",
        }
        with tempfile.TemporaryDirectory() as scratch:
            links = {"/agnhost-2": "agnhost"}
            layer = _layer(Path(scratch), files, folders=("/uploads",), links=links)
            _write(archive, AGNHOST_IMAGE, (_debian(), layer), "/agnhost", "pause")
    return archive


def _debian() -> Path:
    """A minimal Debian root folder with the network tools, as one tar file."""
    layer = _cache("debian", _SUITE, _PACKAGES, _LEFT_OUT)
    if not layer.exists():
        fresh = layer.with_suffix(".new.tar")
        options = [f"--dpkgopt=path-exclude={pattern}" for pattern in _LEFT_OUT]
        options += [f"--include={_PACKAGES}", '--aptopt=Acquire::Languages "none"']
        words = ["nice", "mmdebstrap", "--variant=minbase", *options, _SUITE]
        host.run(*words, fresh, *_apt_sources(), timeout_s=900)
        fresh.replace(layer)
    return layer


def _apt_sources() -> list[str]:
    """This machine's own Debian sources, so that a mirror it uses is used; else the default's."""
    candidates = ("/etc/apt/sources.list.d/debian.sources", "/etc/apt/sources.list")
    return [path for path in candidates if Path(path).exists() and Path(path).stat().st_size][:1]


def _kubernetes_source() -> Path:
    words = ["go", "list", "-m", "-f", "{{.Dir}}", "k8s.io/kubernetes"]
    folder = binaries.MODULES / binaries.Module.KUBERNETES
    done = subprocess.run(words, cwd=folder, check=True, capture_output=True, text=True)
    return Path(done.stdout.strip())


def _write(archive: Path, name: str, layers: Sequence[Path], entrypoint: str, *words: str) -> None:
    image = oci.Image(
        name=name,
        full_name=name,
        entrypoint=(entrypoint,),
        environment={"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"},
        labels={},
        command=words,
    )
    oci.write_archive(archive, image, [oci.plain_layer(layer) for layer in layers])


def _layer(
    scratch: Path,
    files: Mapping[str, Path],
    *,
    folders: Sequence[str] = (),
    links: Mapping[str, str] = MappingProxyType({}),
) -> Path:
    """A tar file with these files, owned by root and executable, these empty folders and links."""
    path = scratch / "layer.tar"
    with tarfile.open(path, "w") as layer:
        for folder in folders:
            entry = tarfile.TarInfo(folder.lstrip("/"))
            entry.type, entry.mode = tarfile.DIRTYPE, 0o777
            layer.addfile(entry)
        for link, target in links.items():
            entry = tarfile.TarInfo(link.lstrip("/"))
            entry.type, entry.linkname = tarfile.SYMTYPE, target
            layer.addfile(entry)
        for inside, source in files.items():
            with source.open("rb") as content:
                entry = tarfile.TarInfo(inside.lstrip("/"))
                entry.size, entry.mode = source.stat().st_size, 0o755
                layer.addfile(entry, content)
    return path
