"""CPU per packet pod to pod, on one node and over the overlay, against the kernel's own ways.

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

from deploy.netlab import Lab, manifests
from deploy.netlab.shell import run, stop
from tests.bench import peers
from tests.bench.report import Figure, show

ROUNDS, PACKETS, PORT = 9, 40_000, 9000
HOLD = "import socket,sys,time\ns=socket.socket(socket.AF_INET6,socket.SOCK_DGRAM)\n" \
       "s.bind(('::',int(sys.argv[1])))\nprint(flush=True)\ntime.sleep(3600)"  # fmt: skip


def main() -> int:
    prefix = f"wb{os.getpid()}"
    with ExitStack() as undo:
        sender = build_sender()
        ways: dict[str, tuple[Sequence[str], str]] = {}
        for number, make in enumerate((peers.bare_veth, peers.forwarding, peers.bridged_vxlan)):
            peer = make(undo, f"{prefix}-{number}")
            hold(undo, ["nsenter", f"--net=/run/netns/{peer.receiver}"])
            ways[peer.name] = (["nsenter", f"--net=/run/netns/{peer.sender}"], peer.address)
        lab = undo.enter_context(Lab(prefix))
        ways |= ours(undo, lab)
        show("CPU per packet, pod to pod (UDP, 64 bytes)", figures(measure(sender, ways)))
    return 0


def build_sender() -> Path:
    out = Path("build/udpsend")
    out.parent.mkdir(exist_ok=True)
    run("gcc", "-O2", "-o", out, Path(__file__).with_name("udpsend.c"))
    return out.resolve()


def ours(undo: ExitStack, lab: Lab) -> dict[str, tuple[Sequence[str], str]]:
    """Three pods on two nodes, the receivers isolated by a policy that lets the sender in."""
    for name in ("east", "west"):
        lab.add_node(name).start()
    east, west = lab.nodes
    client, here, there = east.add_pod("client"), east.add_pod("here"), west.add_pod("there")
    lab.manifests.put(let_in())
    for pod in (here, there):
        hold(undo, pod.command())
    return {
        "weft, one node, policy": (client.command(), str(here.address(4))),
        "weft, two nodes, policy": (client.command(), str(there.address(4))),
    }


def let_in() -> manifests.Manifest:
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": "bench", "namespace": "default"},
        "spec": {
            "podSelector": {},
            "policyTypes": ["Ingress"],
            "ingress": [{"from": [{"podSelector": {}}]}],
        },
    }


def hold(undo: ExitStack, enter: Sequence[str]) -> None:
    """A UDP socket bound in the receiver's namespace, never read."""
    process = subprocess.Popen(
        [*enter, sys.executable, "-c", HOLD, str(PORT)], stdout=subprocess.PIPE
    )
    undo.callback(lambda: stop(process))
    assert process.stdout
    process.stdout.readline()


def measure(sender: Path, ways: Mapping[str, tuple[Sequence[str], str]]) -> dict[str, list[float]]:
    """Nanoseconds of CPU per packet, a list per way; the first round warms up and is dropped."""
    times: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(ROUNDS + 1):
        for name, (enter, address) in ways.items():
            said = run(*enter, sender, address, str(PORT), str(PACKETS)).split()
            if int(said[1]) != PACKETS:
                raise RuntimeError(f"{name}: only {said[1]} of {PACKETS} packets were sent")
            if turn:
                times[name].append(float(said[0]))
    return times


def figures(times: Mapping[str, Sequence[float]]) -> list[Figure]:
    median = {name: statistics.median(values) for name, values in times.items()}
    bare, forwarded = median["bare veth pair"], median["kernel forwarding"]
    bridged = median["kernel VXLAN with a bridge"]
    one, two = median["weft, one node, policy"], median["weft, two nodes, policy"]
    return [
        *(Figure(name, f"{value:,.0f} ns") for name, value in median.items()),
        Figure("one node against a bare veth pair", f"{one / bare:.2f} x", "<= 1.10 x"),
        Figure("one node against kernel forwarding", f"{one / forwarded:.2f} x", "<= 0.92 x"),
        Figure(
            "two nodes against kernel VXLAN with a bridge", f"{two / bridged:.2f} x", "<= 1.0 x"
        ),
    ]


if __name__ == "__main__":
    sys.exit(main())
