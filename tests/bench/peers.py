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
VXLAN_OVER_IPV6 = "kernel VXLAN with a bridge, over IPv6"
ROUTED, ROUTED_NODE = "kernel routing to the other node", "kernel routing from the node"
MASQUERADE, DNAT = "kernel forwarding with nft masquerade", "kernel forwarding with nft DNAT"
BETWEEN_NODES, TO_OUTSIDE = "kernel from node to node", "kernel from the node to outside"
FROM_OUTSIDE, IN = "kernel from outside to the node", "kernel forwarding from outside"
IN_DNAT = "kernel forwarding from outside with nft DNAT"
IN_DNAT_VXLAN = "kernel forwarding from outside with nft DNAT and VXLAN"
IN_MASKED = "kernel forwarding from outside with nft DNAT and masquerade"
VIPS = ("10.200.96.1", "fd00:200:96::1")
SWITCH = 254


def all_peers(undo: ExitStack, prefix: str) -> list[Way]:
    builders = (
        bare_veth, forwarding, bridge, bridged_vxlan, vxlan_over_ipv6, routed, masquerading,
        translating, on_switch, entering, entering_by_vip, entering_by_vxlan, entering_masked,
    )  # fmt: skip
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
        *ways(BRIDGE, a, b, 0, 3),
        *ways(TO_BRIDGE, a, node, 0, 1),
        *ways(FROM_BRIDGE, node, b, 0, 3),
    ]


def bridged_vxlan(undo: ExitStack, prefix: str) -> list[Way]:
    """Two nodes, a bridge on each, joined by the kernel's VXLAN over a switch, as a lab's are."""
    a, b, left, _, _ = joined_by_vxlan(undo, prefix, 4)
    return [*ways(VXLAN, a, b, 1, 3), *ways(VXLAN_NODE, left, b, 1, 3)]


def vxlan_over_ipv6(undo: ExitStack, prefix: str) -> list[Way]:
    a, b, *_ = joined_by_vxlan(undo, prefix, 6)
    return ways(VXLAN_OVER_IPV6, a, b, 1, 3)


def joined_by_vxlan(undo: ExitStack, prefix: str, version: int) -> list[str]:
    """A pod on each of two nodes, these and the outside. version: the tunnel's."""
    a, b, *nodes = namespaces(undo, prefix, "a", "b", "left", "right")
    outside = switch(undo, f"{prefix}-switch", nodes)
    of_version = 0 if version == 4 else 1
    mtu = "1450" if version == 4 else "1430"
    for number, (node, pod) in enumerate(zip(nodes, (a, b), strict=True)):
        ends = [host(9, one)[of_version] for one in (number + 1, 2 - number)]
        run("ip", "-n", node, "link", "add", "vx0", "type", "vxlan", "id", "9", "dstport", "8472",
            "local", ends[0], "remote", ends[1], "dev", "eth0")  # fmt: skip
        make_bridge(node)
        run("ip", "-n", node, "link", "set", "vx0", "master", "br0", "up")
        bridged_pod(node, pod, "pod", 1, number + 2)
        run("ip", "-n", pod, "link", "set", "eth0", "mtu", mtu)
        addresses(node, "br0", 1, number + 11)
    return [a, b, *nodes, outside]


def routed(undo: ExitStack, prefix: str) -> list[Way]:
    """Two nodes on one link whose kernels route to each other's pods."""
    a, b, left, _, _ = joined_by_routes(undo, prefix)
    return [*ways(ROUTED, a, b, 1, 2), *ways(ROUTED_NODE, left, b, 1, 2)]


def joined_by_routes(undo: ExitStack, prefix: str) -> list[str]:
    """A pod on each of two nodes, these and the outside."""
    a, b, *nodes = namespaces(undo, prefix, "a", "b", "left", "right")
    outside = switch(undo, f"{prefix}-switch", nodes)
    for number, (node, pod) in enumerate(zip(nodes, (a, b), strict=True)):
        forward(node)
        routed_pod(node, pod, number)
        routes(node, subnet(1 - number), host(9, 2 - number))
    return [a, b, *nodes, outside]


def masquerading(undo: ExitStack, prefix: str) -> list[Way]:
    """A pod behind a node that gives its packets its own address; the switch is the outside."""
    a, node = namespaces(undo, prefix, "a", "node")
    outside = switch(undo, f"{prefix}-switch", [node])
    forward(node)
    routed_pod(node, a, 0)
    masquerade(node)
    return ways(MASQUERADE, a, outside, 9, SWITCH)


