"""State outlives the code: versions with other structs come and go under live flows.

Every flow here dies with its state: nothing that is left of it could be judged or sent back.
"""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from deploy.netlab import Lab, LabNode, Pod, manifests
from deploy.netlab.node import ANSWER
from deploy.netlab.shell import in_namespace, run, stop, wait_for
from tests.netns import versions
from tests.netns.ask import Host
from tests.netns.conftest import assert_dump_equals_plan, lab_name
from tests.netns.crashing import CRASHED, STEPS
from weft.bpf import syscall
from weft.bpf.layout import TABLES

pytestmark = pytest.mark.long

PORT, VIP, VIP6 = 8080, "10.96.7.1", "fd00:10:96::7:1"
NUMBERS_VIP, TOLD_VIP = "10.96.7.2", "10.96.7.3"
HERE = Path(__file__).parent

# Sends a line every 5 ms on one connection; prints the longest wait for its echo, in seconds, and
# whom the socket says it talks to in the end.
PACED = """
import socket, sys, time
from pathlib import Path
with socket.create_connection((sys.argv[1], int(sys.argv[2])), 5) as s:
    s.settimeout(20)
    lines = s.makefile("rw")
    lines.readline()
    Path(sys.argv[3]).touch()
    longest_s = 0.0
    while not Path(sys.argv[4]).exists():
        started_s = time.monotonic()
        lines.write("x\\n"); lines.flush()
        assert lines.readline() == "x\\n"
        longest_s = max(longest_s, time.monotonic() - started_s)
        time.sleep(0.005)
    print(longest_s, s.getpeername()[0])
"""

# Sends numbers every 5 ms, for ever, to whoever asked last.
NUMBERS = """
import socket, sys
from pathlib import Path
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
    s.bind(("0.0.0.0", int(sys.argv[1])))
    Path(sys.argv[2]).touch()
    peer = s.recvfrom(100)[1]
    s.settimeout(0.005)
    number = 0
    while True:
        s.sendto(str(number).encode(), peer)
        number += 1
        try:
            peer = s.recvfrom(100)[1]
        except TimeoutError:
            pass
"""

# Asks once, then only listens; prints how many numbers came, how many are missing between them, and
# from whom all came.
LISTENING = """
import socket, sys
from pathlib import Path
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
    s.settimeout(5)
    s.sendto(b"?", (sys.argv[1], int(sys.argv[2])))
    heard = [s.recvfrom(100)]
    Path(sys.argv[3]).touch()
    while not Path(sys.argv[4]).exists():
        heard.append(s.recvfrom(100))
    numbers = [int(text) for text, _ in heard]
    missed = numbers[-1] - numbers[0] + 1 - len(numbers)
    print(len(numbers), missed, *{peer[0] for _, peer in heard})
"""

# The client answers to nobody: what comes for it passes as part of a flow that it began, or never.
CLOSED = {
    "apiVersion": "networking.k8s.io/v1",
    "kind": "NetworkPolicy",
    "metadata": {"name": "closed", "namespace": "default"},
    "spec": {"podSelector": {"matchLabels": {"door": "closed"}}, "policyTypes": ["Ingress"]},
}


