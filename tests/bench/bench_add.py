"""How long a runtime waits for ADD and DEL, against ptp and bridge with host-local.

The plugins run in turn on namespaces of the same machine, so ratios count, not milliseconds. The
figure is from the start of the executable to its end, as containerd sees it. `weft` is the shim
before the CNI server alone, whose node attaches at once; `weftd` is the whole daemon with its turn
of the loop and its hooks (dual stack: its labs have both families).
"""

import ctypes
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from ipaddress import ip_network
from pathlib import Path
from statistics import median

from deploy.netlab import Lab
from tests.bench.report import Figure, show
from weft.cni.leases import boot_id
from weft.cni.spec import Address

ROOT = Path(__file__).resolve().parents[2]
SHIM = ROOT / "build/weft-cni"
DAEMON = ROOT / "tests/netns/cni_daemon.py"
CACHE = Path(os.environ.get("WEFT_CACHE", Path.home() / ".cache/weft"))
ROUNDS, DUAL_ROUNDS, BURST_ROUNDS = 25, 5, 3
BURST, CROWD = 30, 110
OURS = ("weft", "weftd")
V4, V6 = "10.88.0.0/20", "fd88::/64"
WIDE, TAKEN = "10.96.0.0/18", 8000
_LIBC = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True)
class Way:
    """A plugin as a runtime knows it, on a node of its own."""

    name: str
    executable: Path
    config: Path
    node: str
    env: dict[str, str]


@dataclass(frozen=True)
class Timing:
    """Of some calls at once. each_s: of every call; wall_s: until the last one ended."""

    each_s: list[float]
    wall_s: float
    failures: int


def main() -> int:
    tools = next(CACHE.glob("lab/*/bin/ptp"), None)
    if tools is None:
        print("no reference plugins in the lab cache (make lab-binaries)", file=sys.stderr)
        return 1
    with ExitStack() as undo:
        folder = Path(undo.enter_context(tempfile.TemporaryDirectory(prefix="wb-add-")))
        pods = [undo.enter_context(namespace(f"pod{i}")) for i in range(CROWD)]
        for families, ranges in (("IPv4", [V4]), ("dual stack", [V4, V6])):
            here = folder / families.replace(" ", "-")
            here.mkdir()
            ways = [ours(undo, here, ranges), *peers(undo, here, tools.parent, ranges)]
            if families != "IPv4":
                ways.insert(1, whole_daemon(undo, here))
            show(f"CNI ADD, {families}", single_figures(ways, pods, families))
            show(f"CNI at once, {families}", burst_figures(ways, pods))
        full = list(crowded(undo, folder, tools.parent))
        show(f"CNI ADD with {TAKEN} addresses taken", crowded_figures(full, pods))
    return 0


def single_figures(ways: Sequence[Way], pods: Sequence[str], families: str) -> list[Figure]:
    rounds = ROUNDS if families == "IPv4" else DUAL_ROUNDS
    added: dict[str, list[float]] = {way.name: [] for way in ways}
    deleted: dict[str, list[float]] = {way.name: [] for way in ways}
    for number in range(rounds + 1):
        for way in ways:
            one, gone = (run_all(way, verb, pods[:1]) for verb in ("ADD", "DEL"))
            if one.failures or gone.failures:
                raise RuntimeError(f"{way.name} failed: run its plugin by hand to see why")
            if number:
                added[way.name] += one.each_s
                deleted[way.name] += gone.each_s
    figures = [
        Figure(f"{name}, one at a time", f"{median(times) * 1e3:.2f} ms")
        for name, times in added.items()
    ]
    goals = {
        "ptp": "0.5" if families == "IPv4" else "",
        "bridge": "0.2" if families != "IPv4" else "",
    }
    figures += ratios(added, goals)
    return figures + [
        Figure(f"{name}, DEL", f"{median(times) * 1e3:.2f} ms") for name, times in deleted.items()
    ]


