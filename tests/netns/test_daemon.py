"""The daemon on a node: killed, restarted, meddled with; the traffic of its pods goes on."""

import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from deploy.netlab import Lab, LabNode, Pod, manifests
from deploy.netlab.shell import stop, wait_for
from tests.netns.conftest import assert_dump_equals_plan, lab_name

PORT = 8080
VIP = "10.96.7.1"

# Sends a line every 5 ms on one connection and prints the longest wait for its echo.
PACED = """
import socket, sys, time
from pathlib import Path
with socket.create_connection((sys.argv[1], int(sys.argv[2])), 5) as s:
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
    print(longest_s)
"""

# Knocks at a forbidden door until a file appears; prints how often, and how often it opened.
KNOCKING = """
import socket, sys
from pathlib import Path
knocks = opened = 0
while not Path(sys.argv[4]).exists():
    with socket.socket() as s:
        s.settimeout(0.02)
        knocks += 1
        opened += s.connect_ex((sys.argv[1], int(sys.argv[2]))) == 0
    Path(sys.argv[3]).touch()
print(knocks, opened)
"""

DENY = {
    "apiVersion": "networking.k8s.io/v1",
    "kind": "NetworkPolicy",
    "metadata": {"name": "closed", "namespace": "default"},
    "spec": {"podSelector": {"matchLabels": {"door": "closed"}}, "policyTypes": ["Ingress"]},
}


@dataclass(frozen=True, slots=True)
class Stage:
    """Two nodes, a client on east, a server on west behind a Service."""

    lab: Lab
    client: Pod
    server: Pod

    @property
    def east(self) -> LabNode:
        return self.lab.nodes[0]


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    with Lab(lab_name()) as lab:
        east, west = lab.add_node("east"), lab.add_node("west")
        for node in lab.nodes:
            node.start()
        client, server = east.add_pod("client"), west.add_pod("server")
        west.serve(server, PORT)
        ports = [("web", "TCP", PORT)]
        lab.manifests.put(
            manifests.service("web", "default", [VIP], [("web", "TCP", 80)]),
            manifests.endpoint_slice("web-4", "default", "web", server.addresses, ports),
        )
        wait_for("the Service", lambda: is_open(client))
        yield Stage(lab, client, server)


@pytest.fixture(autouse=True)
def law(stage: Stage) -> Iterator[None]:
    """After every test the kernel holds exactly the full plan."""
    yield
    for node in stage.lab.nodes:
        assert_dump_equals_plan(node)


def is_open(client: Pod, address: str = VIP, port: int = 80) -> bool:
    script = f"import socket; socket.create_connection(('{address}', {port}), 1).close()"
    return client.attempt(sys.executable, "-c", script).returncode == 0


def metric(node: LabNode, name: str) -> dict[str, float]:
    """A metric's values by table."""
    text = node.run("curl", "-sf", "http://127.0.0.1:10249/metrics")
    found = re.findall(rf'^{name}(?:_total)?{{table="(\w+)"}} (\S+)$', text, re.MULTILINE)
    return {table: float(value) for table, value in found}


def restart(node: LabNode) -> None:
    """kill -9 and start; return once it is in line with its sources again."""
    before = readies(node)
    node.kill()
    node.start()
    wait_for("the node ready again", lambda: readies(node) > before)


def readies(node: LabNode) -> int:
    """How often the node's daemons said that they are ready."""
    return node.log_tail(10_000).count('"msg": "ready"')


def test_a_killed_daemon_leaves_traffic_and_its_restart_writes_no_table(stage: Stage) -> None:
    restart(stage.east)
    written = metric(stage.east, "weft_rows_written")
    assert {table for table, count in written.items() if count} <= {"hooks"}
    assert metric(stage.east, "weft_rows_deleted") == {} or not any(
        metric(stage.east, "weft_rows_deleted").values()
    )


def test_a_paced_connection_does_not_notice_kills_and_restarts(stage: Stage) -> None:
    east = stage.east
    ready, end = east.folder / "paced.ready", east.folder / "paced.end"
    argv = stage.client.command(sys.executable, "-c", PACED, VIP, "80", ready, end)
    paced = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        wait_for("the connection", ready.exists)
        for _ in range(3):
            restart(east)
        end.touch()
        said, complaint = paced.communicate(timeout=10)
    finally:
        stop(paced)
    assert paced.returncode == 0, complaint.decode()
    # Two cores that start a daemon delay a process by tens of ms; a lost segment costs 200 ms.
    assert float(said) < 0.15


