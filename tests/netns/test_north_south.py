"""Clients from outside: a host of the switch whose route to Services leads to a node."""

import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from ipaddress import ip_address, ip_interface
from pathlib import Path

import pytest

from deploy.netlab import Lab, Pod, manifests
from deploy.netlab.manifests import Address
from deploy.netlab.shell import run, stop, wait_for
from tests.netns.ask import Answer, Host, ask, ask_echo
from tests.netns.bulk import REFUSED
from tests.netns.outside import serve as serve_name

pytestmark = pytest.mark.long

BULK = Path(__file__).with_name("bulk.py")
PORT, BULK_PORT, CLOSED_PORT, NOBODYS_PORT = 8080, 8081, 8083, 82
STREAM_BYTES, DATAGRAM_BYTES = 8_000_000, 30_000
# Where the backend is: a pod of the entry node or of the other, these nodes themselves, nowhere.
PLACES = ("here", "there", "own", "other", "nobody")
VIPS = {
    place: {4: f"10.96.3.{number}", 6: f"fd00:10:96::3:{number}"}
    for number, place in enumerate(PLACES, start=1)
}
# Other Services of the same pods.
SECONDS = {
    place: {4: f"10.96.4.{number}", 6: f"fd00:10:96::4:{number}"}
    for number, place in enumerate(("here", "there"), start=1)
}


@dataclass(frozen=True, slots=True)
class Stage:
    lab: Lab
    client: Host
    pods: dict[str, Pod]

    def bulk(self, *words: object) -> str:
        done = self.client.attempt(sys.executable, BULK, *map(str, words))
        return done.stdout.strip() or done.stderr

    def ask(self, place: str, version: int, *, udp: bool) -> Answer | None:
        return ask(self.client, VIPS[place][version], PORT, udp=udp)

    def address_of(self, place: str, version: int) -> Address | None:
        if place in self.pods:
            return self.pods[place].address(version)
        if place == "nobody":
            return None
        node = self.lab.nodes[place == "other"]
        return ip_address(ip_interface(node.underlay[version == 6]).ip)

    def seen(self, place: str, version: int) -> str:
        """The source that a backend sees: one whose answer would pass the node by sees that."""
        masked = place == "other" or (place == "there" and self.lab.mode == "direct")
        outside = self.lab.outside[version == 6]
        return str(self.address_of("own", version)) if masked else outside


@pytest.fixture(scope="module")
def stage(lab: Lab) -> Iterator[Stage]:
    east, west = lab.nodes
    pods = {"here": east.add_pod("here"), "there": west.add_pod("there")}
    spaces = {name: pod.namespace for name, pod in pods.items()}
    spaces |= {"own": east.namespace, "other": west.namespace}
    with ExitStack() as stack:
        for name, space in spaces.items():
            serve_name(lab, stack, space, name, PORT)
            serve_bulk(lab, stack, name, space)
        stage = Stage(lab, Host(lab.switch, lab.cgroup), pods)
        for place in PLACES:
            publish(stage, place, VIPS[place], f"north-{place}")
        for place, vips in SECONDS.items():
            publish(stage, place, vips, f"second-{place}")
        wait_for("the Services", lambda: ask_refused(stage))
        yield stage


def ask_refused(stage: Stage) -> bool:
    return stage.bulk("tcp", VIPS["nobody"][6], PORT, 1) == REFUSED


def serve_bulk(lab: Lab, stack: ExitStack, name: str, space: str) -> None:
    ready = lab.folder / f"bulk-{name}.ready"
    words = [
        "nsenter",
        f"--net=/run/netns/{space}",
        sys.executable,
        BULK,
        "serve",
        BULK_PORT,
        ready,
    ]
    process = subprocess.Popen([str(word) for word in words])
    stack.callback(stop, process)
    wait_for(f"{name} serves", ready.exists)


def publish(stage: Stage, place: str, vips: Mapping[int, str], name: str) -> None:
    """A Service of a place, and the client's route to it by the first node."""
    ports = [
        (f"{proto}-{port}".lower(), proto, port)
        for proto in ("TCP", "UDP")
        for port in (PORT, BULK_PORT, CLOSED_PORT)
    ]
    stage.lab.manifests.put(manifests.service(name, "default", list(vips.values()), ports))
    for version, vip in vips.items():
        own = str(stage.address_of("own", version))
        run("ip", "-n", stage.lab.switch, "route", "replace", vip, "via", own)
        if address := stage.address_of(place, version):
            words = (f"{name}-{version}", "default", name, [address], ports)
            stage.lab.manifests.put(manifests.endpoint_slice(*words, version))