def translating(undo: ExitStack, prefix: str) -> list[Way]:
    """Two pods on a node that translates a virtual address to one of them."""
    a, b, node = namespaces(undo, prefix, "a", "b", "node")
    forward(node)
    routed_pod(node, a, 0)
    routed_pod(node, b, 1)
    translate(node, host(1, 2))
    return ways_to(DNAT, a, b, VIPS)


def on_switch(undo: ExitStack, prefix: str) -> list[Way]:
    """Nodes and the outside on one switch, nothing else: what nobody translates or judges."""
    nodes = namespaces(undo, prefix, "left", "right")
    outside = switch(undo, f"{prefix}-switch", nodes)
    return [
        *ways(BETWEEN_NODES, nodes[0], nodes[1], 9, 2),
        *ways(TO_OUTSIDE, nodes[0], outside, 9, SWITCH),
        *ways(FROM_OUTSIDE, outside, nodes[0], 9, 1),
    ]


def entering(undo: ExitStack, prefix: str) -> list[Way]:
    """From outside to a pod by the route through its node."""
    pod, outside, _ = behind_a_node(undo, prefix)
    return ways(IN, outside, pod, 0, 2)


def entering_by_vip(undo: ExitStack, prefix: str) -> list[Way]:
    """And to a virtual address that the node translates to the pod."""
    pod, outside, node = behind_a_node(undo, prefix)
    translate(node, host(0, 2))
    return ways_to(IN_DNAT, outside, pod, VIPS)


def behind_a_node(undo: ExitStack, prefix: str) -> tuple[str, str, str]:
    """A pod, the outside, whose routes to it and to virtual addresses go there, its node."""
    pod, node = namespaces(undo, prefix, "a", "node")
    outside = switch(undo, f"{prefix}-switch", [node])
    forward(node)
    routed_pod(node, pod, 0)
    routes(outside, (*subnet(0), *VIPS), host(9, 1))
    return pod, outside, node


def entering_by_vxlan(undo: ExitStack, prefix: str) -> list[Way]:
    """To another node's pod, which answers by the node that translated."""
    _, pod, left, _, outside = joined_by_vxlan(undo, prefix, 4)
    forward(left)
    translate(left, host(1, 3))
    routes(outside, VIPS, host(9, 1))
    routes(pod, subnet(9), host(1, 11))
    return ways_to(IN_DNAT_VXLAN, outside, pod, VIPS)


def entering_masked(undo: ExitStack, prefix: str) -> list[Way]:
    """To another node's pod by routes; masqueraded, so that it answers by the same node."""
    _, pod, left, _, outside = joined_by_routes(undo, prefix)
    translate(left, host(1, 2))
    masquerade(left)
    routes(outside, VIPS, host(9, 1))
    return ways_to(IN_MASKED, outside, pod, VIPS)


def ways(name: str, sender: str, receiver: str, network: int, number: int) -> list[Way]:
    """IPv4 first."""
    return ways_to(name, sender, receiver, host(network, number))


def ways_to(name: str, sender: str, receiver: str, to: tuple[str, str]) -> list[Way]:
    return [
        Way(in_family(name, version), inside(sender), address, receiver)
        for version, address in zip((4, 6), to, strict=True)
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


def routes(where: str, networks: Sequence[str], via: tuple[str, str]) -> None:
    """via: IPv4, IPv6."""
    for network in networks:
        run("ip", "-n", where, "route", "add", network, "via", via[":" in network])


def translate(node: str, to: tuple[str, str]) -> None:
    """The virtual addresses, IPv4 and IPv6."""
    nft(node, "table inet enter { chain nat { type nat hook prerouting priority dstnat;"
        f" ip daddr {VIPS[0]} dnat ip to {to[0]}; ip6 daddr {VIPS[1]} dnat ip6 to {to[1]};"
        " }; }")  # fmt: skip


def masquerade(node: str) -> None:
    nft(node, "table inet leave { chain nat { type nat hook postrouting priority srcnat;"
        " oifname eth0 masquerade; }; }")  # fmt: skip


def nft(node: str, rules: str) -> None:
    run(*inside(node), "nft", rules)
