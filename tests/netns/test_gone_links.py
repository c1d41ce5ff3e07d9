"""Links that are deleted and made again: their hooks too, and no pin is left of those before."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from deploy.netlab import Lab, LabNode, Pod
from deploy.netlab.lab import NEAR
from deploy.netlab.node import ANSWER, Wire
from deploy.netlab.shell import in_namespace, run, stop, wait_for
from tests.netns.conftest import assert_dump_equals_plan, lab_name
from weft.bpf import syscall
from weft.bpf.features import probe
from weft.bpf.syscall import BpfError

pytestmark = pytest.mark.long

PORT = 8080
SHAPED = {"kubernetes.io/ingress-bandwidth": "100M"}
KNOCK = "import socket; print(socket.create_connection(('{}', {}), 2).recv(100).decode())"


@dataclass(frozen=True, slots=True)
class Stage:
    lab: Lab
    client: Pod

    @property
    def node(self) -> LabNode:
        return self.lab.nodes[0]

    def remake_uplink(self) -> None:
        self.node.run("ip", "link", "delete", "eth0")
        wire = Wire(self.lab.switch, NEAR.bridge, "port1", self.lab.mtu_bytes)
        self.node.join(wire, self.lab.outside)

    def is_masqueraded(self) -> bool:
        """Whether the client reaches the outside, and is seen there with its node's address."""
        script = KNOCK.format(self.lab.outside[0], PORT)
        said = self.client.attempt(sys.executable, "-c", script)
        return said.stdout.strip() == f"outside {self.node.underlay[0].split('/')[0]}"


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    with Lab(lab_name()) as lab:
        node = lab.add_node("east")
        node.start()
        ready = lab.folder / "outside.ready"
        argv: list[str | Path] = [sys.executable, ANSWER, "outside", str(PORT), ready]
        outside = subprocess.Popen(in_namespace(lab.switch, lab.cgroup, argv))
        try:
            wait_for("the host outside", ready.exists)
            yield Stage(lab, node.add_pod("client"))
        finally:
            stop(outside)


@pytest.fixture(autouse=True)
def law(stage: Stage) -> Iterator[None]:
    """After every test the kernel holds the full plan, and pins of hooks are those of links."""
    yield
    assert_dump_equals_plan(stage.node)
    assert defunct(stage.node) == []


def pins(node: LabNode) -> dict[str, int]:
    """The pinned hooks, and what the kernel says that each is attached to: 0 is nothing."""
    found = {}
    for pin in (node.folder / "bpf" / "weft" / "hooks").iterdir():
        with suppress(BpfError):  # it went away just now
            fd = syscall.open_pin(pin)
            found[pin.name] = syscall.link_info(fd, pin.name).target
            os.close(fd)
    return found


def defunct(node: LabNode) -> list[str]:
    return [name for name, target in pins(node).items() if not target]


def maps(node: LabNode) -> list[str]:
    return sorted(path.name for path in Path(node.folder, "bpf", "weft", "maps").iterdir())


def test_fifty_pods_come_and_go_and_leave_nothing_behind(stage: Stage) -> None:
    """A third beside another's qdiscs, with pinned hooks of their own; a third whose namespace is
    gone before DEL comes."""
    before = pins(stage.node), maps(stage.node)
    for number in range(50):
        name = f"guest{number}"
        shaped = SHAPED if number % 3 == 0 and probe().tcx else None
        pod = stage.node.add_pod(name, annotations=shaped)
        if number % 3 == 1:
            run("ip", "netns", "delete", pod.namespace)
        stage.node.delete_pod(name)
    wait_for("no pin of theirs", lambda: (pins(stage.node), maps(stage.node)) == before)


def test_shaped_pods_that_vanish_leave_no_pins(stage: Stage) -> None:
    """Their links go first, and nobody says DEL until later."""
    if not probe().tcx:
        pytest.skip("this kernel has no tcx")
    before = pins(stage.node)
    guests = [stage.node.add_pod(f"gone{n}", annotations=SHAPED) for n in range(3)]
    assert len(pins(stage.node)) == len(before) + 6
    for pod in guests:
        run("ip", "netns", "delete", pod.namespace)
    for pod in guests:
        stage.node.delete_pod(pod.name)
    wait_for("no pin of theirs", lambda: pins(stage.node) == before)


def test_an_uplink_that_is_made_again_gets_its_hooks(stage: Stage) -> None:
    assert stage.is_masqueraded()
    before = pins(stage.node)
    for _again in range(3):
        stage.remake_uplink()
        wait_for("the way outside", stage.is_masqueraded)
    after = pins(stage.node)
    assert len(after) == len(before)
    assert after != before


def test_an_uplink_that_is_made_again_while_no_daemon_runs_gets_its_hooks(stage: Stage) -> None:
    """With its address went the routes to pods, which prefer it as source."""
    before = pins(stage.node)
    stage.node.kill()
    stage.remake_uplink()
    stage.node.start()
    wait_for("the way outside", stage.is_masqueraded)
    wait_for("no pin of the old one", lambda: len(pins(stage.node)) == len(before))


def test_a_pod_made_again_under_its_name_gets_its_hooks(stage: Stage) -> None:
    before = len(pins(stage.node))
    for _again in range(3):
        pod = stage.node.add_pod("again", annotations=SHAPED if probe().tcx else None)
        script = KNOCK.format(stage.lab.outside[0], PORT)
        assert "outside" in pod.run(sys.executable, "-c", script)
        stage.node.delete_pod("again")
    wait_for("no pin of theirs", lambda: len(pins(stage.node)) == before)


def test_the_overlay_device_that_is_made_again_gets_its_hooks(stage: Stage) -> None:
    before = pins(stage.node)
    for _again in range(3):
        stage.node.run("ip", "link", "delete", "weft.vx")
        wait_for("the device", lambda: "weft.vx" in stage.node.run("ip", "link"))
        wait_for(
            "its hooks",
            lambda: len(pins(stage.node)) == len(before) and not defunct(stage.node),
        )
    assert pins(stage.node) != before
