"""Owns how the matrix is put to a lab, Weft's or kube-proxy's: its pods, its servers, a client that
stays wherever questions come from, and whose address a server saw.
"""

import json
import subprocess
import sys
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from ipaddress import ip_interface, ip_network
from itertools import count
from pathlib import Path

from deploy.netlab import Lab
from deploy.netlab.manifests import Address
from deploy.netlab.shell import in_namespace, run, stop, wait_for
from tests.twin.matrix import (
    CLIENTS,
    NODES,
    PODS,
    PORT,
    RANGES,
    ROUTED,
    SERVICE_PORT,
    Cell,
    Sentinel,
    asked,
)
from tests.twin.proxy import ProxyNode

ASKER = Path(__file__).with_name("asker.py")
SERVER = Path(__file__).with_name("server.py")
LIMIT_S = 0.6
# Of two servers that are drawn at random one stays unseen once in 2 ** 23 times.
TRIES_OF_TWO, TRIES_OF_ONE = 24, 2

# A host counts the errors that it sends, but the matrix asks for hundreds at once.
UNLIMITED = (
    "net.ipv4.icmp_ratelimit=0",
    "net.ipv4.icmp_msgs_per_sec=100000",
    "net.ipv4.icmp_msgs_burst=100000",
    "net.ipv6.icmp.ratelimit=0",
)

Answers = Mapping[Cell, frozenset[str]]
Places = Mapping[str, Mapping[int, str]]


class Rig:
    """The cast of the matrix in a lab with two nodes, whose pods have the addresses given."""

    def __init__(
        self, lab: Lab, addresses: Mapping[str, tuple[Address, ...]] | None = None
    ) -> None:
        self.lab = lab
        self._stack = ExitStack()
        self._turns = count()
        self._nodes = dict(zip(NODES, lab.nodes, strict=True))
        for name, on in PODS.items():
            node = self._nodes[on]
            if isinstance(node, ProxyNode) and addresses:
                node.add_pod(name, addresses=addresses[name])
            else:
                node.add_pod(name)
        self.pods = {name: self._nodes[on].pods[name] for name, on in PODS.items()}
        spaces = {name: pod.namespace for name, pod in self.pods.items()}
        spaces |= {name: node.namespace for name, node in self._nodes.items()}
        for name, space in spaces.items():
            self._serve(space, name)
        self._route_outside()
        for space in (lab.switch, *spaces.values()):
            run("ip", "netns", "exec", space, "sysctl", "-qw", *UNLIMITED)
        self._askers = {client: self._start(client) for client in CLIENTS}

    def close(self) -> None:
        self._stack.close()

    @property
    def nodes(self) -> dict[str, dict[int, str]]:
        return {
            name: {int(ip_interface(a).version): str(ip_interface(a).ip) for a in node.underlay}
            for name, node in self._nodes.items()
        }

    @property
    def servers(self) -> dict[str, dict[int, str]]:
        """Addresses by name and version."""
        pods = {
            name: {int(a.version): str(a) for a in pod.addresses} for name, pod in self.pods.items()
        }
        return pods | self.nodes

    def ask(self, cells: Iterable[Cell]) -> Answers:
        """What each is answered: "SERVER saw WHO", "refused", "silent"; who: the client, a node or
        a bare address."""
        self._take_fresh_ports()
        by_client: dict[str, list[Cell]] = {client: [] for client in CLIENTS}
        for cell in cells:
            by_client[cell.client].append(cell)
        nodes = self.nodes
        for client, some in by_client.items():
            self._put(client, [question(cell, nodes) for cell in some])
        said: dict[Cell, frozenset[str]] = {}
        for client, some in by_client.items():
            for cell, answers in zip(some, self._taken(client), strict=True):
                said[cell] = frozenset(self._named(cell, answer) for answer in answers)
        return said

    def _take_fresh_ports(self) -> None:
        """No question is taken for one of an earlier turn, which conntrack still knows."""
        first = 10_000 + 8_000 * (next(self._turns) % 6)
        ports = f"net.ipv4.ip_local_port_range={first} {first + 7_999}"
        for client in CLIENTS:
            namespace = self._namespace(client)
            run("ip", "netns", "exec", namespace, "sysctl", "-qw", ports)

    def _namespace(self, client: str) -> str:
        if client == "outside":
            return self.lab.switch
        return (self.pods.get(client) or self._nodes[client]).namespace

    def is_served(self, sentinel: Sentinel) -> bool:
        """On both nodes, in both families."""
        asking = ("client", "far")
        for client in asking:
            self._put(client, [
                (sentinel.address(version), SERVICE_PORT, "tcp", 1, 1) for version in (4, 6)
            ], limit_s=0.05)  # fmt: skip
        taken = [self._taken(client) for client in asking]
        return all(answer.startswith("here ") for said in taken for (answer,) in said)

    def _put(
        self, client: str, lines: list[tuple[str, int, str, int, int]], limit_s: float = LIMIT_S
    ) -> None:
        pipe = self._askers[client].stdin
        assert pipe
        pipe.write(json.dumps([limit_s, lines]) + "\n")
        pipe.flush()

    def _taken(self, client: str) -> list[list[str]]:
        pipe = self._askers[client].stdout
        assert pipe
        answers: list[list[str]] = json.loads(pipe.readline())
        return answers

    def _named(self, cell: Cell, answer: str) -> str:
        server, _, seen = answer.partition(" ")
        return f"{server} saw {self._whose(cell, seen)}" if seen else answer

    def _whose(self, cell: Cell, seen: str) -> str:
        own = {
            **self.servers, "outside": dict(zip((4, 6), self.lab.outside, strict=True))
        }  # fmt: skip
        if seen == own[cell.client][cell.version] and cell.client not in NODES:
            return "the client"
        for name, node in self._nodes.items():
            gateways = [str(next(ip_network(cidr).hosts())) for cidr in node.pod_cidrs]
            if seen in (*self.nodes[name].values(), *gateways):
                return name
        return seen

    def _serve(self, space: str, name: str) -> None:
        ready = self.lab.folder / f"{name}.serves"
        argv = (sys.executable, SERVER, name, str(PORT), ready)
        process = subprocess.Popen(in_namespace(space, self.lab.cgroup, argv))
        self._stack.callback(stop, process)
        wait_for(f"{name} serves", ready.exists)

    def _start(self, client: str) -> "subprocess.Popen[str]":
        argv = (sys.executable, ASKER)
        if client == "outside":
            command = in_namespace(self.lab.switch, self.lab.cgroup, argv)
        elif client in self._nodes:
            command = self._nodes[client].command(*argv)
        else:
            command = self.pods[client].command(*argv)
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self._stack.callback(_end, process)
        return process

    def _route_outside(self) -> None:
        """Services' addresses lead from outside to the first node."""
        for version, networks in ROUTED.items():
            for network in (RANGES[version], *networks):
                words = ("route", "add", network, "via", self.nodes[NODES[0]][version])
                run("ip", "-n", self.lab.switch, *words)


def question(cell: Cell, nodes: Places) -> tuple[str, int, str, int, int]:
    """As asker.py reads it."""
    tries = TRIES_OF_TWO if cell.servers > 1 else TRIES_OF_ONE
    return (*asked(cell, nodes), cell.protocol, tries, cell.servers)


def _end(process: "subprocess.Popen[str]") -> None:
    assert process.stdin
    assert process.stdout
    process.stdin.close()
    stop(process)
    process.stdout.close()
