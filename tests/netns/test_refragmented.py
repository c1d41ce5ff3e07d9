"""A forwarded IPv6 datagram that conntrack put together and the stack cuts anew is not the node's.

Its pieces carry no receiving link, by which to_pod knows the node itself. The kernel cuts anew (and
does not hand on the pieces as they came) where the pod's link wants more headroom than they have:
here for a bridge with a tunnel inside the pod, as virtual machines' pods have.
"""

import sys
from collections.abc import Iterator
from contextlib import ExitStack
from ipaddress import IPv6Address

import pytest
from pyroute2 import NetNS

from tests.netns.hook_scene import namespace, run, wait_for
from tests.packet.runner import Node, loaded
from tests.packet.scene import ADDRESSES, INGRESS, Scene
from weft.bpf.layout import Direction, Reason

NODE, POD, CLIENT = "wt-refrag-node", "wt-refrag-pod", "wt-refrag-client"
POD_ADDRESS = IPv6Address("fd00:b::2")
SEND = (
    "import socket; s = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM);"
    f"s.sendto(bytes(5000), ('{POD_ADDRESS}', 9))"
)
TRACKING = (
    "add table ip6 t; add chain ip6 t c { type filter hook forward priority 0; };"
    "add rule ip6 t c ct state invalid counter"
)
CLSACT_EGRESS = "ffff:fff3"


def inside(name: str, *words: str) -> str:
    return run("ip", "netns", "exec", name, *words)


def join(name: str, link: str, subnet: str) -> None:
    """A link from the node to the namespace `name`, both ends up with an address."""
    run("ip", "-n", NODE, "link", "add", "name", link, "type", "veth", "peer", "name", "eth0",
        "netns", name)  # fmt: skip
    for space, end, host in ((NODE, link, 1), (name, "eth0", 2)):
        run("ip", "-n", space, "addr", "add", f"{subnet}{host}/64", "dev", end, "nodad")
        run("ip", "-n", space, "link", "set", end, "up")
    run("ip", "-n", name, "route", "add", "default", "via", f"{subnet}1")


def bridge_the_pod() -> None:
    run("ip", "-n", POD, "link", "add", "name", "br0", "type", "bridge")
    run("ip", "-n", POD, "link", "add", "name", "vx0", "type", "vxlan", "id", "5", "dstport",
        "4789", "dev", "lo")  # fmt: skip
    run("ip", "-n", POD, "addr", "flush", "dev", "eth0")
    for link in ("vx0", "eth0"):
        run("ip", "-n", POD, "link", "set", link, "master", "br0", "up")
    run("ip", "-n", POD, "link", "set", "br0", "up")
    run("ip", "-n", POD, "addr", "add", f"{POD_ADDRESS}/64", "dev", "br0", "nodad")
    run("ip", "-n", POD, "route", "replace", "default", "via", "fd00:b::1")


@pytest.fixture
def node() -> Iterator[Node]:
    """A node that tracks connections, with an isolated pod and a client outside."""
    with ExitStack() as stack:
        for name in (NODE, POD, CLIENT):
            stack.enter_context(namespace(name))
        join(CLIENT, "outer", "fd00:a::")
        join(POD, "pod", "fd00:b::")
        bridge_the_pod()
        inside(NODE, "sysctl", "-qw", "net.ipv6.conf.all.forwarding=1")
        inside(NODE, "nft", TRACKING)
        wait_for(lambda: "1 received" in ping(), "the pod to answer")
        made = stack.enter_context(loaded())
        attach(made)
        yield made


def ping() -> str:
    words = ("ping", "-6", "-c1", "-W1", str(POD_ADDRESS))
    return inside(CLIENT, "sh", "-c", " ".join(words) + " || true")


def attach(node: Node) -> None:
    scene = Scene(node, ADDRESSES[6])
    scene.settings()
    with NetNS(NODE) as netlink:
        (link,) = netlink.link_lookup(ifname="pod")
        scene.pod(POD_ADDRESS, ifindex=link, ingress=(INGRESS, 1))
        netlink.tc("add", "clsact", link)
        netlink.tc(
            "add-filter", "bpf", link, ":1", fd=node.programs["to_pod"].fd, name="to_pod",
            parent=CLSACT_EGRESS, classid=1, direct_action=True,
        )  # fmt: skip


def packets(node: Node, reason: Reason) -> int:
    return node.counts().get((reason, Direction.TO_POD), 0)


def test_strangers_fragments_do_not_pass_for_the_nodes_own(node: Node) -> None:
    inside(CLIENT, sys.executable, "-c", SEND)
    wait_for(lambda: packets(node, Reason.POLICY_INGRESS) > 0, "a fragment to be judged")
    assert not node.rows("flows")


def test_the_nodes_own_fragments_reach_an_isolated_pod(node: Node) -> None:
    inside(NODE, sys.executable, "-c", SEND)
    wait_for(lambda: packets(node, Reason.STACK) >= 4, "every fragment to pass")
    assert packets(node, Reason.POLICY_INGRESS) == 0
