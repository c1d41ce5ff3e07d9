"""Pods' hostPorts, from every side: the node takes connections in for its own pod, and no longer
than the pod asks for them.
"""

from collections.abc import Iterator
from ipaddress import ip_interface
from typing import Any

import pytest

from deploy.netlab import Lab, LabNode, Pod, manifests
from deploy.netlab.shell import wait_for
from tests.netns.ask import Answer, Host, ask, error_of
from tests.netns.conftest import lab_name

PORT, HOST_PORT, LOOPBACK_PORT = 8080, 8088, 8089
BOTH = pytest.mark.parametrize("version", [4, 6], ids=["ipv4", "ipv6"])
KINDS = pytest.mark.parametrize("udp", [False, True], ids=["tcp", "udp"])
LOOPBACKS = {4: "127.0.0.1", 6: "::1"}


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with Lab(lab_name(), mode="auto") as made:
        for name in ("east", "west"):
            made.add_node(name)
        for node in made.nodes:
            node.start()
        yield made


@pytest.fixture(scope="module")
def server(lab: Lab) -> Pod:
    """A pod of east that asks for a port of its node, and for another at the loopback."""
    east = lab.nodes[0]
    pod = east.add_pod("server")
    east.serve(pod, PORT)
    asked: list[dict[str, Any]] = [
        {"containerPort": PORT, "protocol": protocol, **where}
        for protocol in ("TCP", "UDP")
        for where in (
            {"hostPort": HOST_PORT},
            {"hostPort": LOOPBACK_PORT, "hostIP": LOOPBACKS[4]},
            {"hostPort": LOOPBACK_PORT, "hostIP": LOOPBACKS[6]},
        )
    ]
    said = manifests.pod(pod.name, pod.space, pod.uid, east.name, pod.addresses, {})
    spec = {**said["spec"], "containers": [{"ports": asked}]}
    lab.manifests.put({**said, "spec": spec})
    wait_for("the hostPort", lambda: ask(east, own(east, 4), HOST_PORT) is not None)
    return pod


def own(node: LabNode, version: int) -> str:
    return str(ip_interface(node.underlay[version == 6]).ip)


@BOTH
@KINDS
def test_a_client_outside_reaches_the_pod_and_is_seen(
    lab: Lab, server: Pod, version: int, udp: bool
) -> None:
    address = own(lab.nodes[0], version)
    outside = lab.outside[version == 6]
    answer = ask(Host(lab.switch, lab.cgroup), address, HOST_PORT, udp=udp)
    assert answer == Answer("server", outside, address)


@BOTH
@KINDS
@pytest.mark.parametrize("node", [0, 1], ids=["own-node", "other-node"])
def test_nodes_and_their_pods_reach_it(
    lab: Lab, server: Pod, version: int, udp: bool, node: int
) -> None:
    east, at = lab.nodes[0], lab.nodes[node]
    pod = at.pods.get("client") or at.add_pod("client")
    for who in (at, pod):
        answer = ask(who, own(east, version), HOST_PORT, udp=udp)
        assert answer is not None
        assert answer.server == "server"
        assert answer.peer == own(east, version)
        if who is pod:
            seen = str(pod.address(version)) if at is east else own(at, version)
            assert answer.seen == seen


@BOTH
@KINDS
def test_a_port_at_the_loopback_is_the_own_nodes_alone(
    lab: Lab, server: Pod, version: int, udp: bool
) -> None:
    east = lab.nodes[0]
    answer = ask(east, LOOPBACKS[version], LOOPBACK_PORT, udp=udp)
    assert answer is not None
    assert answer.server == "server"
    outside = Host(lab.switch, lab.cgroup)
    assert "ConnectionRefused" in error_of(outside, own(east, version), LOOPBACK_PORT, udp=udp)


def test_it_goes_with_the_pod(lab: Lab) -> None:
    east, outside = lab.nodes[0], Host(lab.switch, lab.cgroup)
    pod = east.add_pod("brief")
    east.serve(pod, PORT)
    said = manifests.pod(pod.name, pod.space, pod.uid, east.name, pod.addresses, {})
    ports = [{"containerPort": PORT, "hostPort": 8090}]
    lab.manifests.put({**said, "spec": {**said["spec"], "containers": [{"ports": ports}]}})
    wait_for("the hostPort", lambda: ask(outside, own(east, 4), 8090) is not None)
    east.delete_pod("brief")
    wait_for("its end", lambda: "ConnectionRefused" in error_of(outside, own(east, 4), 8090))
