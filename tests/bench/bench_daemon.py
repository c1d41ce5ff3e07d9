"""The daemon at size: cold to serving, memory, from an EndpointSlice event to the map and to the
first packet that goes by it.

usage: bench_daemon.py [SERVICESxENDPOINTS ...]. A stand-in API server lists a generated cluster;
the daemon, its watches and its tables are the real ones. Resident size and time are read from
outside, metrics over HTTP inside the node.
"""

import json
import os
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any, NamedTuple

from deploy.netlab import Lab, LabNode
from deploy.netlab.node import ANSWER
from deploy.netlab.shell import attempt, stop, wait_for
from tests.bench import apiserver
from tests.bench.report import Figure, show
from weft.bpf.layout import TABLES, Frontend, FrontendKey
from weft.bpf.syscall import open_pin
from weft.bpf.table import KernelTable

PORT, SERVER_PORT = 18080, 8080
NODE_ADDRESS = "172.30.0.1"
EVENTS = 40

# A line "HOST PORT" is answered by the time of the first connection there that is accepted.
DIALLING = """
import socket, sys, time
for line in sys.stdin:
    host, port = line.split()
    while True:
        with socket.socket() as s:
            if s.connect_ex((host, int(port))) == 0:
                break
    print(time.monotonic(), flush=True)
"""


class Size(NamedTuple):
    """A generated cluster, and what the design wants of a daemon that it is given to."""

    services: int
    endpoints: int
    cold: str = ""
    warm: str = ""
    resident: str = ""

    def __str__(self) -> str:
        return f"{self.services:,} services x {self.endpoints}"


SIZES = (
    Size(10, 10, resident="<= 90 MB"),
    Size(10_000, 10, "<= 5 s", "<= 2 s", "<= 200 MB"),
    Size(5_000, 50, "<= 15 s"),
    Size(44_000, 1, "<= 10 s"),
)


def main(argv: Sequence[str]) -> int:
    pairs = [text.partition("x") for text in argv]
    sizes = [Size(int(services), int(endpoints)) for services, _, endpoints in pairs] or SIZES
    figures = [figure for size in sizes for figure in at_size(size)]
    show("The daemon at size", figures)
    return 0


def at_size(size: Size) -> list[Figure]:
    with ExitStack() as undo:
        lab = undo.enter_context(Lab(f"wb{os.getpid()}-{size.services}"))
        node = lab.add_node("east")
        api = serve(undo, node, size)
        node.flags = ("--source", "kube", "--api-servers", f"http://127.0.0.1:{PORT}")
        cold_s = timed(lambda: start(node, size))
        resident = resident_mb(node)
        to_map = [event_ms(api, node, size, turn) for turn in range(EVENTS)]
        to_packet = packets_ms(undo, api, node, size)
        node.kill()
        warm_s = timed(lambda: start(node, size))
    return [
        Figure(f"{size}: cold to serving", f"{cold_s:.2f} s", size.cold),
        Figure(f"{size}: warm restart to in sync", f"{warm_s:.2f} s", size.warm),
        Figure(f"{size}: resident", f"{resident:.0f} MB", size.resident),
        *spread(f"{size}: slice event to map", to_map, "<= 20 ms", "<= 100 ms"),
        *spread(f"{size}: slice event to first packet", to_packet, "", "<= 200 ms"),
    ]


def spread(what: str, delays_ms: Sequence[float], median: str, worst: str) -> list[Figure]:
    ordered = sorted(delays_ms)
    last = ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))]
    return [
        Figure(f"{what}, p50", f"{statistics.median(ordered):.1f} ms", median),
        Figure(f"{what}, p99", f"{last:.1f} ms", worst),
    ]


