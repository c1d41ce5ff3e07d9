"""Owns the peers of the path benches: plain kernel networks of the same shape as a lab.

Each builder makes namespaces, registers their undo and says the ways through them, in both
families. Network N is 10.200.N.0/24 and fd00:200:N::/64.
"""

from collections.abc import Sequence
from contextlib import ExitStack

from deploy.netlab.shell import attempt, run
from tests.bench.way import Way, in_family, inside

BARE, FORWARDING, BRIDGE = "bare veth pair", "kernel forwarding", "kernel bridge"
TO_BRIDGE, FROM_BRIDGE = "kernel bridge to its node", "kernel bridge from its node"
VXLAN, VXLAN_NODE = "kernel VXLAN with a bridge", "kernel VXLAN from the node"
ROUTED, ROUTED_NODE = "kernel routing to the other node", "kernel routing from the node"
MASQUERADE, DNAT = "kernel forwarding with nft masquerade", "kernel forwarding with nft DNAT"
VIP = "10.200.96.1"
SWITCH = 254


def all_peers(undo: ExitStack, prefix: str) -> list[Way]:
    builders = (bare_veth, forwarding, bridge, bridged_vxlan, routed, masquerading, translating)
    return [
        way for number, build in enumerate(builders) for way in build(undo, f"{prefix}-{number}")
    ]


def bare_veth(undo: ExitStack, prefix: str) -> list[Way]:
    """One veth pair between two namespaces: nothing can cost less."""
    a, b = namespaces(undo, prefix, "a", "b")
    veth(a, "eth0", b, "eth0")
    addresses(a, "eth0", 0, 1)
    addresses(b, "eth0", 0, 2)
    return ways(BARE, a, b, 0, 2)


def forwarding(undo: ExitStack, prefix: str) -> list[Way]:
    """Two pods on a node whose kernel forwards between their links."""
    a, b, node = namespaces(undo, prefix, "a", "b", "node")
    forward(node)
    routed_pod(node, a, 0)
    routed_pod(node, b, 1)
    return ways(FORWARDING, a, b, 1, 2)


def bridge(undo: ExitStack, prefix: str) -> list[Way]:
    """Two pods on a node's bridge, which the node is on too."""
    a, b, node = namespaces(undo, prefix, "a", "b", "node")
    make_bridge(node)
    for number, pod in enumerate((a, b)):
        bridged_pod(node, pod, f"pod{number}", 0, number + 2)
    addresses(node, "br0", 0, 1)
    return [
        *ways(BRIDGE, a, b, 0, 3)[:1],
        *ways(TO_BRIDGE, a, node, 0, 1)[:1],
        *ways(FROM_BRIDGE, node, b, 0, 3)[:1],
    ]


def bridged_vxlan(undo: ExitStack, prefix: str) -> list[Way]:
    """Two nodes, a bridge on each, joined by the kernel's VXLAN over a switch, as a lab's are."""
    a, b, *nodes = namespaces(undo, prefix, "a", "b", "left", "right")
    switch(undo, f"{prefix}-switch", nodes)
    for number, (node, pod) in enumerate(zip(nodes, (a, b), strict=True)):
        run("ip", "-n", node, "link", "add", "vx0", "type", "vxlan", "id", "9", "dstport", "8472",
            "local", host(9, number + 1)[0], "remote", host(9, 2 - number)[0],
            "dev", "eth0")  # fmt: skip
        make_bridge(node)
        run("ip", "-n", node, "link", "set", "vx0", "master", "br0", "up")
        bridged_pod(node, pod, "pod", 1, number + 2)
        run("ip", "-n", pod, "link", "set", "eth0", "mtu", "1450")
        addresses(node, "br0", 1, number + 11)
    return [*ways(VXLAN, a, b, 1, 3), *ways(VXLAN_NODE, nodes[0], b, 1, 3)[:1]]


def routed(undo: ExitStack, prefix: str) -> list[Way]:
    """Two nodes on one link whose kernels route to each other's pods."""
    a, b, *nodes = namespaces(undo, prefix, "a", "b", "left", "right")
    switch(undo, f"{prefix}-switch", nodes)
    for number, (node, pod) in enumerate(zip(nodes, (a, b), strict=True)):
        forward(node)
        routed_pod(node, pod, number)
        other = zip(subnet(1 - number), host(9, 2 - number), strict=True)
        for network, via in other:
            run("ip", "-n", node, "route", "add", network, "via", via)
    return [*ways(ROUTED, a, b, 1, 2), *ways(ROUTED_NODE, nodes[0], b, 1, 2)[:1]]


