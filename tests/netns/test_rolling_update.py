"""A Deployment rolls under 2,000 new connections a second, and none of them fails."""

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from deploy.netlab import Lab, LabNode, Pod, manifests
from deploy.netlab.shell import stop, wait_for
from tests.netns.conftest import assert_dump_equals_plan, lab_name

pytestmark = pytest.mark.long

CLIENT, SERVER = (Path(__file__).with_name(name) for name in ("openloop.py", "greeter.py"))
PORT, RATE, REPLICAS = 8080, 2_000, 3
VIPS = {4: "10.96.8.1", 6: "fd00:96::8:1"}


class Deployment:
    """Pods behind one Service, and what their slices say of each (discovery/v1 conditions)."""

    def __init__(self, lab: Lab, node: LabNode) -> None:
        self._lab, self._node = lab, node
        self._pods: dict[str, Pod] = {}
        self._servers: dict[str, subprocess.Popen[bytes]] = {}
        self._terminating: set[str] = set()
        port = [("http", "TCP", PORT)]
        lab.manifests.put(manifests.service("web", "default", list(VIPS.values()), port))

    def add(self, name: str) -> None:
        """A pod that serves; the endpoint controller sees it ready after that."""
        pod = self._node.add_pod(name)
        # Each server has its own: one of a former pod would say that this one listens.
        ready = self._node.folder / "run" / f"{pod.uid}.ready"
        argv = pod.command(sys.executable, SERVER, name, str(PORT), ready)
        self._servers[name] = subprocess.Popen(argv, stderr=subprocess.DEVNULL)
        wait_for(f"{name} serves", ready.exists)
        self._pods[name] = pod
        self._say()
        wait_for(f"{name} gets connections", lambda: name in self._chosen())

    def terminate(self, name: str) -> None:
        """Deleted: not ready from then on, it serves on until nothing comes any more, ends, and
        only then leaves its slices.
        """
        self._terminating.add(name)
        self._say()
        wait_for(f"{name} gets none", lambda: name not in self._chosen())
        stop(self._servers.pop(name))
        self._pods.pop(name)
        self._say()
        self._node.delete_pod(name)

    def close(self) -> None:
        for name in list(self._pods):
            stop(self._servers.pop(name))
            del self._pods[name]
            self._node.delete_pod(name)
        self._say()

    def _say(self) -> None:
        for version in (4, 6):
            words = (f"web-{version}", "default", "web", (), [("http", "TCP", PORT)], version)
            piece = dict(manifests.endpoint_slice(*words))
            piece["endpoints"] = [
                {
                    "addresses": [str(pod.address(version))],
                    "nodeName": self._node.name,
                    "conditions": {
                        "ready": name not in self._terminating,
                        "serving": True,
                        "terminating": name in self._terminating,
                    },
                }
                for name, pod in self._pods.items()
            ]
            self._lab.manifests.put(piece)

    def _chosen(self) -> set[str]:
        """Whom the kernel sends new flows to, in both families."""
        listed = json.loads(self._node.weft("endpoints", "web", "-o", "json"))["items"]
        chosen = {one["address"] for one in listed if one.get("chosen")}
        return {
            name for name, pod in self._pods.items() if set(map(str, pod.addresses)) <= chosen
        } | {name for name in self._terminating & self._pods.keys()
             if set(map(str, self._pods[name].addresses)) & chosen}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Stage:
    """One node and clients: itself, a pod, and one whose VIPs are translated packet by packet."""

    lab: Lab
    clients: Mapping[str, Pod | LabNode]


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    with Lab(lab_name()) as lab:
        node = lab.add_node("east")
        node.start(timeout_s=300)
        packets = node.add_pod("packets", annotations={"weft.dev/socket-hook": "off"})
        yield Stage(lab, {"node": node, "socket": node.add_pod("client"), "packets": packets})


@contextmanager
def deployment(stage: Stage) -> Iterator[Deployment]:
    made = Deployment(stage.lab, stage.lab.nodes[0])
    try:
        for number in range(REPLICAS):
            made.add(f"old{number}")
        yield made
    finally:
        made.close()


@pytest.mark.parametrize(("who", "version"), [("socket", 4), ("packets", 6), ("node", 6)])
def test_no_connection_fails_while_every_pod_is_replaced(
    stage: Stage, who: str, version: int
) -> None:
    argv = (sys.executable, CLIENT, VIPS[version], str(PORT), str(RATE))
    with deployment(stage) as rolling:
        load = subprocess.Popen(
            stage.clients[who].command(*argv), stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        try:
            for number in range(REPLICAS):
                rolling.add(f"new{number}")
                rolling.terminate(f"old{number}")
            said, _ = load.communicate(timeout=120)
        finally:
            stop(load)
        began, failures, servers = json.loads(said)
        assert not failures, f"of {began}: {failures}"
        assert sum(servers.values()) == began
        assert set(servers) == {f"{age}{n}" for age in ("old", "new") for n in range(REPLICAS)}
    assert_dump_equals_plan(stage.lab.nodes[0])
