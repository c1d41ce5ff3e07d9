"""Owns how a test asks a server of the lab who answered and whom it saw."""

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from deploy.netlab import LabNode, Pod
from deploy.netlab.shell import attempt, in_namespace, run, stop

ASKER = Path(__file__).with_name("asker.py")

TCP = """
import socket, sys
with socket.create_connection((sys.argv[1], int(sys.argv[2])), float(sys.argv[3])) as s:
    peer = s.getpeername()[0]
    print(*s.makefile().readline().split(), peer)
"""

UDP = """
import socket, sys
family = socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET
with socket.socket(family, socket.SOCK_DGRAM) as s:
    s.settimeout(float(sys.argv[3]))
    s.sendto(b"?", (sys.argv[1], int(sys.argv[2])))
    answer, peer = s.recvfrom(512)
    print(*answer.decode().split(), peer[0])
"""


@dataclass(frozen=True, slots=True)
class Host:
    """A machine of the lab that is no node: a namespace."""

    namespace: str
    cgroup: Path

    def command(self, *argv: str | Path) -> list[str]:
        return in_namespace(self.namespace, self.cgroup, argv)

    def run(self, *argv: str | Path) -> str:
        return run(*self.command(*argv))

    def attempt(self, *argv: str | Path) -> subprocess.CompletedProcess[str]:
        return attempt(*self.command(*argv))


class Answer(NamedTuple):
    server: str
    """Name of the server that answered."""
    seen: str
    """The source address that the server saw."""
    peer: str
    """The address that the client believes to talk to."""


class Asker:
    """A client that stays in a pod, a node or a host: a question costs no new process."""

    def __init__(self, who: Pod | LabNode | Host) -> None:
        argv = who.command(sys.executable, ASKER)
        self._process = subprocess.Popen(
            argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
        )

    def ask(
        self, address: object, port: int, *, udp: bool = False, timeout_s: float = 2
    ) -> Answer | None:
        """One question; None when it was refused or nobody answered in time."""
        assert self._process.stdin
        assert self._process.stdout
        protocol = "udp" if udp else "tcp"
        self._process.stdin.write(f"{address} {port} {protocol} {timeout_s}\n")
        fields = self._process.stdout.readline().split()
        return Answer(*fields) if len(fields) == 3 else None

    def close(self) -> None:
        assert self._process.stdin
        self._process.stdin.close()
        stop(self._process)


def ask(
    who: Pod | LabNode | Host,
    address: object,
    port: int,
    *,
    udp: bool = False,
    timeout_s: float = 2,
) -> Answer | None:
    """One question; None when it was refused or nobody answered in time."""
    script = UDP if udp else TCP
    done = who.attempt(sys.executable, "-c", script, str(address), str(port), str(timeout_s))
    fields = done.stdout.split()
    return Answer(*fields) if done.returncode == 0 and len(fields) == 3 else None


def ask_echo(who: Pod | LabNode | Host, address: object) -> bool:
    """Whether an echo of `address` is answered, from it."""
    return who.attempt("ping", "-c", "1", "-W", "2", str(address)).returncode == 0


CONNECTED_UDP = """
import socket, sys
family = socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET
with socket.socket(family, socket.SOCK_DGRAM) as s:
    s.settimeout(float(sys.argv[3]))
    s.connect((sys.argv[1], int(sys.argv[2])))
    s.send(b"?")
    s.recv(512)
"""


def error_of(who: Pod | LabNode | Host, address: object, port: int, *, udp: bool = False) -> str:
    """The last line that a failed question leaves on standard error.

    UDP asks on a connected socket: Linux tells an unconnected one of no ICMP error.
    """
    script = CONNECTED_UDP if udp else TCP
    done = who.attempt(sys.executable, "-c", script, str(address), str(port), "2")
    return done.stderr.strip().splitlines()[-1] if done.returncode else ""