def serve(undo: ExitStack, node: LabNode, size: Size) -> "subprocess.Popen[bytes]":
    argv = (sys.executable, apiserver.__file__, str(PORT), str(size.services), str(size.endpoints))
    server = subprocess.Popen(node.command(*argv), stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    undo.callback(lambda: stop(server))
    assert server.stdout
    server.stdout.readline()
    return server


def timed(work: Callable[[], None]) -> float:
    began = time.monotonic()
    work()
    return time.monotonic() - began


def start(node: LabNode, size: Size) -> None:
    """Until every slot of the generated cluster is in the kernel and the daemon says: in order.

    A warm start finds the slots there; that all was listed and compared is what it must say.
    """
    node.start(timeout_s=300)
    with kernel_table(node, "slots") as slots:
        expected = size.services * size.endpoints
        wait_for("serving", lambda: len(slots) >= expected, timeout_s=300)
    status = node.weft_command("status")
    wait_for("in order", lambda: attempt(*status).returncode == 0, timeout_s=300)


def kernel_table(node: LabNode, name: str) -> KernelTable:
    (pin,) = (node.folder / "bpf" / "weft" / "maps").glob(f"{name}-*")
    return KernelTable(TABLES[name], open_pin(pin))


def resident_mb(node: LabNode) -> float:
    assert node.daemon
    with open(f"/proc/{node.daemon.pid}/status") as status:
        kib = next(int(line.split()[1]) for line in status if line.startswith("VmRSS"))
    return kib / 1024


def event_ms(api: "subprocess.Popen[bytes]", node: LabNode, size: Size, turn: int) -> float:
    """One endpoint more or fewer in one service: milliseconds until the frontend's row says so."""
    number, spare = size.services // 2, 1 + turn % 2
    began_s = tell(api, apiserver.slice_of(number, size.endpoints, spare), turn)
    key = FrontendKey(apiserver.FIRST_VIP + number, 80, socket.IPPROTO_TCP).pack()
    with kernel_table(node, "frontends") as frontends:
        expected = size.endpoints + spare
        wait_for("the event", lambda: backends(frontends.lookup(key)) == expected)
    return (time.monotonic() - began_s) * 1000


def packets_ms(
    undo: ExitStack, api: "subprocess.Popen[bytes]", node: LabNode, size: Size
) -> list[float]:
    """A service gets its only endpoint, again and again: milliseconds until it is reached, by a
    client that tries without a pause.
    """
    ready = node.folder / "run" / "server.ready"
    argv = (sys.executable, ANSWER, "server", str(SERVER_PORT), ready)
    server = subprocess.Popen(node.command(*argv), stderr=subprocess.DEVNULL)
    undo.callback(lambda: stop(server))
    wait_for("the server", ready.exists)
    client = subprocess.Popen(
        node.command(sys.executable, "-c", DIALLING), stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    undo.callback(lambda: stop(client))
    return [packet_ms(api, client, node, size.services // 3, turn) for turn in range(EVENTS)]


def packet_ms(
    api: "subprocess.Popen[bytes]",
    client: "subprocess.Popen[bytes]",
    node: LabNode,
    number: int,
    turn: int,
) -> float:
    vip, item = apiserver.FIRST_VIP + number, apiserver.slice_of(number, 0)
    tell(api, item, EVENTS + 2 * turn)
    key = FrontendKey(vip, 80, socket.IPPROTO_TCP).pack()
    with kernel_table(node, "frontends") as frontends:
        wait_for("no endpoint", lambda: backends(frontends.lookup(key)) == 0)
    assert client.stdin
    assert client.stdout
    client.stdin.write(f"{vip} 80\n".encode())
    client.stdin.flush()
    item["endpoints"] = [{"addresses": [NODE_ADDRESS], "nodeName": "east"}]
    began_s = tell(api, item, EVENTS + 2 * turn + 1)
    return (float(client.stdout.readline()) - began_s) * 1000


def tell(api: "subprocess.Popen[bytes]", item: dict[str, Any], version: int) -> float:
    """Have the API say it; when that was."""
    item["metadata"]["resourceVersion"] = str(version + 2)
    order = {"path": apiserver.SLICES, "event": {"type": "MODIFIED", "object": item}}
    assert api.stdin
    began_s = time.monotonic()
    api.stdin.write(json.dumps(order).encode() + b"\n")
    api.stdin.flush()
    return began_s


def backends(value: bytes | None) -> int:
    return Frontend.unpack(value).backends if value else -1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
