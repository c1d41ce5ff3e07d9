"""Connections through a ClusterIP against kube-proxy's backends, and how long a new endpoint waits
for its first packet, with one Service and with 10,000.

Three clusters alike, each with the objects of its own stand-in API server; the ways are run in turn
(ABAB) and the medians' ratios count. `here` is a pod of the client's node, `there` another node's.
"""

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path

from deploy.netlab import Lab, Pod, manifests
from deploy.netlab.manifests import Manifest
from deploy.netlab.shell import in_namespace, run, stop, wait_for
from tests.bench.report import Figure, show
from tests.twin import apiserver
from tests.twin.proxy import API_PORT, ApiServer, ProxyLab, ProxyMode, kube_proxy

SIZES = (1, 10_000)
ROUNDS, CONNECTIONS, EXCHANGES = 7, 2_000, 10_000
OURS = "Weft"
PEERS = ("iptables", "nftables")
SETTLES_S = 240
# kube-proxy waits a second after each sync, and at size its syncs take longer.
EVENTS = {OURS: 100, "iptables": 6, "nftables": 6}
FIRST_VIP, PORT, TARGET = IPv4Address("10.96.4.0"), 80, 8080
WAYS = {"here": "10.96.3.1", "there": "10.96.3.2"}
MOVING = "10.96.3.3"
GOALS = {1: ">= 1.0 x", 10_000: ">= 1.5 x"}


@dataclass(frozen=True, slots=True)
class Side:
    """One cluster: who serves its Services, and whom it asks."""

    name: str
    lab: Lab
    api: ApiServer
    client: Pod
    pods: Mapping[str, Pod]

    def ask(self, tool: Path, what: str, address: str, count: int) -> float:
        """Seconds."""
        return float(self.client.run(tool, what, address, str(PORT), str(count)))

    def is_served(self, tool: Path, address: str) -> bool:
        argv = (tool, "connect", address, str(PORT), "1")
        return self.client.attempt(*argv).returncode == 0


def main() -> int:
    if kube_proxy() is None:
        sys.exit("the services bench needs kube-proxy: make lab-binaries")
    with ExitStack() as undo:
        tool = build_tool()
        sides = [weft(undo), *(peer(undo, backend) for backend in PEERS)]
        for side in sides:
            serve(undo, side, tool)
            for item in basic_services(side):
                side.api.put(item)
        filled = 0
        for size in SIZES:
            fill(sides, filled, size)
            filled = size
            settle(sides, tool, size)
            title = f"Services, {size:,} of them"
            show(f"{title}: through a ClusterIP", rates(sides, tool, size))
            show(f"{title}: from a slice to the first packet", delays(sides, tool, size))
    return 0


def build_tool() -> Path:
    out = Path("build/shortconn")
    out.parent.mkdir(exist_ok=True)
    run("gcc", "-O2", "-o", out, Path(__file__).with_name("shortconn.c"))
    return out.resolve()


# --- The clusters ---------------------------------------------------------------------------------
def weft(undo: ExitStack) -> Side:
    lab = undo.enter_context(Lab(f"wb{os.getpid()}w", mode="direct", families=(4,)))
    argv = (sys.executable, apiserver.__file__, str(API_PORT))
    api = ApiServer(in_namespace(lab.switch, lab.cgroup, argv))
    undo.callback(api.close)
    api.put(manifests.namespace("default"))
    lab.manifests.followers.append(api)
    for name in ("east", "west"):
        node = lab.add_node(name)
        url = f"http://{lab.outside[0]}:{API_PORT}"
        node.flags = ("--source", "kube", "--api-servers", url)
        node.launch()
    for node in lab.nodes:
        node.await_ready(timeout_s=SETTLES_S)
    return cast_of(OURS, lab, api)


def peer(undo: ExitStack, backend: str) -> Side:
    lab = undo.enter_context(ProxyLab(f"wb{os.getpid()}{backend[0]}", families=(4,)))
    for name in ("east", "west"):
        lab.add_node(name)
    lab.start(ProxyMode(backend))
    return cast_of(backend, lab, lab.api)


def cast_of(name: str, lab: Lab, api: ApiServer) -> Side:
    east, west = lab.nodes
    client = east.add_pod("client")
    # More ports than a bench leaves behind.
    ports = ("net.ipv4.ip_local_port_range=10000 60000", "net.ipv4.tcp_tw_reuse=1")
    client.run("sysctl", "-qw", *ports)
    return Side(
        name, lab, api, client, {"here": east.add_pod("here"), "there": west.add_pod("there")}
    )


