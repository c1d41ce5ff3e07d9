"""Owns TCP throughput over the ways of the path benches, and what it shows of segmentation: the
mean size of the packets that our programs saw."""

import json
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from statistics import mean

from deploy.netlab import LabNode
from deploy.netlab.shell import CommandFailed, attempt, run, stop, wait_for
from tests.bench.report import Figure
from tests.bench.way import TCP_PORT, Way, inside
from weft.cli.client import daemon
from weft.proxy.api import weft_pb2 as pb

ROUNDS, BYTES = 2, "200M"
# Programs that carried less than this share of what the busiest did saw answers only.
SHARE = 0.1
# By program, of all nodes of a way: packets and bytes.
Counts = dict[str, tuple[int, int]]


def require_iperf3() -> None:
    if not shutil.which("iperf3"):
        sys.exit("the throughput bench needs iperf3: make bench installs it")


def serve(undo: ExitStack, namespace: str) -> None:
    """One iperf3 server, for one client after the other."""
    argv = (*inside(namespace), "iperf3", "--server", "--port", str(TCP_PORT))
    process = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    undo.callback(lambda: stop(process))


def await_way(way: Way) -> None:
    """Until a connection comes through: the server listens, services and policies are in force."""
    argv = ("--bytes", "1")
    wait_for(way.name, lambda: attempt(*client(way, *argv)).returncode == 0)


def client(way: Way, *argv: str) -> tuple[str, ...]:
    to = ("--client", way.address, "--port", str(way.ports[1]), "--connect-timeout", "1000")
    return way.command("iperf3", *to, *argv)


def measure(ways: Sequence[Way]) -> tuple[dict[str, float], dict[str, Counts]]:
    """Mean Gbit/s by way, taken in turn, and what our programs counted."""
    rates: dict[str, list[float]] = {way.name: [] for way in ways}
    counts: dict[str, Counts] = {}
    for _ in range(ROUNDS):
        for way in ways:
            before = counted(way.nodes)
            rates[way.name].append(gbit_per_s(way))
            counts[way.name] = added(before, counted(way.nodes))
    return {name: mean(values) for name, values in rates.items()}, counts


def gbit_per_s(way: Way) -> float:
    said = json.loads(run(*client(way, "--bytes", BYTES, "--json")))
    if "end" not in said or "sum_received" not in said["end"]:
        raise CommandFailed(f"iperf3 over {way.name}: {said.get('error', 'no result')}")
    return float(said["end"]["sum_received"]["bits_per_second"]) / 1e9


def counted(nodes: Sequence[LabNode]) -> Counts:
    found: Counts = {}
    for node in nodes:
        with daemon(str(node.api_socket)) as weft:
            for one in weft.ListCounters(pb.ListCountersRequest()).items:
                packets, size = found.get(one.direction, (0, 0))
                found[one.direction] = packets + one.packets, size + one.bytes
    return found


def added(before: Counts, after: Counts) -> Counts:
    differences = {}
    for name, (packets, size) in after.items():
        packets_before, size_before = before.get(name, (0, 0))
        differences[name] = packets - packets_before, size - size_before
    return differences


def figures(
    ways: Sequence[Way], rates: Mapping[str, float], counts: Mapping[str, Counts]
) -> list[Figure]:
    lines = []
    for way in ways:
        lines.append(Figure(way.name, f"{rates[way.name]:.1f} Gbit/s"))
        for peer in way.against:
            lines.append(Figure(f"  against {peer}", f"{rates[way.name] / rates[peer]:.2f} x"))
        if way.nodes:
            lines.append(Figure("  bytes per packet", sizes(counts[way.name])))
    return lines


def sizes(counts: Counts) -> str:
    """Above the link's 1,500: packets went through whole, to be segmented later or never."""
    most = max(size for _, size in counts.values())
    return ", ".join(
        f"{name} {size / packets:,.0f}"
        for name, (packets, size) in counts.items()
        if packets and size >= SHARE * most
    )
