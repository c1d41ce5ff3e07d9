"""The cluster's nodes and the way to their pods, as the kernel has it."""

from collections.abc import AsyncIterator

from weft.bpf.layout import Prefix, PrefixFlag
from weft.proxy.api import weft_pb2 as pb
from weft.proxy.loop import View
from weft.proxy.model.objects import Network, Node
from weft.proxy.observe.reading import Reading, read
from weft.proxy.plan import nodes as planned
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
        pod_ranges=[_range(reading, cidr) for cidr in node.pod_cidrs],
        own=node.ref.name == reading.world.settings.node,
        status=reading.status(rows),
    )


def _range(reading: Reading, cidr: Network) -> pb.Range:
    actual = reading.row("prefixes", prefix_key(cidr))
    prefix = Prefix.unpack(actual) if actual else None
    remote = prefix is not None and bool(prefix.flags & PrefixFlag.REMOTE)
    return pb.Range(
        cidr=str(cidr),
        via=str(prefix.node) if prefix is not None and remote else "",
        status=reading.status(planned.PLANNER.rows(reading.world, cidr)),
    )
