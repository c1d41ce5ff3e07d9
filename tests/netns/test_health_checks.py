"""What load balancers and cluster autoscalers are told by real daemons, from outside."""

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pytest

from deploy.netlab import Lab, LabNode, Pod, manifests
from deploy.netlab.shell import attempt, stop, wait_for
from tests.netns.conftest import assert_dump_equals_plan, lab_name

VIPS = ["10.96.7.1", "fd00:10:96::71"]
CHECK, OTHER_CHECK = 32101, 32102
AUTOSCALER = {"key": "ToBeDeletedByClusterAutoscaler", "value": "1", "effect": "NoSchedule"}

# Holds a port until its standard input ends.
HOLDING = """
import socket, sys
with socket.create_server(("0.0.0.0", int(sys.argv[1]))):
    print("held", flush=True)
    sys.stdin.read()
"""


@dataclass(frozen=True, slots=True)
class Answer:
    """Of an HTTP server; code 0: there was none."""

    code: int
    weight: str
    body: str


@dataclass(frozen=True, slots=True)
class Stage:
    """Two nodes; the only endpoint of Service `web` is a pod on west."""

    lab: Lab
    server: Pod

    @property
    def east(self) -> LabNode:
        return self.lab.nodes[0]

    @property
    def west(self) -> LabNode:
        return self.lab.nodes[1]

    def ask(self, node: LabNode, port: int, path: str = "/", version: int = 4) -> Answer:
        """As a load balancer outside of the cluster does."""
        (host,) = (a.split("/")[0] for a in node.underlay if (":" in a) == (version == 6))
        url = f"http://{f'[{host}]' if version == 6 else host}:{port}{path}"
        said = "\n%{http_code} %header{x-load-balancing-endpoint-weight}"
        done = attempt(
            "ip", "netns", "exec", self.lab.switch, "curl", "-s", "-g", "-m", "3", "-w", said, url
        )
        body, _, last = done.stdout.rpartition("\n")
        code, _, weight = last.partition(" ")
        return Answer(int(code), weight, body)

    def put_service(self, name: str, port: int, number: int = 0, **spec: Any) -> None:
        exposed = manifests.service(name, "default", _numbered(number), [("web", "TCP", 80)])
        local = {
            "type": "LoadBalancer",
            "externalTrafficPolicy": "Local",
            "healthCheckNodePort": port,
        }
        self.lab.manifests.put({**exposed, "spec": {**exposed["spec"], **local, **spec}})

    def put_slices(self, **conditions: bool) -> None:
        for version in (4, 6):
            piece = manifests.endpoint_slice(
                f"web-{version}", "default", "web", self.server.addresses, [("web", "TCP", 8080)],
                version,
            )  # fmt: skip
            said = {"nodeName": "west", "conditions": {"ready": True, **conditions}}
            endpoints = [endpoint | said for endpoint in piece["endpoints"]]
            self.lab.manifests.put({**piece, "endpoints": endpoints})


def _numbered(number: int) -> list[str]:
    return [f"10.96.7.{number + 1}", f"fd00:10:96::7{number + 1}"]


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    with Lab(lab_name()) as lab:
        for name in ("east", "west"):
            lab.add_node(name).start()
        made = Stage(lab, lab.nodes[1].add_pod("server"))
        made.put_slices()
        yield made


@pytest.fixture(autouse=True)
def law(stage: Stage) -> Iterator[None]:
    """After every test the kernel holds exactly the full plan."""
    yield
    for node in stage.lab.nodes:
        assert_dump_equals_plan(node)


@pytest.fixture
def web(stage: Stage) -> Iterator[None]:
    """The Service, asked about on both nodes."""
    stage.put_service("web", CHECK)
    for node in stage.lab.nodes:
        wait_for("an answer", lambda node=node: stage.ask(node, CHECK).code != 0)  # type: ignore[misc]
    yield
    stage.lab.manifests.remove("Service", "web", "default")
    wait_for("no answer", lambda: stage.ask(stage.west, CHECK).code == 0)


