"""A server that lets in by labels, and pods of another node whose address the API does not say."""

import json
import os
import select
import socket
import struct
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

from deploy.netlab import Lab, LabNode, Pod, manifests
from deploy.netlab.shell import attempt, run, wait_for
from tests.netns.hook_scene import inside

PORT = 8080
_FAMILIES = {4: socket.AF_INET, 6: socket.AF_INET6}
# include/uapi/linux/tcp.h, struct tcp_info: tcpi_state, tcpi_total_retrans.
_TCP_INFO, _ESTABLISHED = struct.Struct("=B99xI"), 1
_NONBLOCKING = socket.SOCK_STREAM | socket.SOCK_NONBLOCK
FIRST_SYN_S = 0.5
"""A client sends its second SYN after 1 s (RFC 6298)."""
OK, OTHER = {"app": "ok"}, {"app": "other"}

ONLY_OK = {
    "apiVersion": "networking.k8s.io/v1",
    "kind": "NetworkPolicy",
    "metadata": {"name": "only-ok", "namespace": "default"},
    "spec": {
        "podSelector": {"matchLabels": {"app": "server"}},
        "policyTypes": ["Ingress"],
        "ingress": [{"from": [{"podSelector": {"matchLabels": OK}}]}],
    },
}


def _stands_after_one_syn(one: socket.socket) -> bool:
    """The kernel's word, whatever the time: this process may have had to wait for its turn."""
    info = one.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO.size)
    state, retransmitted = _TCP_INFO.unpack(info)
    return bool(state == _ESTABLISHED and not retransmitted)


@dataclass(frozen=True, slots=True)
class Stage:
    """Fresh pods come and go on east; the server on west lets in those with app=ok."""

    lab: Lab
    server: Pod

    @property
    def east(self) -> LabNode:
        return self.lab.nodes[0]

    @property
    def west(self) -> LabNode:
        return self.lab.nodes[1]

    def reached(
        self, pod: Pod, families: tuple[int, ...] = (4, 6), source_port: int = 0
    ) -> set[int]:
        """The families in which a connection from the pod to the server stands after one SYN."""
        with ExitStack() as stack:
            with inside(pod.namespace):
                dialled = {
                    stack.enter_context(socket.socket(_FAMILIES[family], _NONBLOCKING)): family
                    for family in families
                }
            for one, family in dialled.items():
                one.bind((str(pod.address(family)), source_port))
                one.connect_ex((str(self.server.address(family)), PORT))
            end_s, found, left_s = time.monotonic() + FIRST_SYN_S, set[int](), FIRST_SYN_S
            while len(found) < len(dialled) and left_s > 0:
                left_s = end_s - time.monotonic()
                waiting = [one for one, family in dialled.items() if family not in found]
                _, ready, _ = select.select([], waiting, [], max(0.0, left_s))
                found |= {dialled[one] for one in ready if _stands_after_one_syn(one)}
            return found


def favour(node: LabNode) -> None:
    """Ahead of this machine's other work: the time that a packet waits is not the length of the
    machine's run queue (350 ms were seen with ten busy processes on two cores).
    """
    assert node.daemon
    for thread in Path(f"/proc/{node.daemon.pid}/task").iterdir():
        os.setpriority(os.PRIO_PROCESS, int(thread.name), -15)


@contextmanager
def staged(lab: Lab) -> Iterator[Stage]:
    """The scene on two nodes that do not run yet."""
    for node in lab.nodes:
        node.start()
        favour(node)
    east, west = lab.nodes
    lab.manifests.put(ONLY_OK)
    server = west.add_pod("server", labels={"app": "server"})
    west.serve(server, PORT)
    stage = Stage(lab, server)
    east.add_pod("witness", labels=OK)
    wait_for("the server", lambda: stage.reached(east.pods["witness"]) == {4, 6})
    east.delete_pod("witness")
    yield stage


class Place:
    """A namespace on east in which one pod after the other lives."""

    def __init__(self, stage: Stage, name: str) -> None:
        self._stage, self._name = stage, name
        self.namespace = f"{stage.east.namespace}-{name}"
        run("ip", "netns", "add", self.namespace)

    def announce(self, labels: Mapping[str, str]) -> Pod:
        """A pod that the API knows, without addresses, as until the kubelet reports them."""
        cgroup = self._stage.east.cgroup
        pod = Pod(self._name, "default", str(uuid.uuid4()), self.namespace, cgroup, ())
        self.report(pod, labels)
        return pod

    def report(self, pod: Pod, labels: Mapping[str, str]) -> None:
        """What the API says of it from now on, its addresses too."""
        on = self._stage.east.name
        said = manifests.pod(pod.name, pod.space, pod.uid, on, pod.addresses, labels)
        self._stage.lab.manifests.put(said)

    def wire(self, pod: Pod) -> Pod:
        result = json.loads(self._stage.east.cni("ADD", pod))
        addresses = tuple(ip_address(ip["address"].split("/")[0]) for ip in result["ips"])
        return Pod(pod.name, pod.space, pod.uid, pod.namespace, pod.cgroup, addresses)

    def unwire(self, pod: Pod) -> None:
        self._stage.east.cni("DEL", pod)

    def close(self) -> None:
        self._stage.lab.manifests.remove("Pod", self._name, "default")
        attempt("ip", "netns", "del", self.namespace)