BOTH = pytest.mark.parametrize("version", [4, 6], ids=["ipv4", "ipv6"])
KINDS = pytest.mark.parametrize("udp", [False, True], ids=["tcp", "udp"])
SERVED = pytest.mark.parametrize("place", PLACES[:-1])


@BOTH
@KINDS
@SERVED
def test_a_client_is_answered_from_what_it_dialled(
    stage: Stage, version: int, udp: bool, place: str
) -> None:
    answer = stage.ask(place, version, udp=udp)
    assert answer == (place, stage.seen(place, version), VIPS[place][version])


@BOTH
@SERVED
def test_bulk_arrives_whole_both_ways(stage: Stage, version: int, place: str) -> None:
    vip = VIPS[place][version]
    assert stage.bulk("tcp", vip, BULK_PORT, STREAM_BYTES) == f"ok {vip}"
    # The first may be lost: the client must be told of a tunnel's smaller MTU.
    wait_for(
        "a datagram to come back",
        lambda: stage.bulk("udp", vip, BULK_PORT, DATAGRAM_BYTES) == f"ok {vip}",
    )


@BOTH
@SERVED
def test_a_backends_refusal_reaches_the_client(stage: Stage, version: int, place: str) -> None:
    vip = VIPS[place][version]
    assert stage.bulk("tcp", vip, CLOSED_PORT, 1) == REFUSED
    # A host counts the errors that it sends to one peer: the next comes a second later.
    wait_for("the error", lambda: stage.bulk("closed", vip, CLOSED_PORT) == REFUSED)


@BOTH
def test_where_nobody_serves_a_client_is_refused_at_once(stage: Stage, version: int) -> None:
    for vip, port in ((VIPS["nobody"][version], PORT), (VIPS["here"][version], NOBODYS_PORT)):
        assert stage.bulk("tcp", vip, port, 1) == REFUSED
        assert stage.bulk("closed", vip, port) == REFUSED


# Calls addresses from one port and prints who answers; then says a word to each, to the first again
# at last, and prints what comes back.
TWICE = """
import socket, sys
family = socket.AF_INET6 if ":" in sys.argv[2] else socket.AF_INET
calls = []
for host, port in zip(sys.argv[2::2], sys.argv[3::2]):
    one = socket.socket(family)
    one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    one.settimeout(3)
    one.bind(("", int(sys.argv[1])))
    one.connect((host, int(port)))
    calls.append((one, one.makefile()))
    print(calls[-1][1].readline().split()[0])
for number, (one, file) in enumerate((*calls, calls[0])):
    one.send(b"%d\\n" % number)
    print(file.readline().strip())
"""


@BOTH
@pytest.mark.parametrize("place", ["here", "there"])
def test_one_port_of_a_client_has_a_connection_to_each_of_two_addresses_of_a_backend(
    stage: Stage, version: int, place: str
) -> None:
    addresses = (VIPS[place][version], PORT, SECONDS[place][version], PORT)
    done = stage.client.run(sys.executable, "-c", TWICE, "5150", *map(str, addresses))
    assert done.split() == [place, place, "0", "1", "2"]


@BOTH
def test_every_address_answers_echoes(stage: Stage, version: int) -> None:
    for place in ("here", "there", "nobody"):
        assert ask_echo(stage.client, VIPS[place][version])
        assert ask_echo(stage.pods["here"], VIPS[place][version])


@BOTH
@KINDS
@SERVED
def test_a_node_that_is_a_client_is_answered_too(
    stage: Stage, version: int, udp: bool, place: str
) -> None:
    """Its process is outside the lab's cgroup, so that no socket hook sees it."""
    west = stage.lab.nodes[1]
    vip, own = VIPS[place][version], str(stage.address_of("own", version))
    run("ip", "-n", west.namespace, "route", "replace", vip, "via", own)
    answer = ask(Host(west.namespace, stage.lab.cgroup), vip, PORT, udp=udp)
    assert answer is not None
    assert (answer.server, answer.peer) == (place, vip)
    if place in ("here", "own"):
        assert answer.seen == str(stage.address_of("other", version))
