"""Owns the peers of the path benches: plain kernel networks of the same shape as a lab.

Each builder makes namespaces `a` (the sender's) and `b` (the receiver's) and registers its undo.
"""

from contextlib import ExitStack
from dataclasses import dataclass

from deploy.netlab.shell import attempt, run

SENDER, RECEIVER = "10.200.0.2", "10.200.1.2"


@dataclass(frozen=True, slots=True)
class Peer:
    """A network to compare with: send from namespace `sender` to `address` in `receiver`."""

    name: str
    sender: str
    receiver: str
    address: str


def bare_veth(undo: ExitStack, prefix: str) -> Peer:
    """One veth pair between two namespaces: nothing can cost less."""
    a, b = (namespace(undo, f"{prefix}-{n}") for n in "ab")
    veth(a, "eth0", b, "eth0")
    address(a, "eth0", "10.200.0.1/24")
    address(b, "eth0", "10.200.0.2/24")
    return Peer("bare veth pair", a, b, "10.200.0.2")


def forwarding(undo: ExitStack, prefix: str) -> Peer:
    """Two pods on a node whose kernel forwards between their links."""
    a, b, node = (namespace(undo, f"{prefix}-{n}") for n in ("a", "b", "node"))
    forward(node)
    for pod, link, host, own in (
        (a, "va", "10.200.0.1", SENDER),
        (b, "vb", "10.200.1.1", RECEIVER),
    ):
        veth(pod, "eth0", node, link)
        address(node, link, f"{host}/24")
        address(pod, "eth0", f"{own}/24")
        run("ip", "-n", pod, "route", "add", "default", "via", host)
    return Peer("kernel forwarding", a, b, RECEIVER)


def bridged_vxlan(undo: ExitStack, prefix: str) -> Peer:
    """Two nodes, a bridge on each, joined by the kernel's VXLAN over a switch, as a lab's are."""
    a, b, left, right = (namespace(undo, f"{prefix}-{n}") for n in ("a", "b", "left", "right"))
    switch(undo, f"{prefix}-switch", left, right)
    address(left, "eth0", "172.31.0.1/24")
    address(right, "eth0", "172.31.0.2/24")
    for node, pod, own, remote, inner in (
        (left, a, "172.31.0.1", "172.31.0.2", "10.201.0.1"),
        (right, b, "172.31.0.2", "172.31.0.1", "10.201.0.2"),
    ):
        run("ip", "-n", node, "link", "add", "br0", "type", "bridge")
        run("ip", "-n", node, "link", "add", "vx0", "type", "vxlan", "id", "9", "dstport", "8472",
            "local", own, "remote", remote, "dev", "eth0")  # fmt: skip
        veth(pod, "eth0", node, "pod")
        for link in ("vx0", "pod"):
            run("ip", "-n", node, "link", "set", link, "master", "br0", "up")
        run("ip", "-n", node, "link", "set", "br0", "up")
        run("ip", "-n", pod, "link", "set", "eth0", "mtu", "1450")
        address(pod, "eth0", f"{inner}/24")
    return Peer("kernel VXLAN with a bridge", a, b, "10.201.0.2")


def switch(undo: ExitStack, name: str, *nodes: str) -> None:
    """A namespace with a bridge that joins the nodes' eth0."""
    namespace(undo, name)
    run("ip", "-n", name, "link", "add", "br0", "type", "bridge")
    run("ip", "-n", name, "link", "set", "br0", "up")
    for number, node in enumerate(nodes):
        veth(node, "eth0", name, f"port{number}")
        run("ip", "-n", name, "link", "set", f"port{number}", "master", "br0")


def namespace(undo: ExitStack, name: str) -> str:
    run("ip", "netns", "add", name)
    undo.callback(lambda: attempt("ip", "netns", "del", name))
    run("ip", "-n", name, "link", "set", "lo", "up")
    return name


def veth(one: str, link: str, other: str, peer: str) -> None:
    run("ip", "-n", one, "link", "add", link, "type", "veth", "peer", "name", peer, "netns", other)
    run("ip", "-n", one, "link", "set", link, "up")
    run("ip", "-n", other, "link", "set", peer, "up")


def address(where: str, link: str, value: str) -> None:
    run("ip", "-n", where, "addr", "add", value, "dev", link)


def forward(node: str) -> None:
    run("nsenter", f"--net=/run/netns/{node}", "sysctl", "-qw", "net.ipv4.ip_forward=1")
