"""Owns the pod_links table: the host end of a pod's link -> the pod's addresses.

A key is a workload's key. What is sent to a group names no pod: the link does.
"""

from collections.abc import Hashable, Iterable, Iterator
from typing import cast

from weft.bpf.layout import UNSPECIFIED, PodLink, pack_u32
from weft.proxy.model.objects import Kind
from weft.proxy.model.world import Change, World
from weft.proxy.plan.rows import Planner, Row


def _rows(world: World, key: Hashable) -> Iterator[Row]:
    workload = world.workload(cast(str, key))
    if workload is not None:
        held = {address.version: address for address in workload.addresses}
        row = PodLink(held.get(4, UNSPECIFIED), held.get(6, UNSPECIFIED))
        yield Row("pod_links", pack_u32(workload.ifindex), row.pack())


def _keys(change: Change, before: World, after: World) -> Iterable[Hashable]:
    return (change.key,) if change.kind is Kind.ATTACHMENT else ()


def _all_keys(world: World) -> Iterable[Hashable]:
    return world.table(Kind.ATTACHMENT)


PLANNER = Planner("pod_links", _keys, _rows, _all_keys)
