"""Owns the sandboxes table: the network namespaces of pods whose sockets are left alone.

A key is a workload's key. Most pods have no row: a look-up that misses is the rule.
"""

from collections.abc import Hashable, Iterable, Iterator
from typing import cast

from weft.bpf.layout import Sandbox, SandboxFlag, pack_u64
from weft.proxy.model.objects import Kind
from weft.proxy.model.world import World
from weft.proxy.plan.podneeds import keeps_own_sockets, need_keys
from weft.proxy.plan.rows import Planner, Row


def _rows(world: World, key: Hashable) -> Iterator[Row]:
    workload = world.workload(cast(str, key))
    if workload is None or not workload.netns_cookie:
        return
    if keeps_own_sockets(world, workload):
        row = Sandbox(SandboxFlag.NO_SOCKETS)
        yield Row("sandboxes", pack_u64(workload.netns_cookie), row.pack())


def _all_keys(world: World) -> Iterable[Hashable]:
    return world.table(Kind.ATTACHMENT)


PLANNER = Planner("sandboxes", need_keys, _rows, _all_keys)
