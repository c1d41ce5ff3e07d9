"""Whatever is edited of a Service, its live connections go on and new ones get the new answer: from
a pod (packet by packet), from the node and from outside.

Datagrams go on too, unless nothing serves them any more.
"""

import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from ipaddress import ip_interface
from typing import Any

import pytest

from deploy.netlab import Lab, LabNode, Pod, manifests
from deploy.netlab.shell import run, wait_for
from tests.netns.ask import Host
from tests.netns.conftest import assert_dump_equals_plan, lab_name
from tests.netns.outside import Talk

pytestmark = pytest.mark.long

PORT, NUMBER, TRIES = 8080, 80, 12
VIP, BALANCER = "10.96.8.1", "198.51.100.80"
BOTH, HERE, NOBODY = frozenset({"here", "there"}), frozenset({"here"}), frozenset[str]()

# Asks HOST PORT so often by new connections; prints the names of who answers.
ASKING = """
import socket, sys
said = set()
for _ in range(int(sys.argv[3])):
    try:
        with socket.create_connection((sys.argv[1], int(sys.argv[2])), 0.7) as s:
            said.add(s.recv(100).split()[0].decode())
    except OSError:
        break
print(*sorted(said))
"""


@dataclass(frozen=True, slots=True)
class State:
    """Of the Service: what differs from one that serves everybody at every address."""

    spec: Mapping[str, Any] = field(default_factory=dict)
    names: tuple[str, str] = ("tcp", "udp")
    numbers: tuple[int, ...] = (NUMBER,)
    ready: bool = True
    exists: bool = True


USUAL, GONE, EMPTIED = State(), State(exists=False), State(ready=False)
LOCAL = State({"internalTrafficPolicy": "Local", "externalTrafficPolicy": "Local"})
AFFINITY = State({"sessionAffinity": "ClientIP"})


@dataclass(frozen=True, slots=True)
class Edit:
    """inside, outside: whom new connections reach; `one` of them with affinity."""

    before: State
    after: tuple[State, ...]
    inside: frozenset[str] = BOTH
    outside: frozenset[str] = BOTH
    one: bool = False
    datagrams: bool = True


EDITS = {
    "type": Edit(USUAL, (State({"type": "ClusterIP"}),), outside=NOBODY),
    "ports renamed": Edit(USUAL, (State(names=("web", "dns")),)),
    "a port added": Edit(USUAL, (State(numbers=(NUMBER, 81)),)),
    "the port removed": Edit(USUAL, (State(numbers=(81,)),), NOBODY, NOBODY, datagrams=False),
    "Cluster to Local": Edit(USUAL, (LOCAL,), HERE, HERE),
    "Local to Cluster": Edit(LOCAL, (USUAL,)),
    "ranges": Edit(USUAL, (State({"loadBalancerSourceRanges": ["192.0.2.0/24"]}),), outside=NOBODY),
    "affinity on": Edit(USUAL, (AFFINITY,), one=True),
    "affinity off": Edit(AFFINITY, (USUAL,)),
    "deleted": Edit(USUAL, (GONE,), NOBODY, NOBODY, datagrams=False),
    # The node's datagrams go by a connected socket, which is ended when nothing serves it.
    "deleted and made again": Edit(USUAL, (GONE, USUAL), datagrams=False),
    "emptied": Edit(USUAL, (EMPTIED,), NOBODY, NOBODY, datagrams=False),
}


