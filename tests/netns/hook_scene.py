"""A node in a network namespace of its own for tests of hooks: pods, pins, a cgroup, a loader."""

import ctypes
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from weft.bpf.hook import Hooks
from weft.bpf.layout import Counter, pack_u32
from weft.bpf.load import Datapath, open_datapath

SMALL = {"flows": 1_024, "translations": 1_024, "snat": 1_024, "sockets": 1_024}
_libc = ctypes.CDLL(None, use_errno=True)


def run(*words: str) -> str:
    return subprocess.run(words, check=True, capture_output=True, text=True).stdout


def wait_for(condition: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < end, f"waited 5 s for {what}"
        time.sleep(0.005)


def wait_until_carrying(*links: str, namespace: str = "") -> None:
    """Of a veth pair that was just set up, the end that was first gets its queue from a worker of
    the kernel (net/core/link_watch.c, 6.18); until then it loses frames without a word.

    namespace: a named one; "": this thread's.
    """
    place = ("-n", namespace) if namespace else ()

    def carry() -> bool:
        shown = (run("ip", *place, "-json", "link", "show", "dev", link) for link in links)
        return all('"operstate":"UP"' in one for one in shown)

    wait_for(carry, f"{', '.join(links)} to carry frames")


@contextmanager
def namespace(name: str) -> Iterator[str]:
    run("ip", "netns", "add", name)
    try:
        yield name
    finally:
        run("ip", "netns", "delete", name)


@contextmanager
def inside(name: str) -> Iterator[None]:
    """This thread in the namespace, and back."""
    with open("/proc/self/ns/net") as home, open(f"/run/netns/{name}") as there:
        assert _libc.setns(there.fileno(), 0) == 0
        try:
            yield
        finally:
            assert _libc.setns(home.fileno(), 0) == 0


@dataclass(frozen=True, slots=True)
class Node:
    """This process in a namespace of its own, with pods in others."""

    name: str
    pins: Path
    cgroup: Path
    objects: Path
    stack: ExitStack

    def add_pod(self, number: int) -> int:
        """A pod at 10.9.<number>.2 behind a veth; the host end's ifindex."""
        pod = self.stack.enter_context(namespace(f"{self.name}-p{number}"))
        link, prefix = f"host{number}", f"10.9.{number}"
        run("ip", "link", "add", link, "type", "veth", "peer", "name", "eth0", "netns", pod)
        run("ip", "address", "add", f"{prefix}.1/24", "dev", link)
        run("ip", "link", "set", link, "up")
        run("ip", "-n", pod, "address", "add", f"{prefix}.2/24", "dev", "eth0")
        run("ip", "-n", pod, "link", "set", "eth0", "up")
        return socket.if_nametoindex(link)

    @contextmanager
    def daemon(self, *, has_tcx: bool = True) -> Iterator[tuple[Datapath, Hooks]]:
        with (
            open_datapath(pins=self.pins, objects=self.objects, entries=SMALL) as datapath,
            Hooks(datapath.programs, self.pins, self.cgroup, has_tcx=has_tcx) as hooks,
        ):
            yield datapath, hooks


@contextmanager
def mounted_bpffs(place: Path) -> Iterator[Path]:
    place.mkdir()
    run("mount", "-t", "bpf", "bpf", str(place))
    try:
        yield place
    finally:
        run("umount", "--lazy", str(place))


@contextmanager
def sub_cgroup(name: str) -> Iterator[Path]:
    """A cgroup of cgroup2 that stands for a node's root."""
    mounts = [line.split() for line in Path("/proc/mounts").read_text().splitlines()]
    place = next(Path(words[1]) for words in mounts if words[2] == "cgroup2") / name
    place.mkdir()
    try:
        yield place
    finally:
        place.rmdir()


def packets(datapath: Datapath, index: int) -> int:
    row = datapath.tables["counters"].lookup(pack_u32(index))
    assert row is not None
    size = Counter.SIZE
    return sum(Counter.unpack(row[at : at + size]).packets for at in range(0, len(row), size))
