"""The cluster's nodes and the way to their pods, as the kernel has it."""

from collections.abc import AsyncIterator

from weft.bpf.layout import UNSPECIFIED, Prefix, PrefixFlag
from weft.proxy.api import weft_pb2 as pb
from weft.proxy.loop import View
from weft.proxy.model.objects import Network, Node
from weft.proxy.model.world import World
from weft.proxy.observe.reading import Reading, read
from weft.proxy.plan import nodes as planned
from weft.proxy.plan.reach import Nowhere, reach
from weft.proxy.plan.rows import prefix_key


async def list_nodes(view: View, request: pb.ListRequest) -> AsyncIterator[pb.Node]:
    """Nodes by name."""
    # A look-up in an LPM table finds a covering prefix too; only a dump tells rows apart.
    reading = await read(view, ("prefixes",), whole=True)
    wanted = (n for n in reading.world.nodes() if request.name in ("", n.ref.name))
    for node in sorted(wanted, key=lambda node: node.ref):
        yield _node(reading, node)


def _node(reading: Reading, node: Node) -> pb.Node:
    rows = [r for cidr in node.pod_cidrs for r in planned.PLANNER.rows(reading.world, cidr)]
    return pb.Node(
        name=node.ref.name,
        addresses=[str(address) for address in node.addresses],
        pod_ranges=[_range(reading, node, cidr) for cidr in node.pod_cidrs],
        own=node.ref.name == reading.world.settings.node,
        status=reading.status(rows),
    )


def _range(reading: Reading, node: Node, cidr: Network) -> pb.Range:
    actual = reading.row("prefixes", prefix_key(cidr))
    status = reading.status(planned.PLANNER.rows(reading.world, cidr))
    if actual is None:
        return pb.Range(cidr=str(cidr), status=status)
    prefix = Prefix.unpack(actual)
    way = _way(prefix)
    return pb.Range(
        cidr=str(cidr),
        via=str(prefix.node) if prefix.node != UNSPECIFIED else "",
        status=status,
        way=way,
        link=_link(reading.world, prefix.ifindex) if way == "direct" else "",
        why=_why(reading.world, node, cidr) if way == "nowhere" else "",
    )


def _way(prefix: Prefix) -> str:
    if prefix.flags & PrefixFlag.LOCAL:
        return "here"
    if prefix.node == UNSPECIFIED:
        return "nowhere"
    return "direct" if prefix.flags & PrefixFlag.DIRECT else "tunnel"


def _link(world: World, ifindex: int) -> str:
    names = (link.name for link in world.links() if link.ifindex == ifindex)
    return next(names, f"link {ifindex}")


def _why(world: World, node: Node, cidr: Network) -> str:
    way = reach(world, node, cidr.version)
    return way.why if isinstance(way, Nowhere) else ""