def masquerading(undo: ExitStack, prefix: str) -> list[Way]:
    """A pod behind a node that gives its packets its own address; the switch is the outside."""
    a, node = namespaces(undo, prefix, "a", "node")
    outside = switch(undo, f"{prefix}-switch", [node])
    forward(node)
    routed_pod(node, a, 0)
    nft(node, "table inet nat { chain leave { type nat hook postrouting priority srcnat;"
        " oifname eth0 masquerade; }; }")  # fmt: skip
    return ways(MASQUERADE, a, outside, 9, SWITCH)


def translating(undo: ExitStack, prefix: str) -> list[Way]:
    """Two pods on a node that translates a virtual address to one of them."""
    a, b, node = namespaces(undo, prefix, "a", "b", "node")
    forward(node)
    routed_pod(node, a, 0)
    routed_pod(node, b, 1)
    nft(node, "table ip nat { chain enter { type nat hook prerouting priority dstnat;"
        f" ip daddr {VIP} dnat to {host(1, 2)[0]}; }}; }}")  # fmt: skip
    return [Way(DNAT, inside(a), VIP, b)]


def ways(name: str, sender: str, receiver: str, network: int, number: int) -> list[Way]:
    """IPv4 first."""
    return [
        Way(in_family(name, version), inside(sender), address, receiver)
        for version, address in zip((4, 6), host(network, number), strict=True)
    ]


# --- The parts ------------------------------------------------------------------------------------
def routed_pod(node: str, pod: str, network: int) -> None:
    """Number 2 of a network, behind the node, which is number 1."""
    link = f"pod{network}"
    veth(pod, "eth0", node, link)
    addresses(node, link, network, 1)
    addresses(pod, "eth0", network, 2)
    for via in host(network, 1):
        run("ip", "-n", pod, "route", "add", "default", "via", via)


def bridged_pod(node: str, pod: str, link: str, network: int, number: int) -> None:
    veth(pod, "eth0", node, link)
    run("ip", "-n", node, "link", "set", link, "master", "br0")
    addresses(pod, "eth0", network, number)


def switch(undo: ExitStack, name: str, nodes: Sequence[str]) -> str:
    """A namespace with a bridge that joins the nodes' eth0: number 254 of network 9."""
    (made,) = namespaces(undo, name, "outside")
    make_bridge(made)
    addresses(made, "br0", 9, SWITCH)
    for number, node in enumerate(nodes):
        veth(node, "eth0", made, f"port{number}")
        run("ip", "-n", made, "link", "set", f"port{number}", "master", "br0")
        addresses(node, "eth0", 9, number + 1)
    return made


def make_bridge(where: str) -> None:
    run("ip", "-n", where, "link", "add", "br0", "type", "bridge")
    run("ip", "-n", where, "link", "set", "br0", "up")


def namespaces(undo: ExitStack, prefix: str, *names: str) -> list[str]:
    return [namespace(undo, f"{prefix}-{name}") for name in names]


def namespace(undo: ExitStack, name: str) -> str:
    run("ip", "netns", "add", name)
    undo.callback(lambda: attempt("ip", "netns", "del", name))
    run("ip", "-n", name, "link", "set", "lo", "up")
    return name


def veth(one: str, link: str, other: str, peer: str) -> None:
    run("ip", "-n", one, "link", "add", link, "type", "veth", "peer", "name", peer, "netns", other)
    run("ip", "-n", one, "link", "set", link, "up")
    run("ip", "-n", other, "link", "set", peer, "up")


def host(network: int, number: int) -> tuple[str, str]:
    return f"10.200.{network}.{number}", f"fd00:200:{network}::{number:x}"


def subnet(network: int) -> tuple[str, str]:
    return f"10.200.{network}.0/24", f"fd00:200:{network}::/64"


def addresses(where: str, link: str, network: int, number: int) -> None:
    four, six = host(network, number)
    run("ip", "-n", where, "addr", "add", f"{four}/24", "dev", link)
    run("ip", "-n", where, "addr", "add", f"{six}/64", "dev", link, "nodad")


def forward(node: str) -> None:
    for name in ("ipv4.ip_forward", "ipv6.conf.all.forwarding"):
        run(*inside(node), "sysctl", "-qw", f"net.{name}=1")


def nft(node: str, rules: str) -> None:
    run(*inside(node), "nft", rules)
