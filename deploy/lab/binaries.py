"""Builds the lab's Go binaries from the pinned modules under go/ and keeps them in a cache.

Owns the list of binaries, how each is built and where it is kept. Never runs one of them. The
cache lies outside the checkout, in a folder named by everything that decides the result, so it
serves several checkouts at once and a stale one is never picked up. Without a cache it builds.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from pathlib import Path

HERE = Path(__file__).resolve().parent
MODULES = HERE / "go"


class Module(StrEnum):
    """One go.mod under go/: they are apart because their dependencies disagree."""

    TOOLS = "tools"
    KUBERNETES = "kubernetes"


@dataclass(frozen=True, slots=True)
class Binary:
    """One executable: the name of its file and the Go package that makes it.

    is_test: the package is a suite of tests, compiled to run later.
    """

    package: str
    module: Module
    is_test: bool = False

    @property
    def name(self) -> str:
        name = self.package.removesuffix("/v2").rsplit("/", 1)[1]
        return f"{name}.test" if self.is_test else name


def _binaries(module: Module, root: str, packages: str) -> tuple[Binary, ...]:
    return tuple(Binary(f"{root}{package}", module) for package in packages.split())


_CNI = "github.com/containernetworking/"
# The order is the order of building: what tests wait for first.
PLUGINS = (
    *_binaries(Module.TOOLS, f"{_CNI}cni/", "cnitool"),
    *_binaries(
        Module.TOOLS,
        f"{_CNI}plugins/plugins/",
        "main/bridge main/ptp main/loopback ipam/host-local meta/portmap meta/bandwidth",
    ),
)
RUNTIME = _binaries(
    Module.TOOLS,
    "github.com/containerd/containerd/v2/cmd/",
    "containerd containerd-shim-runc-v2 ctr",
)
KUBERNETES = _binaries(
    Module.KUBERNETES,
    "k8s.io/kubernetes/",
    "cmd/kube-apiserver cmd/kube-controller-manager cmd/kube-scheduler cmd/kubelet"
    " cmd/kube-proxy cmd/kubectl test/images/agnhost test/images/regression-issue-74839",
)
COREDNS = _binaries(Module.TOOLS, "github.com/coredns/", "coredns")
SUITE = (
    Binary("github.com/onsi/ginkgo/v2/ginkgo", Module.KUBERNETES),
    Binary("k8s.io/kubernetes/test/e2e", Module.KUBERNETES, is_test=True),
)
"""The upstream tests and what runs them side by side."""
ALL = (*PLUGINS, *RUNTIME, *KUBERNETES, *COREDNS, *SUITE)

_VERSION_OF = {
    Module.TOOLS: "github.com/containerd/containerd/v2",
    Module.KUBERNETES: "k8s.io/kubernetes",
}


def collect(binaries: Iterable[Binary] = ALL) -> Mapping[str, Path]:
    """Name -> path of each binary, built now where the cache does not have it.

    Raises RuntimeError with the compiler's words when a build fails.
    """
    return {binary.name: _cached(binary) for binary in binaries}


def built(binary: Binary) -> Path | None:
    """Its path where the cache has it; None also where there is no `go` to tell which it would be.
    Never builds."""
    if shutil.which("go") is None:
        return None
    path = _folder(binary.module) / "bin" / binary.name
    return path if path.exists() else None


def link(binaries: Mapping[str, Path], folder: Path) -> None:
    """Makes `folder` hold one symbolic link per binary, so that it can be put on a PATH."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, target in binaries.items():
        fresh = folder / f".{name}.new"
        fresh.unlink(missing_ok=True)
        fresh.symlink_to(target)
        fresh.replace(folder / name)


def cache_root() -> Path:
    """Where every lab keeps what is slow to make: $WEFT_CACHE/lab, by default below ~/.cache."""
    default = Path.home() / ".cache" / "weft"
    return Path(os.environ.get("WEFT_CACHE") or default) / "lab"


def version(module_path: str, module: Module) -> str:
    """The version of `module_path` that go/`module` pins, as in `v1.36.3`."""
    text = (MODULES / module / "go.mod").read_text()
    found = re.search(rf"^(?:require)?\s+{re.escape(module_path)} (v\S+)", text, re.MULTILINE)
    if found is None:
        raise LookupError(f"go/{module}/go.mod does not require {module_path}")
    return found[1]


def _ldflags(module: Module) -> str:
    pinned = version(_VERSION_OF[module], module)
    if module is Module.TOOLS:
        return f"-s -w -X {_VERSION_OF[module]}/version.Version={pinned}"
    major, minor, _ = pinned.removeprefix("v").split(".", 2)
    values = {"gitVersion": pinned, "gitMajor": major, "gitMinor": minor, "gitTreeState": "clean"}
    packages = ("k8s.io/component-base/version", "k8s.io/client-go/pkg/version")
    return "-s -w " + " ".join(
        f"-X {package}.{key}={value}" for package in packages for key, value in values.items()
    )


def _arguments(module: Module) -> list[str]:
    return ["-mod=readonly", "-p", "2", "-trimpath", "-ldflags", _ldflags(module)]


@cache
def _folder(module: Module) -> Path:
    """The cache folder of one module, named by all that decides what its binaries are."""
    if shutil.which("go") is None:
        raise RuntimeError(f"no `go` on the PATH: install the release that {MODULES}/*/go.mod name")
    go = subprocess.run(["go", "version"], check=True, capture_output=True, text=True).stdout
    digest = hashlib.sha256(repr([go, ["build", *_arguments(module)], "CGO_ENABLED=0"]).encode())
    for name in ("go.mod", "go.sum"):
        digest.update((MODULES / module / name).read_bytes())
    return cache_root() / digest.hexdigest()[:16]


def _cached(binary: Binary) -> Path:
    path = _folder(binary.module) / "bin" / binary.name
    if not path.exists():
        with _locked(_folder(binary.module)):
            if not path.exists():
                _build(binary, path)
    return path


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """One build at a time per folder: two checkouts may ask for the same binary."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _build(binary: Binary, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    verb = ("test", "-vet=off", "-c") if binary.is_test else ("build",)
    with tempfile.TemporaryDirectory(dir=path.parent.parent) as scratch:
        output = Path(scratch) / binary.name
        done = subprocess.run(
            ["nice", "go", *verb, *_arguments(binary.module), "-o", str(output), binary.package],
            cwd=MODULES / binary.module,
            env={**os.environ, "CGO_ENABLED": "0"},
            capture_output=True,
            text=True,
        )
        if done.returncode:
            raise RuntimeError(f"building {binary.package} failed:\n{done.stderr[-4000:]}")
        output.replace(path)
    print(f"built {binary.name} in {time.monotonic() - started:.0f} s", file=sys.stderr, flush=True)
