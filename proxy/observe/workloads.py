"""Local pods and what judges them, as the kernel has it."""

from collections.abc import AsyncIterator, Iterator

from weft.bpf.layout import Workload as WorkloadRow
from weft.bpf.layout import pack_address
from weft.proxy.api import weft_pb2 as pb
from weft.proxy.apply.desired import RowKey
from weft.proxy.loop import View
from weft.proxy.model.objects import NetworkPolicy, Workload
from weft.proxy.model.world import World
from weft.proxy.observe.reading import DONE, Reading, read
from weft.proxy.plan.policy_atoms import selects
from weft.proxy.plan.policy_rules import Direction, isolates

_TABLES = ("workloads",)


async def list_workloads(view: View, request: pb.ListRequest) -> AsyncIterator[pb.Workload]:
    """This node's pods by name."""
    reading = await read(view, _TABLES, whole=not request.name)
    for workload in _wanted(reading.world, request):
        yield _workload(reading, workload)


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


def kernel_rows(reading: Reading, workload: Workload) -> tuple[WorkloadRow | None, ...]:
    """The kernel's row of each address of a workload; None where it has none."""
    rows = (reading.row("workloads", pack_address(address)) for address in workload.addresses)
    return tuple(WorkloadRow.unpack(row) if row else None for row in rows)


def status(reading: Reading, workload: Workload) -> pb.RowStatus:
    """Done once every address has its row, of this very link."""
    for address, row in zip(workload.addresses, kernel_rows(reading, workload), strict=True):
        late = reading.unfinished(RowKey("workloads", pack_address(address)))
        if late is not None:
            return late
        if row is None or row.ifindex != workload.ifindex:
            reason = f"{address} has no row in the kernel: the pod sends and receives nothing"
            return pb.RowStatus(state=pb.RowStatus.PENDING, reason=reason)
    return DONE


def _workload(reading: Reading, workload: Workload) -> pb.Workload:
    row = next((row for row in kernel_rows(reading, workload) if row is not None), None)
    return pb.Workload(
        namespace=workload.ref.namespace,
        name=workload.ref.name,
        uid=workload.uid,
        addresses=[str(address) for address in workload.addresses],
        link=workload.key,
        ifindex=workload.ifindex,
        mac=workload.mac.hex(":"),
        ingress=_isolation(reading.world, workload, row, Direction.INGRESS),
        egress=_isolation(reading.world, workload, row, Direction.EGRESS),
        status=status(reading, workload),
    )


def _isolation(
    world: World, workload: Workload, row: WorkloadRow | None, direction: Direction
) -> pb.Isolation:
    rule_set, revision = judging(row, direction)
    if not rule_set:
        return pb.Isolation()
    return pb.Isolation(
        isolated=True,
        rule_set=f"{rule_set:016x}",
        revision=f"{revision:016x}",
        policies=[str(policy.ref) for policy in isolating(world, workload, direction)],
    )


def judging(row: WorkloadRow | None, direction: Direction) -> tuple[int, int]:
    """Rule set and revision that the kernel judges one direction by; 0: not isolated."""
    if row is None:
        return 0, 0
    if direction is Direction.INGRESS:
        return row.ingress_set, row.ingress_revision
    return row.egress_set, row.egress_revision


def isolating(world: World, workload: Workload, direction: Direction) -> Iterator[NetworkPolicy]:
    """The policies that isolate a workload in one direction, by name."""
    pod = world.pod(workload.ref)
    policies = world.policies_in(workload.ref.namespace)
    for _, policy in sorted(policies.items()):
        if pod and isolates(policy, direction) and selects(policy.pods, pod.labels):
            yield policy