@dataclass(frozen=True, slots=True)
class Stage:
    """Two nodes; clients on east that nobody may call, servers on west and outside, a client
    outside whose route to Services leads to east.

    meshed: the client whose sockets dial VIPs as they are, so that every packet is translated.
    """

    lab: Lab
    client: Pod
    meshed: Pod
    old: Path
    new: Path

    @property
    def east(self) -> LabNode:
        return self.lab.nodes[0]


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    old = versions.tree(tmp_path_factory.mktemp("old"), {})
    new = versions.tree(tmp_path_factory.mktemp("new"), versions.NEWER)
    with Lab(lab_name()) as lab, ExitStack() as stack:
        for name in ("east", "west"):
            lab.add_node(name).tree = old
        for node in lab.nodes:
            node.start()
        lab.manifests.put(CLOSED)
        client = lab.nodes[0].add_pod("client", labels={"door": "closed"})
        meshed = lab.nodes[0].add_pod(
            "meshed", labels={"door": "closed"}, annotations={"weft.dev/socket-hook": "off"}
        )
        web = lab.nodes[1].add_pod("web")
        lab.nodes[1].serve(web, PORT)
        for name, vip in (("numbers", NUMBERS_VIP), ("told", TOLD_VIP)):
            pod = lab.nodes[1].add_pod(name)
            _background(stack, lab, pod.command(sys.executable, "-c", NUMBERS, str(PORT)))
            _put_service(lab, name, "UDP", [vip], pod)
        outside = in_namespace(
            lab.switch, lab.cgroup, [sys.executable, ANSWER, "outside", str(PORT)]
        )
        _background(stack, lab, outside)
        _put_service(lab, "web", "TCP", [VIP, VIP6], web)
        for vip, of_east in zip((VIP, VIP6), lab.nodes[0].underlay, strict=True):
            via = of_east.split("/")[0]
            run("ip", "-n", lab.switch, "route", "add", vip, "via", via)
        wait_for("the Service", lambda: "web" in lab.nodes[0].weft("services"))
        yield Stage(lab, client, meshed, old, new)


def _background(stack: ExitStack, lab: Lab, argv: list[str]) -> None:
    ready = lab.folder / f"{len(list(lab.folder.iterdir()))}.ready"
    stack.callback(stop, subprocess.Popen([*argv, str(ready)]))
    wait_for("the server", ready.exists)


def _put_service(lab: Lab, name: str, protocol: str, vips: list[str], pod: Pod) -> None:
    ports = [("main", protocol, PORT)]
    lab.manifests.put(
        manifests.service(name, "default", vips, [("main", protocol, 80)]),
        *(
            manifests.endpoint_slice(f"{name}-{v}", "default", name, pod.addresses, ports, v)
            for v in (4, 6)
        ),
    )


@dataclass(frozen=True, slots=True)
class Flows:
    """Flows of the clients that are under way."""

    end: Path
    paced: dict[str, "subprocess.Popen[bytes]"]
    listening: dict[str, "subprocess.Popen[bytes]"]
    dialled: dict[str, str]
    """Whom each connection dialled: what its socket is to say, too, whatever it was given."""

    def finish(self) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
        """Of each connection its longest wait in seconds and its peer; of each listener how many
        numbers it heard and missed, and from whom."""
        self.end.touch()
        paced, listening = (
            {name: one.communicate(timeout=30)[0].decode().split() for name, one in group.items()}
            for group in (self.paced, self.listening)
        )
        return paced, listening


@pytest.fixture
def flows(stage: Stage, tmp_path: Path) -> Iterator[Flows]:
    """Connections through VIPs, chosen by the socket, by the packet and for clients outside; some
    masqueraded to the outside; numbers through a VIP that the server sends on its own, to a pod and
    to the node."""
    end, client, east = tmp_path / "end", stage.client, stage.east
    outside = Host(stage.lab.switch, stage.lab.cgroup)
    to: dict[str, tuple[Pod | LabNode | Host, str, str]] = {
        "vip": (client, VIP, "80"),
        "vip6": (client, VIP6, "80"),
        "vip-by-packet": (stage.meshed, VIP, "80"),
        "vip6-by-packet": (stage.meshed, VIP6, "80"),
        "outside": (client, stage.lab.outside[0], str(PORT)),
        "outside6": (client, stage.lab.outside[1], str(PORT)),
        "from-the-node": (east, VIP, "80"),
        "from-outside": (outside, VIP, "80"),
        "from-outside6": (outside, VIP6, "80"),
    }
    with ExitStack() as stack:

        def start(
            name: str, script: str, of: Pod | LabNode | Host, *to: str
        ) -> "subprocess.Popen[bytes]":
            argv = of.command(sys.executable, "-c", script, *to, str(tmp_path / name), str(end))
            process = subprocess.Popen(argv, stdout=subprocess.PIPE)
            stack.callback(stop, process)
            wait_for(f"the flow {name}", (tmp_path / name).exists)
            return process

        paced = {name: start(name, PACED, *where) for name, where in to.items()}
        assert f"{VIP}:80" in connections(stage.meshed), "its socket dialled the VIP itself"
        listening = {
            vip: start(vip, LISTENING, who, vip, "80")
            for who, vip in ((client, NUMBERS_VIP), (east, TOLD_VIP))
        }
        yield Flows(end, paced, listening, {name: where[1] for name, where in to.items()})


