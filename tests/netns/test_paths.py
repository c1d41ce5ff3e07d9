"""Every cell of the table of paths, walked over TCP and UDP in every mode and family."""

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from ipaddress import ip_interface, ip_network
from subprocess import DEVNULL, Popen

import pytest

from deploy.netlab import Lab, LabNode, Pod, manifests
from deploy.netlab.node import ANSWER
from deploy.netlab.shell import in_namespace, stop, wait_for
from tests.netns.ask import ask, error_of
from tests.netns.paths import CELLS, Cell, Seen, Side

PORT = 8080
VIPS = {
    Side.VIP_HERE: {4: "10.96.1.1", 6: "fd00:10:96::1:1"},
    Side.VIP_THERE: {4: "10.96.1.2", 6: "fd00:10:96::1:2"},
}
NOBODY = {4: "10.96.1.3", 6: "fd00:10:96::1:3"}
VIP_PORT = 80


@dataclass(frozen=True, slots=True)
class Stage:
    """The lab's actors: a client and a server pod on east, a server pod on west, two VIPs."""

    lab: Lab
    client: Pod
    here: Pod
    there: Pod

    @property
    def east(self) -> LabNode:
        return self.lab.nodes[0]

    def target(self, side: Side, version: int) -> tuple[str, int, str]:
        """Address, port and name of the server that a target side stands for."""
        east, west = self.lab.nodes
        own: dict[Side, Callable[[], tuple[str, int, str]]] = {
            Side.POD_HERE: lambda: (str(self.here.address(version)), PORT, "here"),
            Side.POD_THERE: lambda: (str(self.there.address(version)), PORT, "there"),
            Side.VIP_HERE: lambda: (VIPS[Side.VIP_HERE][version], VIP_PORT, "here"),
            Side.VIP_THERE: lambda: (VIPS[Side.VIP_THERE][version], VIP_PORT, "there"),
            Side.NODE: lambda: (underlay(east, version), PORT, "east"),
            Side.OTHER_NODE: lambda: (underlay(west, version), PORT, "west"),
            Side.OUTSIDE: lambda: (self.lab.outside[version == 6], PORT, "outside"),
        }
        return own[side]()

    def seen(self, cell: Cell, version: int) -> str:
        own = {
            Seen.POD: str(self.client.address(version)),
            Seen.NODE: underlay(self.east, version),
            Seen.GATEWAY: gateway(self.east, version),
        }
        return own[cell.seen]


def underlay(node: LabNode, version: int) -> str:
    return str(ip_interface(node.underlay[version == 6]).ip)


def gateway(node: LabNode, version: int) -> str:
    return str(ip_network(node.pod_cidrs[version == 6])[1])


@pytest.fixture(scope="module")
def stage(lab: Lab) -> Iterator[Stage]:
    east, west = lab.nodes
    pods = east.add_pod("client"), east.add_pod("here"), west.add_pod("there")
    east.serve(pods[1], PORT)
    west.serve(pods[2], PORT)
    hosts = [host_server(lab, n.namespace, n.name) for n in lab.nodes]
    hosts.append(host_server(lab, lab.switch, "outside"))
    stage = Stage(lab, *pods)
    publish(stage)
    yield stage
    for host in hosts:
        stop(host)


def host_server(lab: Lab, namespace: str, name: str) -> "Popen[bytes]":
    ready = lab.folder / f"{name}.ready"
    argv = (sys.executable, ANSWER, name, str(PORT), ready)
    process = Popen(in_namespace(namespace, lab.cgroup, argv), stdout=DEVNULL, stderr=DEVNULL)
    wait_for(f"{name} serves", ready.exists)
    return process


def publish(stage: Stage) -> None:
    ports = [("tcp", "TCP", VIP_PORT), ("udp", "UDP", VIP_PORT)]
    targets = [("tcp", "TCP", PORT), ("udp", "UDP", PORT)]
    for name, pod, vips in (
        ("here", stage.here, VIPS[Side.VIP_HERE]),
        ("there", stage.there, VIPS[Side.VIP_THERE]),
        ("nobody", None, NOBODY),
    ):
        stage.lab.manifests.put(manifests.service(name, "default", list(vips.values()), ports))
        for version in (4, 6) if pod else ():
            stage.lab.manifests.put(
                manifests.endpoint_slice(
                    f"{name}-{version}",
                    "default",
                    name,
                    pod.addresses if pod else (),
                    targets,
                    version,
                )
            )
    vip = VIPS[Side.VIP_THERE][6]
    wait_for("the services", lambda: ask(stage.client, vip, VIP_PORT, udp=True) is not None)


@pytest.mark.parametrize("udp", [False, True], ids=["tcp", "udp"])
@pytest.mark.parametrize("version", [4, 6], ids=["ipv4", "ipv6"])
@pytest.mark.parametrize("cell", CELLS, ids=lambda c: f"{c.source} to {c.target}".replace(" ", "-"))
def test_a_flow_takes_its_path_and_its_reply_comes_back(
    stage: Stage, cell: Cell, version: int, udp: bool
) -> None:
    address, port, server = stage.target(cell.target, version)
    source = stage.client if cell.source is Side.POD else stage.east
    answer = ask(source, address, port, udp=udp)
    assert answer is not None, stage.east.weft("drops")
    assert (answer.server, answer.seen, answer.peer) == (server, stage.seen(cell, version), address)


@pytest.mark.parametrize("udp", [False, True], ids=["tcp", "udp"])
@pytest.mark.parametrize("version", [4, 6], ids=["ipv4", "ipv6"])
@pytest.mark.parametrize("source", [Side.POD, Side.NODE])
def test_a_service_with_nothing_behind_it_refuses_at_once(
    stage: Stage, source: Side, version: int, udp: bool
) -> None:
    who = stage.client if source is Side.POD else stage.east
    assert "ConnectionRefusedError" in error_of(who, NOBODY[version], VIP_PORT, udp=udp)
