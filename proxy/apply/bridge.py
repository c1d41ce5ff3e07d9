"""Owns the middle of a turn in which rule sets take another's place; never decides a verdict.

A peer's class and a workload's set are rows of different tables: between the two writes old sets
would meet new classes of which they have no verdicts. So peers first get an interim class that old
and new sets both answer for (plan.policy.transition), then workloads their sets, then the rest.
"""

from collections.abc import Iterable

from weft.proxy.apply.desired import Delta, Desired, RowKey
from weft.proxy.model.world import World
from weft.proxy.plan import policy
from weft.proxy.plan.rows import Row

_PEERS = ("peers", "blocks")
_AHEAD = ("verdicts", "ports", "workloads")


class Bridge:
    """Knows what policy made of the World that was written last."""

    def __init__(self, world: World, desired: Desired) -> None:
        self._desired = desired
        self._written = policy.state(world)

    def parts(self, delta: Delta, world: World) -> tuple[Delta, ...]:
        """The deltas that bring the kernel to `world`, one after the other; `delta` is the sum."""
        before, self._written = self._written, policy.state(world)
        return bridged(delta, policy.transition(before, world), self._desired)


def bridged(delta: Delta, interim: Iterable[Row], desired: Desired) -> tuple[Delta, ...]:
    """`delta` as the deltas to apply one after the other; itself where there is no interim."""
    rows = {RowKey(row.table, row.key): row.value for row in interim}
    if not rows:
        return (delta,)
    first = Delta()
    for table in (*_AHEAD, *_PEERS):
        for key, value in delta.upserts.get(table, {}).items():
            first.upsert(RowKey(table, key), value)
    for table in _PEERS:
        for key in delta.deletes.get(table, ()):
            first.delete(RowKey(table, key))
    for place, value in rows.items():
        first.upsert(place, value)
        first.deletes.get(place.table, set()).discard(place.key)
    return first, _restored(delta, rows, desired)


def _restored(delta: Delta, interim: Iterable[RowKey], desired: Desired) -> Delta:
    """`delta`, and every interim row back to what is desired."""
    last = Delta({t: dict(rows) for t, rows in delta.upserts.items()},
                 {t: set(keys) for t, keys in delta.deletes.items()})  # fmt: skip
    for place in interim:
        value = desired.value(place)
        if value is None:
            last.delete(place)
        else:
            last.upsert(place, value)
    return last