@dataclass(frozen=True, slots=True)
class Stage:
    """A server `here` on east, where the clients are, and one `there` on west."""

    lab: Lab
    servers: Mapping[str, Pod]
    clients: Mapping[str, tuple[Pod | LabNode | Host, str]]
    """Each with the address that it dials."""

    def put(self, state: State) -> None:
        if not state.exists:
            self.lab.manifests.remove("Service", "edited", "default")
            return
        self.lab.manifests.put(self._slice(state), service(state))

    def _slice(self, state: State) -> dict[str, Any]:
        ports = [(name, protocol, PORT) for name, protocol, _ in ports_of(state)]
        words = ("edited-4", "default", "edited", (), ports, 4)
        piece = dict(manifests.endpoint_slice(*words))
        piece["endpoints"] = [
            {
                "addresses": [str(pod.address(4))],
                "nodeName": {"here": "east", "there": "west"}[name],
                "conditions": {"ready": state.ready},
            }
            for name, pod in self.servers.items()
        ]
        return piece

    def reached(self, client: str) -> frozenset[str]:
        who, address = self.clients[client]
        words = ("-c", ASKING, address, str(NUMBER), str(TRIES))
        return frozenset(who.run(sys.executable, *words).split())

    def expect(self, edit: Edit, inside: frozenset[str], outside: frozenset[str]) -> None:
        """Of new connections, soon."""
        for client in self.clients:
            wanted = outside if client == "outside" else inside

            def is_so(client: str = client, wanted: frozenset[str] = wanted) -> bool:
                found = self.reached(client)
                return len(found) == 1 and found <= wanted if edit.one else found == wanted

            wait_for(f"new connections of {client} to reach {set(wanted)}", is_so, timeout_s=20)


def ports_of(state: State) -> list[tuple[str, str, int]]:
    return [
        (f"{name}-{number}", protocol, number)
        for name, protocol in zip(state.names, ("TCP", "UDP"), strict=True)
        for number in state.numbers
    ]


def service(state: State) -> dict[str, Any]:
    manifest = dict(manifests.service("edited", "default", [VIP], ports_of(state)))
    manifest["spec"] = {**manifest["spec"], "type": "LoadBalancer", **state.spec}
    ingress = [{"ip": BALANCER}] if manifest["spec"]["type"] == "LoadBalancer" else []
    return manifest | {"status": {"loadBalancer": {"ingress": ingress}}}


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    with Lab(lab_name()) as lab:
        east, west = lab.add_node("east"), lab.add_node("west")
        east.flags = ("--socket-hook", "node")
        for node in lab.nodes:
            node.start()
        servers = {"here": east.add_pod("here"), "there": west.add_pod("there")}
        for node, name in ((east, "here"), (west, "there")):
            node.serve(servers[name], PORT)
        own = str(ip_interface(east.underlay[0]).ip)
        run("ip", "-n", lab.switch, "route", "replace", BALANCER, "via", own)
        clients: dict[str, tuple[Pod | LabNode | Host, str]] = {
            "pod": (east.add_pod("client"), VIP),
            "node": (east, VIP),
            "outside": (Host(lab.switch, lab.cgroup), BALANCER),
        }
        yield Stage(lab, servers, clients)


@pytest.mark.parametrize("what", EDITS)
def test_live_connections_outlive_an_edit_that_new_ones_see(stage: Stage, what: str) -> None:
    edit = EDITS[what]
    stage.put(edit.before)
    begun = Edit(edit.before, (), one=edit.before is AFFINITY)
    first = HERE if edit.before is LOCAL else BOTH
    stage.expect(begun, first, first)
    with ExitStack() as stack:
        talks = {
            (client, kind): Talk(stack, who, address, NUMBER, 4, kind=kind)
            for client, (who, address) in stage.clients.items()
            for kind in ("tcp", "udp")
        }
        for talk in talks.values():
            assert (talk.connected, talk.round()) == (4, 4)
        for state in edit.after:
            stage.put(state)
            if not state.exists:
                stage.expect(edit, NOBODY, NOBODY)
        stage.expect(edit, edit.inside, edit.outside)
        for (client, kind), talk in talks.items():
            if kind == "tcp" or edit.datagrams:
                assert talk.round() == 4, f"{client}, {kind}"
    for node in stage.lab.nodes:
        assert_dump_equals_plan(node)
