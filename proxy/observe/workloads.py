"""Local pods and what judges them, as the kernel has it."""

from collections.abc import AsyncIterator

from weft.bpf.layout import Workload as WorkloadRow
from weft.bpf.layout import pack_address
from weft.proxy.api import weft_pb2 as pb
from weft.proxy.apply.desired import RowKey
from weft.proxy.loop import View
from weft.proxy.model.objects import Workload
from weft.proxy.model.world import World
from weft.proxy.observe.reading import Reading, read
from weft.proxy.plan import hooks
from weft.proxy.plan import workloads as planned
from weft.proxy.plan.podneeds import keeps_own_sockets, stack_reasons
from weft.proxy.plan.policy import set_policies
from weft.proxy.plan.policy_judge import UNKNOWN
from weft.proxy.plan.policy_rules import Direction
from weft.proxy.plan.policy_world import book_of


async def list_workloads(view: View, request: pb.ListRequest) -> AsyncIterator[pb.Workload]:
    """This node's pods by name."""
    reading = await read(view, ("workloads",), whole=not request.name)
    # At once: what policy says of a World is remembered for the latest few only.
    for message in [describe(reading, w) for w in _wanted(reading.world, request)]:
        yield message


def _wanted(world: World, request: pb.ListRequest) -> list[Workload]:
    return sorted(
        (
            workload
            for workload in world.workloads()
            if request.namespace in ("", workload.ref.namespace)
            and request.name in ("", workload.ref.name)
        ),
        key=lambda workload: (workload.ref, workload.key),
    )


def describe(reading: Reading, workload: Workload) -> pb.Workload:
    """One workload; what judges it is the kernel's row, in the names of its policies."""
    row = _kernel_row(reading, workload)
    world, key = reading.world, workload.key
    return pb.Workload(
        namespace=workload.ref.namespace,
        name=workload.ref.name,
        uid=workload.uid,
        addresses=[str(address) for address in workload.addresses],
        link=workload.key,
        ifindex=workload.ifindex,
        mac=workload.mac.hex(":"),
        ingress=_isolation(world, key, Direction.INGRESS, row.ingress_set) if row else None,
        egress=_isolation(world, key, Direction.EGRESS, row.egress_set) if row else None,
        status=status(reading, workload),
        stack=stack_reasons(world, workload),
        own_sockets=keeps_own_sockets(world, workload),
    )


def _kernel_row(reading: Reading, workload: Workload) -> WorkloadRow | None:
    """The kernel's row of a workload: its addresses have equal ones. None: no traffic at all."""
    for address in workload.addresses:
        row = reading.row("workloads", pack_address(address))
        if row is not None:
            return WorkloadRow.unpack(row)
    return None


def status(reading: Reading, workload: Workload) -> pb.RowStatus:
    """What has become of the rows of a workload's addresses and of its link's programs."""
    world = reading.world
    rows = reading.status(planned.PLANNER.rows(world, workload.key))
    programs = hooks.PLANNER.rows(world, ("workload", workload.key))
    late = (reading.unfinished(RowKey(row.table, row.key)) for row in programs)
    return next(filter(None, late), rows)


def _isolation(world: World, key: str, direction: Direction, rule_set: int) -> pb.Isolation:
    """Workloads of equal rules share a set: the names are those of this one's policies."""
    if not rule_set:
        return pb.Isolation()
    side = book_of(world).judged.get(key, UNKNOWN).side(direction)
    current = side.set is not None and side.set.id == rule_set
    policies = side.policies if current else set_policies(world, rule_set)
    return pb.Isolation(
        isolated=True, rule_set=f"{rule_set:016x}", policies=[str(ref) for ref in policies]
    )