def connections(pod: Pod) -> str:
    """The pod's connections as its own kernel has them: hooks of sockets are not asked."""
    return pod.run("ss", "-tn")


@pytest.fixture(autouse=True)
def law(stage: Stage) -> Iterator[None]:
    yield
    for node in stage.lab.nodes:
        assert_dump_equals_plan(node)


def run_version(stage: Stage, tree: Path) -> None:
    """A start of that version, until nothing is left of another's maps."""
    east = stage.east
    if east.daemon is not None and east.daemon.poll() is None:
        east.kill()
    east.tree = tree
    east.start()
    only_its = versions.NEWER_TABLES if tree == stage.new else ()
    wait_for(
        "one map for each table of this version",
        lambda: sorted(map(table, maps(east))) == sorted([*TABLES, *only_its]),
        timeout_s=30,
    )


def crash(stage: Stage, tree: Path, step: str) -> None:
    """A start of that version that ends after the step."""
    east = stage.east
    if east.daemon is not None and east.daemon.poll() is None:
        east.kill()
    east.tree, usual = tree, east.launcher
    east.launcher = (HERE / "crashing.py", step)
    try:
        assert east.launch().wait(60) == CRASHED, east.log_tail()
    finally:
        east.launcher = usual


def maps(node: LabNode) -> list[str]:
    return sorted(path.name for path in (node.folder / "bpf" / "weft" / "maps").iterdir())


def table(pin: str) -> str:
    return pin.rpartition("-")[0]


def links(node: LabNode) -> dict[str, int]:
    """The kernel's number of every pinned hook: another one is another attachment."""
    return {
        pin.name: syscall.link_info(syscall.open_pin(pin), pin.name).id
        for pin in (node.folder / "bpf" / "weft" / "hooks").iterdir()
    }


def assert_all_lived(flows: Flows) -> None:
    paced, listening = flows.finish()
    print(f"waits {paced}, heard and missed {listening}")
    assert {name: peer for name, (_, peer) in paced.items()} == flows.dialled
    assert all(float(wait_s) < 1.5 for wait_s, _ in paced.values()), (
        "more than a segment sent again"
    )
    for vip, (heard, missed, *peers) in listening.items():
        assert int(heard) > 100
        assert int(missed) <= 1
        assert peers == [vip]


def test_flows_outlive_an_upgrade_a_downgrade_and_an_upgrade(stage: Stage, flows: Flows) -> None:
    before, hooks = maps(stage.east), links(stage.east)
    run_version(stage, stage.new)
    after = maps(stage.east)
    assert before != after
    run_version(stage, stage.old)
    assert maps(stage.east) == before
    run_version(stage, stage.new)
    run_version(stage, stage.old)
    assert links(stage.east) == hooks, "replaced in place, never detached"
    assert_all_lived(flows)


@pytest.mark.parametrize("step", STEPS)
def test_flows_outlive_a_crash_in_the_middle_of_an_upgrade(
    stage: Stage, flows: Flows, step: str
) -> None:
    """And in the downgrade after it; the next starts find what both have left."""
    hooks = links(stage.east)
    crash(stage, stage.new, step)
    crash(stage, stage.old, step)
    run_version(stage, stage.new)
    run_version(stage, stage.old)
    assert links(stage.east) == hooks, "replaced in place, never detached"
    assert_all_lived(flows)
