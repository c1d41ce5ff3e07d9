"""Which node a client enters by may change in the middle of a connection, where tunnels bring pods
the client's own address: else the entry node stands for it, and another cannot. In mode auto the
two nodes of the lab share a network, and tunnels carry nothing but such clients.
"""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from deploy.netlab import Lab
from tests.netns.exposed import BALANCERS, PORT, Stage, exposed

pytestmark = pytest.mark.long

# One connection that says each line it reads, and what came back for it.
TALKER = """
import socket, sys
with socket.create_connection((sys.argv[1], int(sys.argv[2])), 5) as s:
    lines = s.makefile("rw")
    print(lines.readline().split()[0], flush=True)
    for word in sys.stdin:
        print(word, end="", file=lines, flush=True)
        print(lines.readline(), end="", flush=True)
"""


# One socket that says for each line it reads who answered, and whom that one saw.
ASKER = """
import socket, sys
family = socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET
with socket.socket(family, socket.SOCK_DGRAM) as s:
    s.settimeout(5)
    s.connect((sys.argv[1], int(sys.argv[2])))
    for line in sys.stdin:
        s.send(b"?")
        print(s.recv(512).decode(), end="", flush=True)
"""


@pytest.fixture(scope="module", params=["vxlan", "bridge", "auto"])
def mode(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def stage(lab: Lab) -> Iterator[Stage]:
    with exposed(lab) as made:
        yield made


@pytest.mark.parametrize("version", [4, 6], ids=["ipv4", "ipv6"])
def test_a_connection_goes_on_by_another_entry_node(stage: Stage, version: int) -> None:
    with talking(stage, TALKER, version) as talks:
        servers = {said(talk) for talk in talks}
        assert servers == {"here", "there"}
        stage.enter_by(1, version)
        for talk in talks:
            say(talk, "still?")
        assert [said(talk) for talk in talks] == ["still?"] * len(talks)


@pytest.mark.parametrize("version", [4, 6], ids=["ipv4", "ipv6"])
def test_a_socket_keeps_its_server_by_another_entry_node(stage: Stage, version: int) -> None:
    """Of UDP no node but the ring knows; whichever brings it, the server sees the client."""
    with talking(stage, ASKER, version) as talks:
        for talk in talks:
            say(talk, "who?")
        first = [said(talk) for talk in talks]
        outside = stage.lab.outside[version == 6]
        assert set(first) == {f"{name} {outside}" for name in ("here", "there")}
        for node in (1, 0):
            stage.enter_by(node, version)
            for talk in talks:
                say(talk, "still?")
            assert [said(talk) for talk in talks] == first


@contextmanager
def talking(stage: Stage, script: str, version: int) -> Iterator[list["subprocess.Popen[str]"]]:
    """Twelve clients of the load balancer's address, who enter by the first node."""
    argv = stage.client.command(sys.executable, "-c", script, BALANCERS[version], str(PORT))
    talks = [
        subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1)
        for _ in range(12)
    ]
    try:
        yield talks
    finally:
        stage.enter_by(0, version)
        for talk in talks:
            talk.kill()
            talk.communicate()


def say(talk: "subprocess.Popen[str]", line: str) -> None:
    assert talk.stdin
    talk.stdin.write(f"{line}\n")


def said(talk: "subprocess.Popen[str]") -> str:
    assert talk.stdout
    return talk.stdout.readline().strip()
