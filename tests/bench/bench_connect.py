"""The socket hook's cost on connect(): a ClusterIP among 1, 10,000 and 50,000 services, an address
that is no service's, and no hook at all, in turn. UDP on the node itself: nothing is sent."""

import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from ipaddress import IPv4Address
from pathlib import Path

from tests.bench.report import Figure, show
from weft.bpf.build import objects_folder
from weft.bpf.features import jiffies_hz, netns_cookie
from weft.bpf.hook import Hooks, SocketPlace
from weft.bpf.layout import (
    UNSPECIFIED,
    Backend,
    Frontend,
    FrontendKey,
    Settings,
    Slot,
    SlotKey,
    pack_u32,
    pack_u64,
)
from weft.bpf.load import Datapath, open_datapath
from weft.bpf.objects import SOCKET_PROGRAMS

ROUNDS, CONNECTS, UDP, PORT = 15, 30_000, 17, 53
SIZES = (1, 10_000, 50_000)
FIRST_VIP, NODE = IPv4Address("10.96.0.1"), IPv4Address("127.0.0.1")
NO_HOOK, MISS = "no hook", "no service's address"
NODE_ENTRIES = {"frontends": 65_536, "slots": 65_536, "backends": 65_536}


def main() -> int:
    if os.geteuid() != 0:
        print("the connect bench needs root", file=sys.stderr)
        return 1
    with ExitStack() as undo:
        folder = Path(undo.enter_context(tempfile.TemporaryDirectory()))
        caller = build_caller(folder)
        cgroup = undo.enter_context(sub_cgroup(f"wt-bench-connect-{os.getpid()}"))
        pins = undo.enter_context(mounted_bpffs(folder / "bpffs")) / "weft"
        entries = NODE_ENTRIES
        datapath = undo.enter_context(
            open_datapath(pins=pins, objects=objects_folder(), entries=entries)
        )
        hooks = undo.enter_context(Hooks(datapath.programs, pins, cgroup, has_tcx=False))
        errors = hooks.attach({SocketPlace(name): name for name in SOCKET_PROGRAMS})
        assert not errors, dict(errors)
        write_settings(datapath)
        show(
            "CPU time of a UDP socket(), connect(), close()",
            figures(measure(caller, cgroup, datapath)),
        )
    return 0


def build_caller(folder: Path) -> Path:
    out = folder / "connectloop"
    source = Path(__file__).with_name("connectloop.c")
    subprocess.run(["gcc", "-O2", "-o", str(out), str(source)], check=True)
    return out


@contextmanager
def mounted_bpffs(place: Path) -> Iterator[Path]:
    place.mkdir()
    subprocess.run(["mount", "-t", "bpf", "bpf", str(place)], check=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True)


@contextmanager
def sub_cgroup(name: str) -> Iterator[Path]:
    mounts = [line.split() for line in Path("/proc/mounts").read_text().splitlines()]
    place = next(Path(words[1]) for words in mounts if words[2] == "cgroup2") / name
    place.mkdir()
    try:
        yield place
    finally:
        place.rmdir()


def write_settings(datapath: Datapath) -> None:
    none = (UNSPECIFIED, UNSPECIFIED)
    row = Settings(
        netns_cookie(), 0, 0, 0, jiffies_hz(), 0, 0, 0, *none, 0, 0, 0, 0, 0, *none, bytes(6)
    )
    datapath.tables["settings"].update({pack_u32(0): row.pack()})


def write_services(datapath: Datapath, count: int) -> None:
    """As many services of one endpoint each, and no others."""
    numbers = range(1, count + 1)
    rows = {
        "backends": {pack_u64(n): Backend(n, 0).pack() for n in numbers},
        "slots": {SlotKey(n, 0).pack(): Slot(n, NODE, PORT).pack() for n in numbers},
        "frontends": {
            FrontendKey(FIRST_VIP + n - 1, PORT, UDP).pack(): Frontend(n, 0, 1, 0, 0, 0, 0).pack()
            for n in numbers
        },
    }
    for table, wanted in rows.items():
        datapath.tables[table].delete([key for key, _ in datapath.tables[table].items()])
        datapath.tables[table].update(wanted)


def measure(caller: Path, cgroup: Path, datapath: Datapath) -> Mapping[str, list[float]]:
    """Nanoseconds by way and round. The tables are filled once for all rounds of a size, each
    beside the same round without the hook."""
    taken: dict[str, list[float]] = {}
    for size in SIZES:
        write_services(datapath, size)
        # Among the services, not the first of its bucket's neighbours.
        vip = FIRST_VIP + size // 2
        for _ in range(ROUNDS):
            taken.setdefault(f"{NO_HOOK} ({size:,})", []).append(run(caller, "-", NODE))
            taken.setdefault(f"{MISS} ({size:,})", []).append(run(caller, cgroup, NODE))
            taken.setdefault(f"a service ({size:,})", []).append(run(caller, cgroup, vip))
    return taken


def run(caller: Path, cgroup: Path | str, address: IPv4Address) -> float:
    command = [str(caller), str(cgroup), str(address), str(PORT), str(CONNECTS)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def figures(taken: Mapping[str, list[float]]) -> list[Figure]:
    def added(what: str, size: int) -> float:
        """The median of what each round took beyond the round without the hook beside it."""
        pairs = zip(taken[f"{what} ({size:,})"], taken[f"{NO_HOOK} ({size:,})"], strict=True)
        return statistics.median(with_hook - without for with_hook, without in pairs)

    hits = {size: added("a service", size) for size in SIZES}
    alone = statistics.median(taken[f"{NO_HOOK} (1)"])
    lines = [Figure("without the hook", f"{alone:,.0f} ns")]
    lines += [Figure("hook, no service's address", f"{added(MISS, 1):+,.0f} ns")]
    lines += [
        Figure(f"hook, one of {size:,} services", f"{hit:+,.0f} ns", "<= +800 ns")
        for size, hit in hits.items()
    ]
    ratio = hits[SIZES[-1]] / hits[SIZES[0]]
    lines.append(Figure(f"{SIZES[-1]:,} services against 1", f"{ratio:.2f} x", "<= 1.15 x"))
    return lines


if __name__ == "__main__":
    sys.exit(main())
