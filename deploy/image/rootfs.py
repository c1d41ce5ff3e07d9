"""Makes the two folders that become the image's layers: what Weft stands on, and Weft itself.

Owns what is in the image and where. Never writes archives (`oci` does) and never compiles C: the
kernel objects and the shim come in as they are.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterable, Sequence
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]
REQUIREMENTS = CHECKOUT / "requirements" / "runtime.txt"

SUITE = "bookworm"
PYTHON = "python3.11"
"""The suite's own Python: no second one is shipped, and wheels of cp311 fit it."""
PACKAGES = (
    "python3.11-minimal",
    "libpython3.11-stdlib",
    "libstdc++6",  # grpcio
    "libbpf1",  # weft.bpf
    "iptables",  # iptables-legacy, for chains that it made (weft.proxy.apply.xtables)
    "busybox-static",  # the init steps' shell, cp and mount
)
APPLETS = (
    "sh", "cat", "chmod", "cp", "grep", "ls", "mkdir", "mount", "mv", "ping", "ps", "rm", "sed",
    "wget",
)  # fmt: skip
SITE = f"usr/local/lib/{PYTHON}/dist-packages"

# Nothing at run time reads these. The copyright files of packages stay.
_SPARE = (
    "etc/apt", "etc/cron.daily", "etc/logrotate.d", "usr/share/bug", "usr/share/gcc",
    "usr/share/info", "usr/share/lintian", "usr/share/locale", "usr/share/man",
    "usr/share/perl5", "usr/lib/x86_64-linux-gnu/gconv", "usr/lib/aarch64-linux-gnu/gconv",
    "var/cache", "var/lib/apt", "var/log",
    *(f"usr/lib/{PYTHON}/{name}" for name in (
        "ensurepip", "idlelib", "lib2to3", "pydoc_data", "test", "turtledemo", "unittest/test",
    )),
)  # fmt: skip
_SPARE_IN_SITE = (
    "bin", "*/tests", "*/test", "*/testing/_internal", "kubernetes/docs", "kubernetes/e2e_test",
    "kubernetes/aio",  # 68 MB for asyncio, which weft.proxy.watch's threads do not use
    "**/__pycache__", "**/*.pyx", "**/*.pxd", "**/*.c", "**/*.h",
)  # fmt: skip

_PASSWD = "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/nonexistent:/bin/false\n"
_GROUP = "root:x:0:\nnogroup:x:65534:\n"
_NSSWITCH = "passwd: files\ngroup: files\nhosts: files dns\n"


class ImageError(Exception):
    """A step of the recipe failed; the text says which, with the tool's last words."""


def make_base(root: Path) -> None:
    """Debian's packages and the pinned wheels under `root`, an empty folder. Needs root and apt."""
    _debian(root)
    _wheels(root / SITE)
    for spare in _SPARE:
        _remove(root / spare)
    for copyright_aside in (root / "usr/share/doc").glob("*/*"):
        if copyright_aside.name != "copyright":
            _remove(copyright_aside)
    for name, text in (("passwd", _PASSWD), ("group", _GROUP), ("nsswitch.conf", _NSSWITCH)):
        (root / "etc" / name).write_text(text)
    for applet in APPLETS:
        (root / "usr/bin" / applet).symlink_to("busybox")
    for folder in ("host", "proc", "root", "run", "sys"):
        (root / folder).mkdir(exist_ok=True)
    precompile(root, (f"/usr/lib/{PYTHON}", f"/{SITE}"))


def _debian(root: Path) -> None:
    # "extract" unpacks without running maintainer scripts: no debconf, no perl, nothing to undo.
    merged = "/usr/share/mmdebstrap/hooks/merged-usr"
    archive = root.with_suffix(".tar")
    run(
        "mmdebstrap", "--variant=extract", f"--hook-dir={merged}", "--aptopt=Acquire::Retries 3",
        f"--include={','.join(PACKAGES)}", SUITE, str(archive),
    )  # fmt: skip
    run("tar", "--extract", f"--file={archive}", f"--directory={root}", "--exclude=./dev/*")
    archive.unlink()


