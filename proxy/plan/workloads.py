"""Owns the workloads table: a local pod's address, its link and the rule sets that judge it.

A key is a workload's key. What judges it is the policy planners' to say.
"""

from collections.abc import Hashable, Iterable, Iterator
from itertools import chain
from typing import cast

from weft.bpf.layout import Workload as WorkloadRow
from weft.bpf.layout import WorkloadFlag, pack_address
from weft.proxy.model.objects import Address, Kind, Record, Workload
from weft.proxy.model.world import Change, World
from weft.proxy.plan.podneeds import need_keys, stack_reasons
from weft.proxy.plan.policy import judgement, workload_keys
from weft.proxy.plan.rows import Planner, Row


def holder(world: World, address: Address) -> Workload | None:
    """The workload that `address` leads to: of several the one whose link was made last."""
    claims = world.workloads_at(address)
    return max(claims, key=lambda workload: (workload.ifindex, workload.key), default=None)


def _rows(world: World, key: Hashable) -> Iterator[Row]:
    workload = world.workload(cast(str, key))
    if workload is None:
        return
    value = _row(world, workload).pack()
    for address in workload.addresses:
        if holder(world, address) == workload:
            yield Row("workloads", pack_address(address), value)


def _row(world: World, workload: Workload) -> WorkloadRow:
    judged = judgement(world, workload)
    return WorkloadRow(
        ingress_set=judged.ingress_set,
        ingress_revision=judged.ingress_revision,
        egress_set=judged.egress_set,
        egress_revision=judged.egress_revision,
        ifindex=workload.ifindex,
        flags=WorkloadFlag.NO_REDIRECT if stack_reasons(world, workload) else 0,
        mac=workload.mac,
        host_mac=workload.host_mac,
    )


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
