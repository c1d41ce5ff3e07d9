"""Owns the list of planners and the full plan, their union over every key; never a rule of its own.

World -> desired rows, one file per feature. The law: applying `keys` and `rows` turn by turn gives
the full plan, whatever the order of changes (tests/unit/plan/law.py).
"""

from collections.abc import Hashable, Iterator

from weft.proxy.model.world import World
from weft.proxy.plan import (
    hooks,
    hostports,
    links,
    nodes,
    podlinks,
    policy,
    routes,
    sandboxes,
    services,
    services_sctp,
    settings,
    uplinks,
    workloads,
)
from weft.proxy.plan.rows import Planner, Row, rank

PLANNERS: tuple[Planner, ...] = (
    services.PLANNER,
    hostports.PLANNER,
    services_sctp.PLANNER,
    *policy.PLANNERS,
    workloads.PLANNER,
    podlinks.PLANNER,
    sandboxes.PLANNER,
    nodes.PLANNER,
    settings.PLANNER,
    uplinks.PLANNER,
    links.PLANNER,
    hooks.PLANNER,
    routes.PLANNER,
)
"""All of them, in every mode: what a mode does not need has no rows in it."""


def every_row(world: World) -> Iterator[Row]:
    """All that any key of any planner wants; a row may come more than once."""
    for planner in PLANNERS:
        for key in planner.all_keys(world):
            yield from planner.rows(world, key)


def full_plan(world: World) -> dict[tuple[str, Hashable], object]:
    """Every desired row by table and key. Of values that differ the smallest by `rank` holds."""
    plan: dict[tuple[str, Hashable], object] = {}
    for row in every_row(world):
        place = (row.table, row.key)
        held = plan.get(place)
        plan[place] = row.value if held is None else min(held, row.value, key=rank)
    return plan
