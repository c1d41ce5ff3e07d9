"""The daemon at size: cold to serving, memory, and from an EndpointSlice event to the map.

A stand-in API server lists a generated cluster; the daemon, its watches and its tables are the
real ones. Resident size and time are read from outside, metrics over HTTP inside the node.
"""

import json
import os
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack

from deploy.netlab import Lab, LabNode
from deploy.netlab.shell import attempt, stop, wait_for
from tests.bench import apiserver
from tests.bench.report import Figure, show
from weft.bpf.layout import TABLES, Frontend, FrontendKey
from weft.bpf.syscall import open_pin
from weft.bpf.table import KernelTable

PORT = 18080
ENDPOINTS = 10
EVENTS = 40


def main() -> int:
    figures = []
    for services in (10, 10_000):
        figures += at_size(services)
    show("The daemon, 10 endpoints to a service", figures)
    return 0


def at_size(services: int) -> list[Figure]:
    with ExitStack() as undo:
        lab = undo.enter_context(Lab(f"wb{os.getpid()}-{services}"))
        node = lab.add_node("east")
        server = serve(undo, node, services)
        node.flags = ("--source", "kube", "--api-servers", f"http://127.0.0.1:{PORT}")
        cold_s = timed(lambda: start(node, services))
        resident = resident_mb(node)
        delays = [event_ms(server, node, services, turn) for turn in range(EVENTS)]
        node.kill()
        warm_s = timed(lambda: start(node, services))
    median, worst = statistics.median(delays), sorted(delays)[int(EVENTS * 0.99)]
    label = f"{services:,} services"
    big = services > 1000
    return [
        Figure(f"{label}: cold to serving", f"{cold_s:.2f} s", "<= 5 s" if big else ""),
        Figure(f"{label}: warm restart to in sync", f"{warm_s:.2f} s", "<= 2 s" if big else ""),
        Figure(f"{label}: resident", f"{resident:.0f} MB", "<= 200 MB" if big else "<= 90 MB"),
        Figure(f"{label}: slice event to map, p50", f"{median:.1f} ms", "<= 20 ms"),
        Figure(f"{label}: slice event to map, p99", f"{worst:.1f} ms", "<= 100 ms"),
    ]


def serve(undo: ExitStack, node: LabNode, services: int) -> "subprocess.Popen[bytes]":
    argv = (sys.executable, apiserver.__file__, str(PORT), str(services), str(ENDPOINTS))
    server = subprocess.Popen(node.command(*argv), stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    undo.callback(lambda: stop(server))
    assert server.stdout
    server.stdout.readline()
    return server


def timed(work: Callable[[], None]) -> float:
    began = time.monotonic()
    work()
    return time.monotonic() - began


def start(node: LabNode, services: int) -> None:
    """Until every slot of the generated cluster is in the kernel and the daemon says: in order.

    A warm start finds the slots there; that all was listed and compared is what it must say.
    """
    node.start(timeout_s=120)
    with kernel_table(node, "slots") as slots:
        expected = services * ENDPOINTS
        wait_for("serving", lambda: len(slots) >= expected, timeout_s=120)
    status = node.weft_command("status")
    wait_for("in order", lambda: attempt(*status).returncode == 0, timeout_s=120)


def kernel_table(node: LabNode, name: str) -> KernelTable:
    (pin,) = (node.folder / "bpf" / "weft" / "maps").glob(f"{name}-*")
    return KernelTable(TABLES[name], open_pin(pin))


def resident_mb(node: LabNode) -> float:
    assert node.daemon
    with open(f"/proc/{node.daemon.pid}/status") as status:
        kib = next(int(line.split()[1]) for line in status if line.startswith("VmRSS"))
    return kib / 1024


def event_ms(server: "subprocess.Popen[bytes]", node: LabNode, services: int, turn: int) -> float:
    """One endpoint more or fewer in one service: milliseconds until the frontend's row says so."""
    spare = 1 + turn % 2
    item = apiserver.slice_of(services // 2, ENDPOINTS, spare)
    item["metadata"]["resourceVersion"] = str(turn + 2)
    order = {"path": apiserver.SLICES, "event": {"type": "MODIFIED", "object": item}}
    assert server.stdin
    began = time.monotonic()
    server.stdin.write(json.dumps(order).encode() + b"\n")
    server.stdin.flush()
    with kernel_table(node, "frontends") as frontends:
        vip = apiserver.FIRST_VIP + services // 2
        key = FrontendKey(vip, 80, socket.IPPROTO_TCP).pack()
        wait_for("the event", lambda: backends(frontends.lookup(key)) == ENDPOINTS + spare)
    return (time.monotonic() - began) * 1000


def backends(value: bytes | None) -> int:
    return Frontend.unpack(value).backends if value else -1


if __name__ == "__main__":
    sys.exit(main())