def serve(undo: ExitStack, side: Side, tool: Path) -> None:
    for name, pod in side.pods.items():
        argv = pod.command(tool, "serve", name[0], str(TARGET))
        undo.callback(stop, subprocess.Popen(argv))


# --- Their Services -------------------------------------------------------------------------------
def basic_services(side: Side) -> Iterator[Manifest]:
    for name, vip in WAYS.items():
        yield service(name, vip)
        yield slice_of(name, side.pods[name])
    yield service("moving", MOVING)
    yield slice_of("moving", side.pods["here"])


def fill(sides: Sequence[Side], filled: int, size: int) -> None:
    """As many Services as `size`, beside those that are asked; each has one endpoint."""
    for number in range(filled, size):
        for side in sides:
            side.api.put(service(f"s{number}", str(FIRST_VIP + number)))
            side.api.put(slice_of(f"s{number}", side.pods["here"]))


def settle(sides: Sequence[Side], tool: Path, size: int) -> None:
    """Until the last one is served everywhere."""
    for side in sides:
        for address in (*WAYS.values(), MOVING, str(FIRST_VIP + size - 1)):
            wait_for(
                f"{side.name} serves {address}",
                lambda side=side, address=address: side.is_served(tool, address),  # type: ignore[misc]
                timeout_s=SETTLES_S,
            )


def service(name: str, vip: str) -> Manifest:
    return manifests.service(name, "default", [vip], [("tcp", "TCP", PORT)])


def slice_of(name: str, pod: Pod) -> Manifest:
    ports = [("tcp", "TCP", TARGET)]
    return manifests.endpoint_slice(name, "default", name, list(pod.addresses), ports)


# --- The figures ----------------------------------------------------------------------------------
def rates(sides: Sequence[Side], tool: Path, size: int) -> list[Figure]:
    figures = []
    for what, count, unit in (
        ("connect", CONNECTIONS, "connections"),
        ("rr", EXCHANGES, "exchanges"),
    ):
        for way, vip in WAYS.items():
            taken: dict[str, list[float]] = {side.name: [] for side in sides}
            for _ in range(ROUNDS):
                for side in sides:
                    taken[side.name].append(count / side.ask(tool, what, vip, count))
            goal = GOALS[size] if what == "connect" else GOALS[1]
            figures += compared(f"{unit} a second, pod {way}", taken, goal)
    return figures


def compared(what: str, taken: Mapping[str, Sequence[float]], goal: str) -> list[Figure]:
    medians = {name: statistics.median(values) for name, values in taken.items()}
    return [
        Figure(f"{what}: {OURS}", f"{medians[OURS]:,.0f}"),
        *(
            Figure(f"  against {name} ({theirs:,.0f})", f"{medians[OURS] / theirs:.2f} x", goal)
            for name, theirs in medians.items()
            if name != OURS
        ),
    ]


def delays(sides: Sequence[Side], tool: Path, size: int) -> list[Figure]:
    figures = []
    for side in sides:
        turns = EVENTS[side.name] if size == 1 or side.name == OURS else EVENTS[side.name] // 2
        taken = sorted(delay_ms(side, tool, turn) for turn in range(turns))
        worst = taken[min(len(taken) - 1, int(len(taken) * 0.99))]
        goal = "<= 200 ms" if side.name == OURS else ""
        figures.append(
            Figure(f"{side.name}, p50 of {turns}", f"{statistics.median(taken):,.1f} ms")
        )
        figures.append(Figure("  p99", f"{worst:,.1f} ms", goal))
    return figures


def delay_ms(side: Side, tool: Path, turn: int) -> float:
    """From the slice's event to the first connection that the new endpoint has taken."""
    new = ("there", "here")[turn % 2]
    argv = side.client.command(tool, "until", MOVING, str(PORT), new[0])
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as asking:
        assert asking.stdout
        if asking.stdout.readline() != "asking\n":
            raise RuntimeError(f"{side.name}: nobody answers at {MOVING}")
        told_s = time.monotonic()
        side.api.put(slice_of("moving", side.pods[new]))
        return (float(asking.stdout.readline()) - told_s) * 1e3


if __name__ == "__main__":
    sys.exit(main())
