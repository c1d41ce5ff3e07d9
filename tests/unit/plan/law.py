"""The central law, for any planners: the plan kept turn by turn is the plan made afresh."""

from collections.abc import Hashable, Iterable, Sequence

from weft.proxy.model.objects import Kind
from weft.proxy.model.world import Change, Key, Record, World
from weft.proxy.plan.rows import Planner, Row, rank

Place = tuple[str, Hashable]
Owner = tuple[str, Hashable]
Plan = dict[Place, object]


def change(world: World, kind: Kind, key: Key, after: Record | None) -> Change:
    """The change that makes `after` of whatever stands in `world` under `key`."""
    return Change(kind, key, world.table(kind).get(key), after)


class Turns:
    """A World and a plan that only ever replans the keys which a turn's changes name."""

    def __init__(self, planners: Sequence[Planner], world: World) -> None:
        self.planners = planners
        self.world = world
        self._wanted: dict[Owner, frozenset[Row]] = {}
        self._replan((p.name, key) for p in planners for key in p.all_keys(world))

    def turn(self, moves: Iterable[tuple[Kind, Key, Record | None]]) -> None:
        """One turn of several changes, whose keys are planned together at its end."""
        touched: set[Owner] = set()
        for kind, key, after in moves:
            step = change(self.world, kind, key, after)
            before, self.world = self.world, self.world.with_change(step)
            named = {(p.name, k) for p in self.planners for k in p.keys(step, before, self.world)}
            self._check_untouched(before, named)
            touched |= named
        self._replan(touched)

    def plan(self) -> Plan:
        """The union over owners, conflicts resolved as in the daemon."""
        return _union(row for rows in self._wanted.values() for row in rows)

    def afresh(self) -> Plan:
        """The union over every key of the World as it is now."""
        return _union(
            row
            for planner in self.planners
            for key in planner.all_keys(self.world)
            for row in planner.rows(self.world, key)
        )

    def check(self) -> None:
        """The law itself."""
        assert self.plan() == self.afresh()

    def _replan(self, owners: Iterable[Owner]) -> None:
        planners = {p.name: p for p in self.planners}
        for name, key in owners:
            self._wanted[name, key] = frozenset(planners[name].rows(self.world, key))

    def _check_untouched(self, before: World, named: set[Owner]) -> None:
        """A key that a change did not name must want the same on both sides of it."""
        for planner in self.planners:
            for key in {*planner.all_keys(before), *planner.all_keys(self.world)}:
                if (planner.name, key) not in named:
                    was, now = planner.rows(before, key), planner.rows(self.world, key)
                    assert set(was) == set(now), f"{planner.name}: {key!r} changed unnamed"


def conflicts(rows: Iterable[Row]) -> set[Place]:
    """Places for which two keys want different values."""
    wanted: dict[Place, set[object]] = {}
    for row in rows:
        wanted.setdefault((row.table, row.key), set()).add(row.value)
    return {place for place, values in wanted.items() if len(values) > 1}


def _union(rows: Iterable[Row]) -> Plan:
    plan: Plan = {}
    for row in rows:
        place = (row.table, row.key)
        held = plan.get(place)
        plan[place] = row.value if held is None else min(held, row.value, key=rank)
    return plan
