"""One answer's look at the kernel: rows as they are, and how each stands to what is wanted.

Owns the comparison that every listing makes. Never knows what rows mean. A whole listing dumps a
table once; an answer about one object looks its few rows up.
"""

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping
from typing import cast

from weft.proxy.api import weft_pb2 as pb
from weft.proxy.apply.desired import RowKey
from weft.proxy.apply.ledger import State, Status
from weft.proxy.loop import View
from weft.proxy.model.world import World
from weft.proxy.plan.rows import Row

Lookup = Callable[[bytes], bytes | None]

_STATES = {
    State.PENDING: pb.RowStatus.PENDING,
    State.DONE: pb.RowStatus.DONE,
    State.ERROR: pb.RowStatus.ERROR,
}
DONE = pb.RowStatus(state=pb.RowStatus.DONE)


class Reading:
    """The World, the tables' rows and the statuses, taken for one answer."""

    def __init__(
        self, world: World, lookups: Mapping[str, Lookup], unfinished: Mapping[RowKey, Status]
    ) -> None:
        self.world = world
        self._lookups = lookups
        self._unfinished = unfinished
        self._now_s = time.monotonic()

    def row(self, table: str, key: bytes) -> bytes | None:
        """A row's value as the kernel has it."""
        return self._lookups[table](key)

    def status(self, rows: Iterable[Row]) -> pb.RowStatus:
        """The worst of what `rows`, as planned, have come to."""
        late = [s for row in rows if (s := self._status(row)).state != pb.RowStatus.DONE]
        errors = (status for status in late if status.state == pb.RowStatus.ERROR)
        return next(errors, late[0] if late else DONE)

    def unfinished(self, place: RowKey) -> pb.RowStatus | None:
        """The status of a row that is not done; None: it is, or is not wanted."""
        entry = self._unfinished.get(place)
        return status_message(entry, self._now_s) if entry is not None else None

    def _status(self, row: Row) -> pb.RowStatus:
        late = self.unfinished(RowKey(row.table, row.key))
        if late is not None:
            return late
        if row.table not in self._lookups:
            return DONE
        actual = self.row(row.table, cast(bytes, row.key))
        if actual == row.value:
            return DONE
        said = "is not in the kernel" if actual is None else "differs in the kernel"
        return pb.RowStatus(state=pb.RowStatus.PENDING, reason=f"a row of {row.table} {said}")


def status_message(status: Status, now_s: float) -> pb.RowStatus:
    """A row's status for clients; `now_s` on the monotonic clock."""
    age_s = max(0.0, now_s - status.since_s) if status.state is not State.DONE else 0.0
    return pb.RowStatus(state=_STATES[status.state], reason=status.reason, age_s=age_s)


async def read(view: View, tables: Iterable[str], *, whole: bool) -> Reading:
    """Look at `tables`: dumped off the event loop when `whole`, else row by row as asked."""
    unfinished = await view.unfinished()
    world = view.world
    lookups: dict[str, Lookup] = {}
    for name in tables:
        table = view.tables[name]
        lookups[name] = (
            (await asyncio.to_thread(dict, table.items())).get if whole else table.lookup
        )
    return Reading(world, lookups, unfinished)
