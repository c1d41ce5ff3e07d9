"""Clients that no socket hook sees: Services, refusals, fragments and bulk, packet by packet.

They run outside the lab's cgroup, as a process of an opted-out pod would, so that TCP too is
translated on the pod's link; from real sockets, with the kernel's partial checksums and GSO, and
once more with every packet summed and cut before it is sent.
"""

import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from deploy.netlab import Lab, LabNode, Pod, manifests
from deploy.netlab.shell import attempt, run, stop, wait_for
from tests.netns.bulk import REFUSED

BULK = Path(__file__).with_name("bulk.py")
OFFLOAD = Path(__file__).with_name("offload.py")
PORT, VIP_PORT, CLOSED_PORT, NOBODYS_PORT = 8080, 80, 81, 82
STREAM_BYTES, DATAGRAM_BYTES = 8_000_000, 30_000
# Service -> its VIPs; the names of endpoints that have one.
VIPS = {
    "here": {4: "10.96.2.1", 6: "fd00:10:96::2:1"},
    "there": {4: "10.96.2.2", 6: "fd00:10:96::2:2"},
    "client": {4: "10.96.2.3", 6: "fd00:10:96::2:3"},
    "nobody": {4: "10.96.2.4", 6: "fd00:10:96::2:4"},
}


@dataclass(frozen=True, slots=True)
class Stage:
    lab: Lab
    pods: dict[str, Pod]

    def client(self, *words: object) -> str:
        """The client's word, sent from the namespace of its pod but no cgroup of the lab."""
        enter = ["nsenter", f"--net=/run/netns/{self.pods['client'].namespace}"]
        done = attempt(*enter, sys.executable, BULK, *map(str, words))
        return done.stdout.strip() or done.stderr

    def outside(self, version: int) -> str:
        return self.lab.outside[version == 6]


@pytest.fixture(scope="module", params=[True, False], ids=["offloaded", "by-software"])
def offloaded(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


@pytest.fixture(scope="module")
def stage(lab: Lab, offloaded: bool) -> Iterator[Stage]:
    east, west = lab.nodes
    pods = {
        "client": east.add_pod("client"),
        "here": east.add_pod("here"),
        "there": west.add_pod("there"),
    }
    with ExitStack() as stack:
        for name in pods:
            stack.callback((west if name == "there" else east).delete_pod, name)
        if not offloaded:
            sum_by_software(lab, pods.values())
        for pod in pods.values():
            serve(lab, stack, pod.name, pod.command())
        serve(lab, stack, "outside", ["nsenter", f"--net=/run/netns/{lab.switch}"])
        stage = Stage(lab, pods)
        publish(stage)
        yield stage


def sum_by_software(lab: Lab, pods: Iterable[Pod]) -> None:
    everyone: list[Pod | LabNode] = [*pods, *lab.nodes]
    for who in everyone:
        who.run(sys.executable, OFFLOAD, "eth0")
    # The far ends of the nodes' wires are the switch's.
    for number, _ in enumerate(lab.nodes, 1):
        enter = ("nsenter", f"--net=/run/netns/{lab.switch}")
        run(*enter, sys.executable, OFFLOAD, f"port{number}")


def serve(lab: Lab, stack: ExitStack, name: str, enter: list[str]) -> None:
    ready = lab.folder / f"bulk-{name}.ready"
    words = [*enter, sys.executable, BULK, "serve", PORT, ready]
    process = subprocess.Popen([str(word) for word in words])
    stack.callback(stop, process)
    wait_for(f"{name} serves", ready.exists)


def publish(stage: Stage) -> None:
    numbers = {"tcp": ("TCP", VIP_PORT, PORT), "udp": ("UDP", VIP_PORT, PORT),
               "closed": ("UDP", CLOSED_PORT, PORT + 1)}  # fmt: skip
    ports = [(name, proto, port) for name, (proto, port, _) in numbers.items()]
    targets = [(name, proto, target) for name, (proto, _, target) in numbers.items()]
    for name, vips in VIPS.items():
        stage.lab.manifests.put(
            manifests.service(f"bulk-{name}", "default", list(vips.values()), ports)
        )
        for version in (4, 6) if name in stage.pods else ():
            addresses = stage.pods[name].addresses
            words = (f"bulk-{name}-{version}", "default", f"bulk-{name}", addresses, targets)
            stage.lab.manifests.put(manifests.endpoint_slice(*words, version))
    last = VIPS["nobody"][6]
    wait_for("the services", lambda: stage.client("tcp", last, VIP_PORT, 1) == REFUSED)


@pytest.fixture(params=[4, 6], ids=["ipv4", "ipv6"])
def version(request: pytest.FixtureRequest) -> int:
    return int(request.param)


@pytest.mark.parametrize("name", ["here", "there", "client"])
def test_a_stream_through_a_vip_arrives_whole(stage: Stage, version: int, name: str) -> None:
    vip = VIPS[name][version]
    assert stage.client("tcp", vip, VIP_PORT, STREAM_BYTES) == f"ok {vip}"


@pytest.mark.parametrize("name", ["here", "there", "client"])
def test_a_fragmented_datagram_through_a_vip_comes_back_from_it(
    stage: Stage, version: int, name: str
) -> None:
    vip = VIPS[name][version]
    assert stage.client("udp", vip, VIP_PORT, DATAGRAM_BYTES) == f"ok {vip}"


@pytest.mark.parametrize("name", ["here", "there"])
def test_bulk_between_pods_arrives_whole(stage: Stage, version: int, name: str) -> None:
    address = str(stage.pods[name].address(version))
    assert stage.client("tcp", address, PORT, STREAM_BYTES) == f"ok {address}"
    assert stage.client("udp", address, PORT, DATAGRAM_BYTES) == f"ok {address}"


def test_bulk_to_the_outside_arrives_whole(stage: Stage, version: int) -> None:
    address = stage.outside(version)
    assert stage.client("tcp", address, PORT, STREAM_BYTES) == f"ok {address}"
    # An IPv6 answer may be lost once: the outside must be told of the pod's smaller MTU.
    wait_for(
        "a datagram to come back",
        lambda: stage.client("udp", address, PORT, DATAGRAM_BYTES) == f"ok {address}",
    )


def test_where_nobody_is_a_client_is_refused_at_once(stage: Stage, version: int) -> None:
    for vip, port in ((VIPS["nobody"][version], VIP_PORT), (VIPS["here"][version], NOBODYS_PORT)):
        assert stage.client("tcp", vip, port, 1) == REFUSED
        assert stage.client("closed", vip, port) == REFUSED


@pytest.mark.parametrize("name", ["here", "there"])
def test_a_backends_refusal_reaches_the_client_through_the_vip(
    stage: Stage, version: int, name: str
) -> None:
    assert stage.client("closed", VIPS[name][version], CLOSED_PORT) == REFUSED


def test_a_refusal_from_outside_reaches_the_client(stage: Stage, version: int) -> None:
    assert stage.client("closed", stage.outside(version), PORT + 1) == REFUSED
