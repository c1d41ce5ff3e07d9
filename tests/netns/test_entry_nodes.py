"""Which node a client enters by may change in the middle of a connection, where tunnels bring pods
the client's own address: else the entry node stands for it, and another cannot.
"""

import subprocess
import sys
from collections.abc import Iterator

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


@pytest.fixture(scope="module", params=["vxlan", "bridge"])
def mode(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def stage(lab: Lab) -> Iterator[Stage]:
    with exposed(lab) as made:
        yield made


@pytest.mark.parametrize("version", [4, 6], ids=["ipv4", "ipv6"])
def test_a_connection_goes_on_by_another_entry_node(stage: Stage, version: int) -> None:
    argv = stage.client.command(sys.executable, "-c", TALKER, BALANCERS[version], str(PORT))
    talks = [
        subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1)
        for _ in range(8)
    ]
    try:
        servers = {said(talk) for talk in talks}
        assert servers == {"here", "there"} or len(servers) == 1
        stage.enter_by(1, version)
        for talk in talks:
            assert talk.stdin
            talk.stdin.write("still?\n")
        assert [said(talk) for talk in talks] == ["still?"] * len(talks)
    finally:
        stage.enter_by(0, version)
        for talk in talks:
            talk.kill()
            talk.communicate()


def said(talk: "subprocess.Popen[str]") -> str:
    assert talk.stdout
    return talk.stdout.readline().strip()