def _wheels(site: Path) -> None:
    run(
        sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-compile",
        "--require-hashes", "--only-binary=:all:", "--python-version=3.11",
        "--implementation=cp", f"--target={site}", f"--requirement={REQUIREMENTS}",
    )  # fmt: skip
    for pattern in _SPARE_IN_SITE:
        for path in sorted(site.glob(pattern)):
            _remove(path)


def make_weft(root: Path, base: Path, objects: Path, shim: Path) -> None:
    """Weft itself under `root`: packages, commands, kernel objects, shim. `base`: its base folder.

    Python's files are compiled by the base's interpreter, so both folders are needed.
    """
    site = root / SITE
    for package, folder in package_folders().items():
        _copy_python(CHECKOUT / folder, site.joinpath(*package.split(".")))
    _distribution(site)
    for name, module in (("weft", "weft.cli.__main__"), ("weftd", "weft.proxy.__main__")):
        _command(root / "usr/bin" / name, module)
    library = root / "usr/lib/weft"
    shutil.copytree(objects, library / "objects", ignore=shutil.ignore_patterns(".*"))
    shutil.copyfile(shim, library / "weft-cni")
    (library / "weft-cni").chmod(0o755)
    _precompile_beside(root, base)


def package_folders() -> dict[str, str]:
    """The distribution's packages -> their folders in the checkout, as pyproject.toml maps them."""
    setuptools = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["tool"]["setuptools"]
    tops: dict[str, str] = setuptools["package-dir"]
    found = {}
    for package in setuptools["packages"]:
        top = next(t for t in tops if package == t or package.startswith(f"{t}."))
        found[package] = (tops[top] + package.removeprefix(top)).replace(".", "/")
    return found


def _copy_python(source: Path, target: Path) -> None:
    target.mkdir(parents=True, exist_ok=True)
    for file in sorted(source.glob("*.py")):
        shutil.copyfile(file, target / file.name)


def _distribution(site: Path) -> None:
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]
    folder = site / f"weft-{project['version']}.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: weft\nVersion: {project['version']}\n"
        f"Summary: {project['description']}\nLicense: {project['license']}\n"
    )


def _command(path: Path, module: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        f"#!/usr/bin/{PYTHON} -I\nimport sys\n\nfrom {module} import main\n\nsys.exit(main())\n"
    )
    path.chmod(0o755)


def precompile(root: Path, folders: Sequence[str]) -> None:
    """Byte code for `folders` (as seen inside `root`), by the interpreter that will read it.

    A node's root folder is read-only, so without it every start would compile everything again.
    Unchecked: the byte code is good whatever the files' times say.
    """
    run(
        "chroot", str(root), f"/usr/bin/{PYTHON}", "-I", "-m", "compileall", "-q", "-j1",
        "--invalidation-mode=unchecked-hash", *folders,
    )  # fmt: skip


def _precompile_beside(root: Path, base: Path) -> None:
    inside = base / SITE / "weft"
    shutil.copytree(root / SITE / "weft", inside)
    try:
        precompile(base, (f"/{SITE}/weft",))
        shutil.copytree(inside, root / SITE / "weft", dirs_exist_ok=True)
    finally:
        shutil.rmtree(inside)


def run(*command: str) -> None:
    """Run one tool to its end. Raises ImageError with its last lines."""
    try:
        subprocess.run(command, check=True, stdin=subprocess.DEVNULL, capture_output=True)
    except FileNotFoundError as missing:
        raise ImageError(
            f"{command[0]} is not installed: apt-get install {command[0]}"
        ) from missing
    except subprocess.CalledProcessError as failed:
        words = _last_lines(failed.stdout + failed.stderr)
        raise ImageError(f"{' '.join(command)}: status {failed.returncode}\n{words}") from failed


def _last_lines(output: bytes) -> str:
    return "\n".join(output.decode(errors="replace").splitlines()[-15:])


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def size_bytes(folders: Iterable[Path]) -> int:
    """What the folders' files weigh, unpacked; links count nothing."""
    files = (p for folder in folders for p in folder.rglob("*"))
    return sum(p.lstat().st_size for p in files if p.is_file() and not p.is_symlink())
