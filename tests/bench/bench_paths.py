"""CPU per packet and TCP throughput of every path, in each mode where it differs, against the
kernel's own ways of the same shape.

One thread sends to a socket that nobody reads, so its CPU time is the path's; the ways are run in
turn (ABAB) and the medians' ratio is what counts.
"""

import os
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

from deploy.netlab.shell import run, stop
from tests.bench import throughput
from tests.bench.ours import all_ours
from tests.bench.peers import all_peers
from tests.bench.report import Figure, show
from tests.bench.way import UDP_PORT, Way, inside

ROUNDS, PACKETS = 7, 20_000
HOLD = "import socket,sys,time\ns=socket.socket(socket.AF_INET6,socket.SOCK_DGRAM)\n" \
       "s.bind(('::',int(sys.argv[1])))\nprint(flush=True)\ntime.sleep(3600)"  # fmt: skip


def main() -> int:
    throughput.require_iperf3()
    prefix = f"wb{os.getpid()}"
    with ExitStack() as undo:
        sender = build_sender()
        ways = [*all_peers(undo, prefix), *all_ours(undo, prefix)]
        for receiver in {way.receiver for way in ways}:
            hold(undo, receiver)
            throughput.serve(undo, receiver)
        for way in ways:
            throughput.await_way(way)
        show("CPU per packet (UDP, 64 bytes)", figures(ways, measure(sender, ways)))
        show("throughput (TCP, one stream)", throughput.figures(ways, *throughput.measure(ways)))
    return 0


def build_sender() -> Path:
    out = Path("build/udpsend")
    out.parent.mkdir(exist_ok=True)
    run("gcc", "-O2", "-o", out, Path(__file__).with_name("udpsend.c"))
    return out.resolve()


def hold(undo: ExitStack, receiver: str) -> None:
    """A UDP socket bound in the receiver's namespace, never read."""
    process = subprocess.Popen(
        [*inside(receiver), sys.executable, "-c", HOLD, str(UDP_PORT)], stdout=subprocess.PIPE
    )
    undo.callback(lambda: stop(process))
    assert process.stdout
    process.stdout.readline()


def measure(sender: Path, ways: Sequence[Way]) -> dict[str, list[float]]:
    """Nanoseconds of CPU per packet, a list per way. The first round warms up and is dropped; it
    shows that the packets arrive."""
    for way in ways:
        prove(sender, way)
    times: dict[str, list[float]] = {way.name: [] for way in ways}
    for _ in range(ROUNDS):
        for way in ways:
            times[way.name].append(cpu_ns(sender, way))
    return times


def prove(sender: Path, way: Way) -> None:
    """A path that drops is a fast one. Some are lost where the machine is busy."""
    before = overflowed(way)
    cpu_ns(sender, way)
    arrived = overflowed(way) - before
    if arrived < PACKETS / 2:
        raise RuntimeError(f"{way.name}: only {arrived} of {PACKETS} packets arrived")


def cpu_ns(sender: Path, way: Way) -> float:
    said = run(*way.command(str(sender), way.address, str(way.ports[0]), str(PACKETS))).split()
    if int(said[1]) != PACKETS:
        raise RuntimeError(f"{way.name}: only {said[1]} of {PACKETS} packets were sent")
    return float(said[0])


def overflowed(way: Way) -> int:
    """What reached the receiver's socket, which is full."""
    name = "UdpRcvbufErrors" if way.version == 4 else "Udp6RcvbufErrors"
    said = run(*inside(way.receiver), "nstat", "--ignore", "--noupdate", "--zeros", name)
    return int(said.split(name)[1].split()[0])


def figures(ways: Sequence[Way], times: Mapping[str, Sequence[float]]) -> list[Figure]:
    median = {name: statistics.median(values) for name, values in times.items()}
    lines = []
    for way in ways:
        lines.append(Figure(way.name, f"{median[way.name]:,.0f} ns"))
        for peer, goal in way.against.items():
            ratio = median[way.name] / median[peer]
            lines.append(Figure(f"  against {peer}", f"{ratio:.2f} x", goal))
    return lines


if __name__ == "__main__":
    sys.exit(main())