def test_no_policy_opens_while_daemons_die_and_start(stage: Stage) -> None:
    east = stage.east
    closed = east.add_pod("closed", labels={"door": "closed"})
    east.serve(closed, PORT)
    address = str(closed.address(4))
    assert is_open(stage.client, address, PORT)
    stage.lab.manifests.put(DENY)
    wait_for("the policy", lambda: not is_open(stage.client, address, PORT))
    ready, end = east.folder / "knocking.ready", east.folder / "knocking.end"
    argv = stage.client.command(sys.executable, "-c", KNOCKING, address, str(PORT), ready, end)
    knocking = subprocess.Popen(argv, stdout=subprocess.PIPE)
    try:
        wait_for("the first knock", ready.exists)
        for _ in range(3):
            restart(east)
        end.touch()
        said, _ = knocking.communicate(timeout=10)
    finally:
        stop(knocking)
        east.delete_pod("closed")
        stage.lab.manifests.remove("NetworkPolicy", "closed", "default")
    knocks, opened = map(int, said.split())
    assert knocks > 50
    assert opened == 0


def test_new_connections_open_while_no_daemon_runs(stage: Stage) -> None:
    stage.east.kill()
    try:
        assert is_open(stage.client)
    finally:
        stage.east.start()


def test_the_cni_configuration_stays_when_the_daemon_stops(stage: Stage) -> None:
    conflist = stage.east.folder / "net.d" / "05-weft.conflist"
    before = conflist.stat()
    assert stage.east.daemon is not None
    stop(stage.east.daemon)
    assert stage.east.daemon.returncode == 0
    stage.east.start()
    assert conflist.stat().st_ino == before.st_ino


def test_a_pod_added_after_a_restart_reaches_an_older_one(stage: Stage) -> None:
    restart(stage.east)
    fresh = stage.east.add_pod("fresh")
    assert is_open(fresh)
    stage.east.delete_pod("fresh")


def test_a_node_that_left_while_the_daemon_was_down_loses_its_route_and_prefix(
    stage: Stage,
) -> None:
    gone = manifests.node("gone", ["172.30.0.77"], ["10.244.77.0/24"])
    stage.lab.manifests.put(gone)
    wait_for("the route", lambda: "10.244.77.0/24" in stage.east.run("ip", "route"))
    stage.east.kill()
    stage.lab.manifests.remove("Node", "gone")
    stage.east.start()
    wait_for("no route", lambda: "10.244.77.0/24" not in stage.east.run("ip", "route"))


@pytest.mark.parametrize(
    "meddling",
    [
        ("ip", "route", "del", "10.244.2.0/24"),
        ("ip", "route", "replace", "10.244.2.0/24", "dev", "eth0", "proto", "88"),
        ("ip", "link", "set", "weft.vx", "down"),
        ("ip", "link", "set", "weft.vx", "mtu", "1300"),
        ("ip", "link", "del", "weft.vx"),
    ],
    ids=" ".join,
)
def test_what_another_hand_does_to_the_overlay_is_repaired_at_once(
    stage: Stage, meddling: tuple[str, ...]
) -> None:
    stage.east.run(*meddling)
    wait_for("the repair", lambda: is_open(stage.client), timeout_s=3)
    wait_for("the route", lambda: "10.244.2.0/24 dev weft.vx" in stage.east.run("ip", "route"))
    wait_for("the device", lambda: "mtu 1450" in stage.east.run("ip", "link", "show", "weft.vx"))


@pytest.mark.parametrize("family", ["-4", "-6"])
def test_a_route_to_a_pod_that_another_hand_deletes_comes_back(stage: Stage, family: str) -> None:
    prefix = str(stage.client.address(4 if family == "-4" else 6))
    show = ("ip", family, "route", "show", "proto", "87", prefix)
    before = stage.east.run(*show)
    assert prefix in before
    stage.east.run("ip", family, "route", "del", prefix, "proto", "87")
    wait_for("the route", lambda: stage.east.run(*show) == before, timeout_s=3)


def test_an_unreadable_manifest_changes_nothing_and_is_said(stage: Stage) -> None:
    path = stage.lab.manifests.folder / "service.default.web.yaml"
    text = path.read_text()
    try:
        path.write_text("spec: [")
        wait_for("the report", lambda: "manifest unreadable" in stage.east.log_tail())
        assert is_open(stage.client)
    finally:
        path.write_text(text)


def test_a_second_daemon_on_the_same_pins_refuses_and_names_them(stage: Stage) -> None:
    second = stage.east.attempt(*stage.east.daemon_argv(), timeout_s=30)
    assert second.returncode == 1
    assert "cannot go on" in second.stderr
    assert is_open(stage.client)
