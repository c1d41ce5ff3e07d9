"""What a listing's columns say."""

import pytest

from weft.cli.listings import NODES
from weft.proxy.api import weft_pb2 as pb

DIRECT4 = pb.Range(cidr="10.244.2.0/24", way="direct", link="eth0", via="192.0.2.2")
DIRECT6 = pb.Range(cidr="fd00:2::/64", way="direct", link="eth0", via="2001:db8::2")
TUNNEL6 = pb.Range(cidr="fd00:2::/64", way="tunnel", via="192.0.2.2")
NOWHERE6 = pb.Range(cidr="fd00:2::/64", way="nowhere", why="n2 has no IPv6 InternalIP")


@pytest.mark.parametrize(
    ("ranges", "said"),
    [
        ([pb.Range(cidr="10.244.1.0/24", way="here")], "here"),
        ([DIRECT4, DIRECT6], "direct by eth0"),
        ([DIRECT4, TUNNEL6], "IPv4 direct by eth0, IPv6 tunnel to 192.0.2.2"),
        ([DIRECT4, NOWHERE6], "IPv4 direct by eth0, IPv6 nowhere"),
        ([pb.Range(cidr="10.244.2.0/24")], "not in the kernel"),
        ([], ""),
    ],
)
def test_nodes_say_how_they_are_reached(ranges: list[pb.Range], said: str) -> None:
    (reached,) = [column for column in NODES.columns if column.title == "reached"]
    assert reached.cell(pb.Node(pod_ranges=ranges)) == said


def test_nowhere_says_why() -> None:
    (why,) = [column for column in NODES.columns if column.title == "why"]
    assert why.cell(pb.Node(pod_ranges=[DIRECT4, NOWHERE6])) == "n2 has no IPv6 InternalIP"
