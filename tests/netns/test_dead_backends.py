"""UDP sockets leave a backend that is gone: same socket, within a second, whoever has it."""

import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from deploy.netlab import Lab, LabNode, Pod, manifests
from deploy.netlab.shell import stop, wait_for
from tests.netns.conftest import assert_dump_equals_plan, lab_name

CORRESPONDENT = Path(__file__).with_name("correspondent.py")
PORT = 8080
VIPS = {4: "10.96.9.1", 6: "fd00:96::9:1"}


class Correspondent:
    """One UDP socket in a pod or on the node (see correspondent.py)."""

    def __init__(self, stack: ExitStack, who: Pod | LabNode, *argv: str) -> None:
        self._process = subprocess.Popen(
            who.command(sys.executable, CORRESPONDENT, *argv),
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1,
        )  # fmt: skip
        stack.callback(lambda: stop(self._process))

    def ask(self) -> str:
        """Who answers."""
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write("\n")
        return self._process.stdout.readline().strip()


@dataclass(frozen=True, slots=True)
class Stage:
    """Two servers and a client on one node, and a UDP Service over some of the servers."""

    lab: Lab
    node: LabNode
    client: Pod
    servers: Mapping[str, Pod]

    def put(self, *names: str) -> None:
        """The Service has these of the servers from now on."""
        for version in (4, 6):
            addresses = [self.servers[name].address(version) for name in names]
            port = [("udp", "UDP", PORT)]
            words = (f"dns-{version}", "default", "dns", addresses, port, version)
            self.lab.manifests.put(manifests.endpoint_slice(*words))

    def has(self, *names: str) -> bool:
        """Whether the kernel sends new flows to exactly these."""
        lines = self.node.weft("endpoints", "dns").splitlines()
        chosen = {line.split()[2].rpartition(":")[0].strip("[]") for line in lines[1:]}
        return chosen == {str(self.servers[name].address(v)) for name in names for v in (4, 6)}

    def who(self, kind: str) -> Pod | LabNode:
        return self.client if kind == "pod" else self.node


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    with Lab(lab_name()) as lab:
        node = lab.add_node("east")
        node.start(timeout_s=180)
        servers = {name: node.add_pod(name) for name in ("first", "second")}
        for pod in servers.values():
            node.serve(pod, PORT)
        port = [("udp", "UDP", PORT)]
        lab.manifests.put(manifests.service("dns", "default", list(VIPS.values()), port))
        yield Stage(lab, node, node.add_pod("client"), servers)


@pytest.fixture(autouse=True)
def law(stage: Stage) -> Iterator[None]:
    """Each test begins with the first server alone; after it the kernel holds the full plan."""
    stage.put("first")
    wait_for("the first server", lambda: stage.has("first"))
    yield
    assert_dump_equals_plan(stage.node)


FAMILIES = pytest.mark.parametrize("version", [4, 6], ids=["ipv4", "ipv6"])
DIALLED = pytest.mark.parametrize(
    "address", [VIPS[4], VIPS[6], f"::ffff:{VIPS[4]}"], ids=["ipv4", "ipv6", "mapped"]
)


@DIALLED
@pytest.mark.parametrize("kind", ["connected", "unconnected"])
@pytest.mark.parametrize("who", ["node", "pod"])
def test_a_socket_leaves_its_backend_within_a_second_of_its_going(
    stage: Stage, who: str, kind: str, address: str
) -> None:
    with ExitStack() as stack:
        one = Correspondent(stack, stage.who(who), kind, address, str(PORT))
        assert one.ask() == "first"
        stage.put("second")
        wait_for("the second server", lambda: one.ask() == "second", timeout_s=1)


@FAMILIES
def test_a_receive_that_waits_is_ended(stage: Stage, version: int) -> None:
    waiting = (
        "import socket, sys; s = socket.socket(int(sys.argv[1]), socket.SOCK_DGRAM);"
        "s.connect((sys.argv[2], int(sys.argv[3]))); print('waits', flush=True);"
        "s.settimeout(10); s.recv(1)"
    )
    family = {4: "2", 6: "10"}[version]
    argv = (sys.executable, "-c", waiting, family, VIPS[version], str(PORT))
    process = subprocess.Popen(
        stage.node.command(*argv), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout
    process.stdout.readline()
    stage.put("second")
    _, said = process.communicate(timeout=15)
    assert "ConnectionAbortedError" in said


@FAMILIES
def test_a_socket_that_dialled_the_pod_itself_is_left_alone(stage: Stage, version: int) -> None:
    pod, vip = str(stage.servers["first"].address(version)), VIPS[version]
    with ExitStack() as stack:
        straight = Correspondent(stack, stage.node, "connected", pod, str(PORT))
        later = Correspondent(stack, stage.node, "connected", pod, str(PORT), vip)
        through = Correspondent(stack, stage.node, "connected", vip, str(PORT))
        assert [one.ask() for one in (straight, later, through)] == ["first"] * 3
        stage.put("second")
        wait_for("the second server", lambda: through.ask() == "second", timeout_s=1)
        assert (straight.ask(), later.ask()) == ("first", "first")


@FAMILIES
def test_sockets_leave_a_service_that_is_deleted(stage: Stage, version: int) -> None:
    port = [("udp", "UDP", PORT)]
    with ExitStack() as stack:
        one = Correspondent(stack, stage.node, "connected", VIPS[version], str(PORT))
        assert one.ask() == "first"
        stage.lab.manifests.remove("Service", "dns", "default")
        wait_for("no server", lambda: one.ask() != "first")
        stage.lab.manifests.put(manifests.service("dns", "default", list(VIPS.values()), port))
        wait_for("a server", lambda: one.ask() == "first")


def test_a_backend_that_went_while_no_daemon_ran_is_left_when_one_does(stage: Stage) -> None:
    dialled = VIPS[4], VIPS[6], f"::ffff:{VIPS[4]}"
    with ExitStack() as stack:
        every = [Correspondent(stack, stage.node, "connected", a, str(PORT)) for a in dialled]
        assert [one.ask() for one in every] == ["first"] * 3
        stage.node.kill()
        stage.put("second")
        assert [one.ask() for one in every] == ["first"] * 3
        stage.node.start(timeout_s=180)
        wait_for("the second server", lambda: [one.ask() for one in every] == ["second"] * 3)
