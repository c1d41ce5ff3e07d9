"""Owns which planner keys are stale, and replaces what they want; never decides what rows say."""

import logging
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

from weft.proxy.apply.desired import Desired, Owner, RowKey
from weft.proxy.intake import Step
from weft.proxy.model.world import World
from weft.proxy.plan import full_plan
from weft.proxy.plan.rows import Planner

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Difference:
    """A row on which the kernel and a full plan disagree; None: one of them has no such row."""

    place: RowKey
    planned: object | None
    actual: object | None


class Planning:
    """The planners, and the keys of theirs that the World has moved under."""

    def __init__(self, planners: Sequence[Planner], desired: Desired) -> None:
        self._planners = {planner.name: planner for planner in planners}
        self.failed: set[Owner] = set()
        """Keys whose planner raised: their rows are those of an earlier World."""
        self._desired = desired
        self._stale: dict[str, set[Hashable]] = {name: set() for name in self._planners}

    def touch_all(self, world: World) -> None:
        """Mark every key that there is, and every one that wanted rows of an earlier World."""
        for name, planner in self._planners.items():
            self._stale[name].update(planner.all_keys(world))
        for name, key in self._desired.owners():
            self._stale[name].add(key)

    def touch(self, step: Step) -> None:
        """Mark what `step` can alter."""
        for name, key in self.touched_by(step):
            self._stale[name].add(key)

    def touched_by(self, step: Step) -> Iterator[Owner]:
        """What `step` can alter. A planner that raises is a bug of ours: then all that it has."""
        for name, planner in self._planners.items():
            try:
                keys = tuple(planner.keys(step.change, step.before, step.after))
            except Exception:
                log.exception(
                    "planner failed", extra={"planner": name, "key": str(step.change.key)}
                )
                keys = tuple(planner.all_keys(step.after))
            yield from ((name, key) for key in keys)

    def plan(self, world: World) -> None:
        """Plan every stale key afresh."""
        for name, keys in self._stale.items():
            for key in keys:
                self._replan(world, (name, key))
            keys.clear()

    def plan_only(self, world: World, owners: Iterable[Owner]) -> None:
        """Plan those of `owners` that are stale; the others stay stale."""
        for name, key in owners:
            if key in self._stale[name]:
                self._stale[name].discard(key)
                self._replan(world, (name, key))

    @staticmethod
    def audit(
        world: World, actual: Mapping[str, Mapping[Hashable, object]]
    ) -> tuple[Difference, ...]:
        """Where `actual` (rows by table) departs from a full plan of `world` made afresh."""
        planned: dict[str, dict[Hashable, object]] = {table: {} for table in actual}
        for (table, key), value in full_plan(world).items():
            planned.setdefault(table, {})[key] = value
        return tuple(
            chain.from_iterable(_compared(table, planned[table], actual) for table in planned)
        )

    def _replan(self, world: World, owner: Owner) -> None:
        """A planner that raises is a bug of ours: its key keeps the rows that it had."""
        name, key = owner
        try:
            rows = list(self._planners[name].rows(world, key))
        except Exception:
            log.exception("planner failed", extra={"planner": name, "key": str(key)})
            self.failed.add(owner)
            return
        self.failed.discard(owner)
        self._desired.replace(owner, rows)


def _compared(
    table: str, planned: Mapping[Hashable, object], dumps: Mapping[str, Mapping[Hashable, object]]
) -> Iterator[Difference]:
    actual = dumps.get(table, {})
    for key in planned.keys() | actual.keys():
        want, have = planned.get(key), actual.get(key)
        if want != have:
            yield Difference(RowKey(table, key), want, have)