def burst_figures(ways: Sequence[Way], pods: Sequence[str]) -> list[Figure]:
    added: dict[str, list[float]] = {way.name: [] for way in ways}
    deleted: dict[str, list[float]] = {way.name: [] for way in ways}
    for _ in range(BURST_ROUNDS):
        for way in ways:
            added[way.name] += run_all(way, "ADD", pods[:BURST]).each_s
            deleted[way.name] += run_all(way, "DEL", pods[:BURST]).each_s
    crowds: dict[str, Timing] = {}
    for way in ways:
        if way.name in OURS:
            crowds[way.name] = run_all(way, "ADD", pods)
            run_all(way, "DEL", pods)
    figures = [
        Figure(f"{name}, ADD {BURST} at once, p50", f"{median(times) * 1e3:.1f} ms")
        for name, times in added.items()
    ]
    figures += ratios(added, {"ptp": "0.3"})
    figures += [
        Figure(f"{name}, DEL {BURST} at once, p50", f"{median(times) * 1e3:.1f} ms")
        for name, times in deleted.items()
    ]
    figures += ratios(deleted, {"ptp": "0.3", "bridge": "0.3"})
    for name, crowd in crowds.items():
        wall = f"{crowd.wall_s:.2f} s"
        figures.append(Figure(f"{name}, ADD {CROWD} at once, wall", wall, "<= 5 s"))
        figures.append(Figure("  failed", str(crowd.failures), "0"))
    return figures


def crowded_figures(ways: Sequence[Way], pods: Sequence[str]) -> list[Figure]:
    """Each plugin on an empty node and on one whose range is half full."""
    times: dict[str, list[float]] = {way.name: [] for way in ways}
    for _ in range(DUAL_ROUNDS * 2):
        for way in ways:
            one = run_all(way, "ADD", pods[:1])
            run_all(way, "DEL", pods[:1])
            if one.failures:
                raise RuntimeError(f"{way.name} failed: run its plugin by hand to see why")
            times[way.name] += one.each_s
    figures = [Figure(name, f"{median(each) * 1e3:.2f} ms") for name, each in times.items()]
    for name, goal in (("weft", "<= 1.2 x"), ("ptp", "")):
        ratio = median(times[f"{name}, {TAKEN}"]) / median(times[f"{name}, empty"])
        figures.append(Figure(f"  {name} to itself empty", f"{ratio:.2f} x", goal))
    return figures


def crowded(undo: ExitStack, folder: Path, tools: Path) -> Iterator[Way]:
    for state in ("empty", str(TAKEN)):
        here = folder / state
        here.mkdir()
        if state != "empty":
            fill(here)
        yield replace(ours(undo, here, [WIDE]), name=f"weft, {state}")
        yield replace(next(peers(undo, here, tools, [WIDE])), name=f"ptp, {state}")


