"""A loop over memory: a planner of one table, targets that are dictionaries."""

import asyncio
from collections.abc import AsyncIterator, Collection, Hashable, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager

from weft.proxy.apply.applier import Applier
from weft.proxy.apply.desired import Desired
from weft.proxy.apply.patrol import Patrol
from weft.proxy.intake import Intake
from weft.proxy.loop import Loop
from weft.proxy.model.objects import Kind, Namespace, Ref
from weft.proxy.model.world import Change, Settings, World
from weft.proxy.plan.rows import Planner, Row
from weft.proxy.planning import Planning
from weft.proxy.watch.events import Listed, Moved

TABLE = "peers"


class DictTarget:
    """A table in memory; keys in `refused` are not taken."""

    def __init__(self) -> None:
        self.rows: dict[Hashable, object] = {}
        self.refused: set[Hashable] = set()
        self.writes = 0

    def dump(self) -> Iterator[tuple[Hashable, object]]:
        return iter(list(self.rows.items()))

    def write(
        self, upserts: Mapping[Hashable, object], deletes: Collection[Hashable]
    ) -> Mapping[Hashable, str]:
        self.writes += len(upserts) + len(deletes)
        self.rows.update({k: v for k, v in upserts.items() if k not in self.refused})
        for key in deletes:
            self.rows.pop(key, None)
        return {key: "no room" for key in upserts if key in self.refused}


def _keys(change: Change, before: World, after: World) -> Iterable[Hashable]:
    return (change.key,) if change.kind is Kind.NAMESPACE else ()


def _rows(world: World, key: Hashable) -> Iterator[Row]:
    """A namespace's label `row` as its row; the label `raise` makes the planner fail."""
    record = world.namespace(str(key[1])) if isinstance(key, Ref) else None
    if record is not None:
        if "raise" in record.labels:
            raise ValueError("a bug of ours")
        yield Row(TABLE, record.ref.name, record.labels.get("row", ""))


def _all_keys(world: World) -> Iterable[Hashable]:
    return tuple(world.table(Kind.NAMESPACE))


PLANNER = Planner("test", _keys, _rows, _all_keys)


class LoopBench:
    """The loop, its target and its parts, expecting namespaces and pods."""

    def __init__(self) -> None:
        self.target = DictTarget()
        self.desired = Desired()
        self.intake = Intake(World(Settings("n1")), frozenset({Kind.NAMESPACE, Kind.POD}))
        clock = asyncio.get_running_loop().time
        self.applier = Applier({TABLE: self.target}, self.desired, clock)
        self.planning = Planning([PLANNER], self.desired)
        patrol = Patrol(self.applier, [TABLE])
        self.loop = Loop(self.intake, self.planning, self.desired, self.applier, patrol)

    def list(self, kind: Kind, *records: Namespace, cached: bool = False) -> None:
        self.loop.post(Listed(kind, {record.ref: record for record in records}, (), cached))

    async def turned(self) -> None:
        """Return after a turn that took everything posted so far."""
        await self.loop.submit(Moved(Kind.NODE, Ref("", "nobody"), None))


def namespace(name: str, **labels: str) -> Namespace:
    return Namespace(Ref("", name), labels)


def moved(name: str, **labels: str) -> Moved:
    return Moved(Kind.NAMESPACE, Ref("", name), namespace(name, **labels))


@asynccontextmanager
async def running(*, listed: bool = True) -> AsyncIterator[LoopBench]:
    """A loop that runs; `listed`: both kinds have listed, empty."""
    bench = LoopBench()
    if listed:
        bench.list(Kind.NAMESPACE)
        bench.list(Kind.POD)
    task = asyncio.create_task(bench.loop.run())
    try:
        yield bench
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
