"""A machine of another kernel: Debian's package, an initramfs made of this checkout, qemu.

Owns what goes into the guest and how it is run. No root file system and no network: the guest's
init mounts what the datapath needs, runs tests.kernels.inside and powers off.
"""

import gzip
import lzma
import os
import re
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from weft.bpf.build import cache_folder, objects_folder

ROOT = Path(__file__).resolve().parents[2]
MEMORY_MIB, LIMIT_S = 1024, 240
_MODULES = ("veth", "sch_ingress", "cls_bpf", "vxlan", "nf_conntrack")
_TOOLS = ("/usr/sbin/ip",)
_INIT = """\
#!/bin/busybox sh
export PATH=/bin:/usr/sbin PYTHONHOME={home} PYTHONPATH=/checkout:/checkout/build/tree
for name in sh mount mkdir insmod poweroff mknod; do /bin/busybox ln -s busybox /bin/$name; done
mkdir -p /proc /sys /dev /tmp /run/netns
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
mount -t tmpfs run /run
mount -t bpf bpf /sys/fs/bpf
mount -t cgroup2 cgroup /sys/fs/cgroup
for module in {modules}; do insmod $module; done
ip link set lo up
{python} -m tests.kernels.inside
poweroff -f
"""


class GuestError(Exception):
    """The guest could not be made or run; its console's last lines."""


@dataclass(frozen=True, slots=True)
class Kernel:
    """A kernel as Debian packages it: its image, and its modules by name."""

    release: str
    image: Path
    modules: dict[str, Path]


def kernel_of(metapackage: str) -> Kernel:
    """Debian's kernel of a metapackage, downloaded once into the cache."""
    package = _dependency(metapackage)
    folder = cache_folder() / "kernels" / package
    if not folder.is_dir():
        _unpack(package, folder)
    (image,) = (folder / "boot").glob("vmlinuz-*")
    paths = (folder / "lib/modules").rglob("*.ko*")
    return Kernel(image.name.removeprefix("vmlinuz-"), image, {_name(path): path for path in paths})


def run_guest(kernel: Kernel, folder: Path) -> str:
    """Boot the kernel with what is in this checkout; its console until power-off."""
    initrd = folder / "initrd.gz"
    with gzip.open(initrd, "wb", compresslevel=1) as out:
        out.write(_archive(_tree(kernel, folder / "root")))
    command = ["qemu-system-x86_64", "-accel", "tcg", "-cpu", "max", "-m", str(MEMORY_MIB)]
    command += ["-nographic", "-no-reboot", "-nic", "none", "-kernel", str(kernel.image)]
    command += ["-initrd", str(initrd), "-append", "console=ttyS0 panic=-1 quiet"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S)
    except FileNotFoundError as error:
        raise GuestError("qemu is not installed: apt install qemu-system-x86") from error
    except subprocess.TimeoutExpired as error:
        console = (error.stdout or b"").decode(errors="replace")
        raise GuestError(f"not done after {LIMIT_S} s:\n{console[-3000:]}") from error
    return done.stdout


def _dependency(metapackage: str) -> str:
    answer = ""
    for attempt in ("cached", "updated"):
        if attempt == "updated":
            subprocess.run(["apt-get", "update", "-q"], check=True, capture_output=True)
        shown = subprocess.run(
            ["apt-cache", "depends", metapackage], capture_output=True, text=True
        )
        answer = shown.stdout + shown.stderr
        if match := re.search(r"Depends: (linux-image-\S+)", answer):
            return match[1]
    raise GuestError(f"apt knows no {metapackage}: {answer.strip()}")


def _unpack(package: str, folder: Path) -> None:
    aside = folder.with_name(f"{folder.name}.{os.getpid()}")
    aside.mkdir(parents=True)
    try:
        # As root without apt's own user, which may not enter the cache.
        options = ["-q", "-o", "APT::Sandbox::User=root"]
        subprocess.run(["apt-get", *options, "download", package], cwd=aside, check=True)
        (archive,) = aside.glob("*.deb")
        subprocess.run(["dpkg-deb", "-x", str(archive), str(aside)], check=True)
        archive.unlink()
        os.rename(aside, folder)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _name(module: Path) -> str:
    return module.name.partition(".")[0].replace("-", "_")


def _module_bytes(path: Path) -> bytes:
    return lzma.decompress(path.read_bytes()) if path.suffix == ".xz" else path.read_bytes()


