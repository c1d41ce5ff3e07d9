"""Owns the workloads table: a local pod's address, its link, who holds it, and what judges it.

A key is a workload's key. What judges it is the policy planners' to say.
"""

from collections.abc import Hashable, Iterable, Iterator
from itertools import chain
from typing import cast

from weft.bpf.layout import Workload as WorkloadRow
from weft.bpf.layout import WorkloadFlag, pack_address
from weft.proxy.model.ids import content_id
from weft.proxy.model.objects import Kind, Record, Workload
from weft.proxy.model.owners import holder
from weft.proxy.model.world import Change, World
from weft.proxy.plan.podneeds import need_keys, stack_reasons
from weft.proxy.plan.policy import judgement, workload_keys
from weft.proxy.plan.rows import Planner, Row

# Of a revision: what judges stands below who holds the address (layout.h, REVISION_HOLDER_SHIFT).
_HOLDER_SHIFT = 40
_JUDGED = (1 << _HOLDER_SHIFT) - 1


def _rows(world: World, key: Hashable) -> Iterator[Row]:
    workload = world.workload(cast(str, key))
    if workload is None:
        return
    value = _row(world, workload).pack()
    for address in workload.addresses:
        if holder(world, address) == workload:
            yield Row("workloads", pack_address(address), value)


def _row(world: World, workload: Workload) -> WorkloadRow:
    judged, held_by = judgement(world, workload), _holder_bits(workload)
    return WorkloadRow(
        ingress_set=judged.ingress_set,
        ingress_revision=held_by | judged.ingress_revision & _JUDGED,
        egress_set=judged.egress_set,
        egress_revision=held_by | judged.egress_revision & _JUDGED,
        ifindex=workload.ifindex,
        flags=WorkloadFlag.NO_REDIRECT if stack_reasons(world, workload) else 0,
        mac=workload.mac,
        host_mac=workload.host_mac,
    )


def _holder_bits(workload: Workload) -> int:
    """Other ones for another pod, or another sandbox of a pod, that gets the address: no flow of
    the last one's is its. Never 0, which in a flow says that no such end is here."""
    who = content_id("holder", workload.key, workload.uid, *workload.ref)
    return (who >> 64 - 24 or 1) << _HOLDER_SHIFT


def _keys(change: Change, before: World, after: World) -> Iterable[Hashable]:
    keys: set[Hashable] = {*workload_keys(change, before, after)}
    keys.update(need_keys(change, before, after))
    if change.kind is Kind.ATTACHMENT:
        keys.update((*_rivals(change.before, before), *_rivals(change.after, after)))
    return keys


def _rivals(record: Record | None, world: World) -> Iterator[str]:
    """The other workloads at this one's addresses: whose row stands there may change with it."""
    if isinstance(record, Workload):
        for other in chain.from_iterable(map(world.workloads_at, record.addresses)):
            yield other.key


def _all_keys(world: World) -> Iterable[Hashable]:
    return world.table(Kind.ATTACHMENT)


PLANNER = Planner("workloads", _keys, _rows, _all_keys)
