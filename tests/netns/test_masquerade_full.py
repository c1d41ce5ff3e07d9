"""A range of ports at its end: who connects gets one of the last, at the latest with a SYN or two
sent again."""

import sys
from collections.abc import Iterator
from contextlib import ExitStack
from ipaddress import ip_address

import pytest

from deploy.netlab import Lab, LabNode, Pod
from tests.netns.conftest import lab_name
from tests.netns.outside import serve
from weft.bpf import syscall
from weft.bpf.features import jiffies_now
from weft.bpf.layout import TABLES, FlowFlag, Snat, Tuple
from weft.bpf.table import KernelTable

PORT, TCP = 8080, 6
LOW, HIGH = 61_000, 65_535
"""The default range: four and a half times what is searched for one packet."""
LAST = range(63_500, 63_505)

# Connects one socket after the other and keeps them; prints how many were greeted.
CONNECT = """
import socket, sys
address, port, count, patience_s = sys.argv[1], *map(int, sys.argv[2:5])
kept = []
for _ in range(count):
    try:
        kept.append(socket.create_connection((address, port), patience_s))
        assert kept[-1].recv(512)
    except OSError:
        break
print(len(kept))
"""


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with Lab(lab_name(), mode="auto") as made, ExitStack() as stack:
        made.add_node("east").start()
        serve(made, stack, made.switch, "outside", PORT)
        yield made


@pytest.fixture(scope="module")
def pod(lab: Lab) -> Pod:
    return lab.nodes[0].add_pod("client")


def take_all_but_the_last(node: LabNode, pod: Pod, outside: str) -> None:
    """Live connections of another pod to the same server hold the other ports."""
    server = ip_address(outside)
    own = next(ip_address(a.split("/")[0]) for a in node.underlay if (":" in a) == (":" in outside))
    row = Snat(pod.address(own.version) + 1, 4000, FlowFlag.REPLIED, jiffies_now() & 0xFFFFFFFF)
    (pin,) = (node.folder / "bpf" / "weft" / "maps").glob("snat-*")
    table = KernelTable(TABLES["snat"], syscall.open_pin(pin))
    try:
        taken = [port for port in range(LOW, HIGH + 1) if port not in LAST]
        keys = (Tuple(server, own, PORT, port, TCP).pack() for port in taken)
        table.update(dict.fromkeys(keys, row.pack()))
    finally:
        table.close()


@pytest.mark.parametrize("version", [4, 6], ids=["ipv4", "ipv6"])
def test_the_last_five_ports_of_a_range_are_given_out(lab: Lab, pod: Pod, version: int) -> None:
    """Tries come after 1, 3 and 7 seconds, and five searches see the whole range."""
    (node,), outside = lab.nodes, lab.outside[version == 6]
    take_all_but_the_last(node, pod, outside)
    words = (sys.executable, "-c", CONNECT, outside, str(PORT))
    kept = pod.run(*words, str(len(LAST)), "16", timeout_s=90)
    assert int(kept) == len(LAST), node.weft("drops")