def _wanted_modules(kernel: Kernel) -> dict[str, bytes]:
    """Modules in the order of loading, each after those that it depends on."""
    found: dict[str, bytes] = {}

    def add(name: str) -> None:
        if name in found or name not in kernel.modules:
            return  # built in
        data = _module_bytes(kernel.modules[name])
        depends = re.search(rb"\0depends=([^\0]*)\0", data)
        for needed in (depends[1] if depends else b"").decode().split(","):
            add(needed.replace("-", "_"))
        found[name] = data

    for name in _MODULES:
        add(name)
    return found


def _tree(kernel: Kernel, root: Path) -> Path:
    """The guest's root folder."""
    root.mkdir()
    modules = _wanted_modules(kernel)
    (root / "modules").mkdir()
    for name, data in modules.items():
        (root / "modules" / f"{name}.ko").write_bytes(data)
    _copy(root, Path(shutil.which("busybox") or "/bin/busybox"), Path("/bin/busybox"))
    for tool in _TOOLS:
        _copy_binary(root, Path(tool))
    _copy_python(root)
    _copy_checkout(root)
    init = _INIT.format(
        home=sys.base_prefix,
        python=os.path.realpath(sys.executable),
        modules=" ".join(f"/modules/{name}.ko" for name in modules),
    )
    (root / "init").write_text(init)
    (root / "init").chmod(0o755)
    return root


def _copy(root: Path, source: Path, place: Path) -> None:
    target = root / place.relative_to("/")
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(source, target)


def _copy_binary(root: Path, path: Path) -> None:
    """A program or library with the libraries that it is linked to."""
    _copy(root, path, path)
    linked = subprocess.run(["ldd", str(path)], capture_output=True, text=True).stdout
    for library in re.findall(r"(/\S+) \(0x", linked):
        if not (root / library[1:]).exists():
            _copy(root, Path(library), Path(library))


def _copy_python(root: Path) -> None:
    """This interpreter, and of its library what the checks import."""
    _copy_binary(root, Path(os.path.realpath(sys.executable)))
    show = "import sys, runpy, encodings.ascii, tests.kernels.inside; " + (
        "print(*(m.__file__ for m in sys.modules.values() if getattr(m, '__file__', None)))"
    )
    environment = os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT}/build/tree"}
    listed = subprocess.run(
        [sys.executable, "-c", show], env=environment, capture_output=True, text=True, check=True
    )
    for name in listed.stdout.split():
        if name.startswith(sys.base_prefix) and "site-packages" not in name:
            _copy_binary(root, Path(name)) if name.endswith(".so") else _copy(
                root, Path(name), Path(name)
            )


def _copy_checkout(root: Path) -> None:
    for path in (ROOT / "bpf").glob("*.py"):
        _copy(root, path, Path("/checkout/build/tree/weft/bpf") / path.name)
    _copy(root, ROOT / "tests/kernels/inside.py", Path("/checkout/tests/kernels/inside.py"))
    shutil.copytree(objects_folder(), root / "objects")


def _archive(root: Path) -> bytes:
    """The folder in cpio's "newc" format, as the kernel unpacks it."""
    entries = [_entry(root, path) for path in sorted(root.rglob("*"))]
    device = _header("dev/console", stat.S_IFCHR | 0o600, b"", device=(5, 1))
    return b"".join([*_parents("dev"), device, *entries, _header("TRAILER!!!", 0, b"")])


def _parents(name: str) -> Iterable[bytes]:
    yield _header(name, stat.S_IFDIR | 0o755, b"")


def _entry(root: Path, path: Path) -> bytes:
    status = path.lstat()
    data = b"" if path.is_dir() else path.read_bytes()
    return _header(str(path.relative_to(root)), status.st_mode, data)


def _header(name: str, mode: int, data: bytes, device: tuple[int, int] = (0, 0)) -> bytes:
    numbers = (0, mode, 0, 0, 1, 0, len(data), 0, 0, *device, len(name) + 1, 0)
    head = b"070701" + b"".join(b"%08X" % number for number in numbers) + name.encode() + b"\0"
    return head + bytes(-len(head) % 4) + data + bytes(-len(data) % 4)


def results(console: str) -> Iterator[tuple[str, str, str]]:
    """(word, check, reason and what the guest said on the lines that follow)."""
    found = re.compile(r"^(PASS|FAIL) (\w+) ?(.*?)(?=^(?:PASS|FAIL|END))", re.M | re.S)
    for match in found.finditer(console.replace("\r", "")):
        yield match[1], match[2], match[3]