def fill(folder: Path) -> None:
    """The first TAKEN addresses of WIDE, in our lease file and in host-local's folder."""
    network = ip_network(WIDE)
    taken = [network[number] for number in range(2, TAKEN + 2)]
    lines = [{"boot": boot_id(), "format": 1}, *({"held": held(one)} for one in taken)]
    (folder / "leases.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    store = folder / "host-local/ptp"
    store.mkdir(parents=True)
    for address in taken:
        (store / str(address)).write_text(f"bench-{address}\r\neth0")
    (store / "last_reserved_ip.0").write_text(str(taken[-1]))


def held(address: Address) -> dict[str, object]:
    """A lease whose namespace is there, so that it is not taken for a vanished pod's."""
    texts = dict.fromkeys(("pod_namespace", "pod_name", "pod_uid", "host_mac", "pod_mac"), "")
    return {
        "container_id": f"bench-{address}", "ifname": "eth0", "netns": "/proc/self/ns/net",
        "addresses": [str(address)], "host_ifname": f"x{address}", "host_ifindex": 0,
        "mtu_bytes": 1500, "network": "weft", **texts,
    }  # fmt: skip


def ratios(times: dict[str, list[float]], goals: dict[str, str]) -> list[Figure]:
    return [
        Figure(
            f"  {own} to {name}",
            f"{median(times[own]) / median(peer):.2f} x",
            f"<= {goals[name]} x" if goals.get(name) else "",
        )
        for own in OURS
        if own in times
        for name, peer in times.items()
        if name not in OURS
    ]


def run_all(way: Way, verb: str, pods: Sequence[str]) -> Timing:
    """Starts the plugin for every pod at once, in the node's namespace, and waits for all."""
    home = os.open("/proc/self/ns/net", os.O_RDONLY)
    enter(os.open(f"/run/netns/{way.node}", os.O_RDONLY))
    try:
        start_s = time.monotonic()
        started = {spawn(way, verb, pod): time.monotonic() for pod in pods}
        each_s, failures = [], 0
        while started:
            pid, status = os.waitpid(-1, 0)
            if pid in started:
                each_s.append(time.monotonic() - started.pop(pid))
                failures += status != 0
        return Timing(each_s, time.monotonic() - start_s, failures)
    finally:
        enter(home)


def spawn(way: Way, verb: str, pod: str) -> int:
    env = {
        "PATH": os.environ["PATH"], "CNI_COMMAND": verb, "CNI_CONTAINERID": f"bench-{pod}",
        "CNI_NETNS": f"/run/netns/{pod}", "CNI_IFNAME": "eth0",
        "CNI_PATH": str(way.executable.parent), **way.env,
    }  # fmt: skip
    actions = [
        (os.POSIX_SPAWN_OPEN, 0, str(way.config), os.O_RDONLY, 0),
        (os.POSIX_SPAWN_OPEN, 1, "/dev/null", os.O_WRONLY, 0),
    ]
    return os.posix_spawn(way.executable, [way.executable.name], env, file_actions=actions)


def enter(netns_fd: int) -> None:
    """The calling thread's own namespace from now on; closes the descriptor."""
    failed = _LIBC.setns(netns_fd, 0)
    os.close(netns_fd)
    if failed:
        raise OSError(ctypes.get_errno(), "cannot enter a network namespace")


def peers(undo: ExitStack, folder: Path, tools: Path, ranges: Sequence[str]) -> Iterator[Way]:
    """The reference plugins, each on a node of its own."""
    ipam = {
        "type": "host-local", "dataDir": str(folder / "host-local"),
        "ranges": [[{"subnet": one}] for one in ranges],
        "routes": [{"dst": "::/0" if ":" in one else "0.0.0.0/0"} for one in ranges],
    }  # fmt: skip
    for name, keys in (("ptp", {}), ("bridge", {"bridge": "cni0", "isGateway": True})):
        config = {"cniVersion": "1.0.0", "name": name, "type": name, **keys, "ipam": ipam}
        path = folder / f"{name}.json"
        path.write_text(json.dumps(config))
        node = undo.enter_context(namespace(f"{name}-{folder.name}"))
        yield Way(name, tools / name, path, node, {})


def ours(undo: ExitStack, folder: Path, ranges: Sequence[str]) -> Way:
    """The shim, and the server in a process of its own."""
    node = undo.enter_context(namespace(f"weft-{folder.name}"))
    config = folder / "weft.json"
    config.write_text(json.dumps({
        "cniVersion": "1.0.0", "name": "weft", "type": "weft-cni", "mode": "routed",
        "ranges": ranges,
    }))  # fmt: skip
    place = ["nsenter", f"--net=/run/netns/{node}"]
    command = [*place, sys.executable, str(DAEMON), str(folder), str(config)]
    daemon = undo.enter_context(
        subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
            env={**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'build/tree'}"},
        )
    )  # fmt: skip
    undo.callback(daemon.terminate)
    assert daemon.stdout is not None
    if daemon.stdout.readline() != "serving\n":
        raise RuntimeError("the CNI server did not start")
    env = {
        "WEFT_CNI_SOCKET": str(folder / "cni.sock"),
        "WEFT_CNI_DELETIONS": str(folder / "deletions"),
    }
    return Way("weft", SHIM, config, node, env)


def whole_daemon(undo: ExitStack, folder: Path) -> Way:
    lab = undo.enter_context(Lab(f"wb-add-{os.getpid()}"))
    node = lab.add_node("node")
    node.start()
    listed = json.loads((node.folder / "net.d/05-weft.conflist").read_text())
    config = folder / "weftd.json"
    config.write_text(
        json.dumps({**listed["plugins"][0], "name": listed["name"], "cniVersion": "1.0.0"})
    )
    return Way("weftd", SHIM, config, node.namespace, {"WEFT_CNI_SOCKET": str(node.cni_socket)})


@contextmanager
def namespace(name: str) -> Iterator[str]:
    full = f"wb-add-{os.getpid()}-{name}"
    ip = shutil.which("ip") or "ip"
    subprocess.run([ip, "netns", "add", full], check=True)
    try:
        subprocess.run([ip, "-n", full, "link", "set", "lo", "up"], check=True)
        yield full
    finally:
        subprocess.run([ip, "netns", "del", full], check=True)


if __name__ == "__main__":
    sys.exit(main())
