"""Owns a stage of Services that are exposed: a node port, a load balancer's address, and a client
outside whose route to that address leads to the one or the other node.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from ipaddress import ip_interface
from typing import Any

from deploy.netlab import Lab, Pod, manifests
from deploy.netlab.shell import run, wait_for
from tests.netns.ask import Answer, Host, ask
from tests.netns.outside import serve

PORT, NODE_PORT, LOCAL_NODE_PORT = 8080, 30_090, 30_091
VIPS = {4: "10.96.4.1", 6: "fd00:10:96::4:1"}
LOCAL_VIPS = {4: "10.96.4.2", 6: "fd00:10:96::4:2"}
BALANCERS = {4: "198.51.100.40", 6: "2001:db8:f::40"}


@dataclass(frozen=True, slots=True)
class Stage:
    lab: Lab
    client: Host
    pods: dict[str, Pod]

    def own(self, node: int, version: int) -> str:
        return str(ip_interface(self.lab.nodes[node].underlay[version == 6]).ip)

    def enter_by(self, node: int, version: int) -> None:
        """The client's route to the load balancer's address."""
        words = ("route", "replace", BALANCERS[version], "via", self.own(node, version))
        run("ip", "-n", self.lab.switch, *words)

    def answers(self, address: str, port: int, *, udp: bool) -> list[Answer]:
        """To a dozen questions, each from a port of its own: all of them, from what was asked."""
        found = [ask(self.client, address, port, udp=udp) for _ in range(12)]
        answers = [answer for answer in found if answer]
        assert [a.peer for a in answers] == [address] * len(found)
        return answers

    def servers(self, address: str, port: int, *, udp: bool) -> set[str]:
        return {answer.server for answer in self.answers(address, port, udp=udp)}

    def is_served(self, address: str) -> bool:
        return ask(self.client, address, NODE_PORT, timeout_s=0.5) is not None


@contextmanager
def exposed(lab: Lab) -> Iterator[Stage]:
    """A pod on each of two nodes and their Services, when both nodes serve them."""
    east, west = lab.nodes
    pods = {"here": east.add_pod("here"), "there": west.add_pod("there")}
    with ExitStack() as stack:
        for name, pod in pods.items():
            serve(lab, stack, pod.namespace, name, PORT)
        stage = Stage(lab, Host(lab.switch, lab.cgroup), pods)
        publish(stage, "all", VIPS, NODE_PORT, ("here", "there"), {})
        publish(stage, "local", LOCAL_VIPS, LOCAL_NODE_PORT, ("there",),
                {"externalTrafficPolicy": "Local"})  # fmt: skip
        for version in (4, 6):
            stage.enter_by(0, version)
            for node in (0, 1):
                wait_for("the node port", partial(stage.is_served, stage.own(node, version)))
        yield stage


def publish(
    stage: Stage, name: str, vips: dict[int, str], port: int, pods: tuple[str, ...], spec: Any
) -> None:
    ports = [("tcp", "TCP", PORT), ("udp", "UDP", PORT)]
    for version in (4, 6):
        words = (f"{name}-{version}", "default", name, (), ports, version)
        piece = dict(manifests.endpoint_slice(*words))
        piece["endpoints"] = [
            {
                "addresses": [str(stage.pods[pod].address(version))],
                "nodeName": {"here": "east", "there": "west"}[pod],
                "conditions": {"ready": True},
            }
            for pod in pods
        ]
        stage.lab.manifests.put(piece)
    service = dict(manifests.service(name, "default", list(vips.values()), ports))
    listed = [{**one, "nodePort": port} for one in service["spec"]["ports"]]
    service["spec"] = {**service["spec"], "type": "LoadBalancer", "ports": listed, **spec}
    if not spec:
        ingress = [{"ip": address} for address in BALANCERS.values()]
        service["status"] = {"loadBalancer": {"ingress": ingress}}
    stage.lab.manifests.put(service)