@pytest.mark.parametrize("version", [4, 6])
def test_the_node_with_an_endpoint_is_healthy_and_the_other_is_not(
    stage: Stage, web: None, version: int
) -> None:
    west, east = (stage.ask(n, CHECK, "/healthz", version) for n in (stage.west, stage.east))
    assert (west.code, west.weight) == (200, "1")
    assert json.loads(west.body) == {
        "service": {"namespace": "default", "name": "web"},
        "localEndpoints": 1,
        "serviceProxyHealthy": True,
    }
    assert (east.code, east.weight) == (503, "0")


def test_a_node_drains_as_its_endpoint_terminates(stage: Stage, web: None) -> None:
    stage.put_slices(ready=False, serving=True, terminating=True)
    try:
        wait_for("503", lambda: stage.ask(stage.west, CHECK).code == 503)
    finally:
        stage.put_slices()
    wait_for("200", lambda: stage.ask(stage.west, CHECK).code == 200)


def test_the_port_moves_and_closes_with_the_traffic_policy(stage: Stage, web: None) -> None:
    stage.put_service("web", OTHER_CHECK)
    wait_for("the new port", lambda: stage.ask(stage.west, OTHER_CHECK).code == 200)
    assert stage.ask(stage.west, CHECK).code == 0
    stage.put_service("web", OTHER_CHECK, externalTrafficPolicy="Cluster")
    wait_for("refused", lambda: stage.ask(stage.west, OTHER_CHECK).code == 0)
    stage.put_service("web", CHECK)
    wait_for("the old port", lambda: stage.ask(stage.west, CHECK).code == 200)


def test_a_taken_port_is_said_and_harms_no_other_service(stage: Stage, web: None) -> None:
    argv = stage.west.command(sys.executable, "-c", HOLDING, str(OTHER_CHECK))
    holder = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        stage.put_service("second", OTHER_CHECK, 1)
        wait_for("the status", lambda: not check(stage.west)["passed"])
        assert "default/second, IPv4: " in check(stage.west)["message"]
        assert stage.ask(stage.west, CHECK).code == 200
    finally:
        stop(holder)
    wait_for("the port", lambda: stage.ask(stage.west, OTHER_CHECK).code == 503)
    assert check(stage.west)["passed"]
    stage.lab.manifests.remove("Service", "second", "default")


def check(node: LabNode) -> Mapping[str, Any]:
    """What `weft status` says of health checks."""
    status = json.loads(node.weft("status", "-o", "json", check=False))
    found: Mapping[str, Any] = next(c for c in status["checks"] if c["name"] == "health-checks")
    return {"passed": False, "message": "", **found}


@pytest.mark.parametrize("version", [4, 6])
def test_the_node_is_healthy_until_the_autoscaler_takes_it_and_lives_on(
    stage: Stage, version: int
) -> None:
    def code(path: str) -> int:
        return stage.ask(stage.east, 10256, path, version).code

    assert (code("/healthz"), code("/livez"), code("/nothing")) == (200, 200, 404)
    node = next(iter(stage.lab.manifests.folder.glob("node.*.east.yaml")))
    before = node.read_text()
    hosts = [a.split("/")[0] for a in stage.east.underlay]
    leaving = manifests.node("east", hosts, stage.east.pod_cidrs)
    stage.lab.manifests.put({**leaving, "spec": {**leaving["spec"], "taints": [AUTOSCALER]}})
    try:
        wait_for("503", lambda: code("/healthz") == 503)
        assert code("/livez") == 200
    finally:
        node.write_text(before)
    wait_for("200", lambda: code("/healthz") == 200)


def test_loopback_tells_the_mode_and_the_settings_and_nobody_else(stage: Stage) -> None:
    def said(path: str) -> str:
        return stage.east.run("curl", "-sf", f"http://127.0.0.1:10249{path}")

    assert said("/proxyMode") == "weft"
    assert said("/healthz") == "ok"
    assert json.loads(said("/configz"))["weft"]["node"] == "east"
    assert stage.ask(stage.east, 10249, "/configz").code == 0
