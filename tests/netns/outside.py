"""Owns what lies outside a lab's node: hosts behind the switch or behind the node itself, and
clients with many flows at a time.
"""

import subprocess
import sys
from contextlib import ExitStack
from ipaddress import ip_interface
from pathlib import Path

from deploy.netlab import Lab, LabNode, Pod
from deploy.netlab.node import ANSWER
from deploy.netlab.shell import attempt, in_namespace, run, stop, wait_for
from tests.netns.ask import Host

TUNNEL = Path(__file__).with_name("tunnel.py")

TALK = """
import socket, sys
address, port, low, count, kind = sys.argv[1], *map(int, sys.argv[2:5]), sys.argv[5]
family = socket.AF_INET6 if ":" in address else socket.AF_INET
sockets = []
for number in range(count):
    one = socket.socket(family, socket.SOCK_DGRAM if kind == "udp" else socket.SOCK_STREAM)
    if kind == "tcp" and low:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    one.settimeout(2)
    one.bind(("", low + number if low else 0))
    sockets.append(one)

def greeted(one):
    try:
        one.connect((address, port))
        return kind == "udp" or bool(one.recv(512))
    except OSError:
        return False

def answered(one):
    try:
        return bool(one.recv(512))
    except OSError:
        return False

def asked(one):
    try:
        one.send(b"?\\n")
    except OSError:
        pass

print(sum(map(greeted, sockets)), flush=True)
for line in sys.stdin:
    number = 0
    # No more at a time than a server's receive buffer holds.
    for at in range(0, count, 20):
        some = sockets[at : at + 20]
        list(map(asked, some))
        number += sum(map(answered, some))
    print(number, flush=True)
"""


class Talk:
    """Many flows of one client to one server. first_port: their source ports from there on."""

    def __init__(
        self, stack: ExitStack, who: Pod | LabNode | Host, address: str, port: int, count: int,
        *, first_port: int = 0, kind: str = "udp",
    ) -> None:  # fmt: skip
        argv = (address, str(port), str(first_port), str(count), kind)
        self._process = subprocess.Popen(
            in_namespace(who.namespace, who.cgroup, (sys.executable, "-c", TALK, *argv)),
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        stack.callback(self._end)
        self.connected = self._number()

    def round(self) -> int:
        """How many flows are answered when each asks once."""
        assert self._process.stdin
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return self._number()

    def _number(self) -> int:
        assert self._process.stdout
        return int(self._process.stdout.readline())

    def _end(self) -> None:
        self._process.kill()
        self._process.communicate()


def make_host(lab: Lab, stack: ExitStack, name: str) -> Host:
    """A namespace, not yet joined to anything."""
    namespace = f"{lab.name}-{name}"
    run("ip", "netns", "add", namespace)
    stack.callback(lambda: attempt("ip", "netns", "del", namespace))
    run("ip", "-n", namespace, "link", "set", "lo", "up")
    return Host(namespace, lab.cgroup)


def join(
    near: str, near_link: str, near_addresses: tuple[str, ...],
    far: str, far_link: str, far_addresses: tuple[str, ...],
) -> None:  # fmt: skip
    """A wire between two namespaces."""
    run("ip", "-n", near, "link", "add", near_link, "type", "veth",
        "peer", "name", far_link, "netns", far)  # fmt: skip
    for namespace, link in ((near, near_link), (far, far_link)):
        trust_addresses(namespace, link)
    set_up(near, near_link, near_addresses)
    set_up(far, far_link, far_addresses)


def trust_addresses(namespace: str, link: str) -> None:
    """No address of the link is ever tentative, its link-local one included.

    A router asks for neighbors from its link-local address, and Linux asks nobody while that is
    tentative: up to 2 s after the link came up, as long as a question over UDP may take.
    """
    argv = ("sysctl", "-qw", f"net.ipv6.conf.{link}.accept_dad=0")
    run("nsenter", f"--net=/run/netns/{namespace}", *argv)


def set_up(namespace: str, link: str, addresses: tuple[str, ...]) -> None:
    for address in addresses:
        extra = ("nodad",) if ":" in address else ()
        run("ip", "-n", namespace, "addr", "add", address, "dev", link, *extra)
    run("ip", "-n", namespace, "link", "set", link, "up")


def default_route(namespace: str, routers: tuple[str, ...]) -> None:
    for router in routers:
        run("ip", "-n", namespace, "route", "add", "default", "via", str(ip_interface(router).ip))


def forward(namespace: str) -> None:
    for name in ("ipv4.ip_forward", "ipv6.conf.all.forwarding"):
        run("nsenter", f"--net=/run/netns/{namespace}", "sysctl", "-qw", f"net.{name}=1")


def serve(lab: Lab, stack: ExitStack, namespace: str, name: str, port: int) -> None:
    """Answer there with `name` (see answer.py)."""
    ready = lab.folder / f"{name}.{port}.ready"
    argv = in_namespace(namespace, lab.cgroup, (sys.executable, ANSWER, name, str(port), ready))
    process = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    stack.callback(lambda: stop(process))
    wait_for(f"{name} serves", ready.exists)


def tunnel(stack: ExitStack, near: str, far: str, link: str) -> None:
    """A tun device of the name `link` in both namespaces: what goes into one comes out of the
    other."""
    argv = [sys.executable, str(TUNNEL), f"/run/netns/{near}", f"/run/netns/{far}", link]
    process = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)
    stack.callback(lambda: stop(process))
    assert process.stdout
    assert process.stdout.readline() == "ready\n"
