"""The law: whatever comes in whatever order, the kept plan is the plan made afresh."""

from dataclasses import replace
from random import Random

import hypothesis
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.strategies import DataObject

from tests.unit.plan.law import Turns, change, conflicts
from tests.unit.plan.worlds import MOVES, settings, turns
from tests.unit.policy.clusters import Dice, empty_world
from weft.proxy.model.objects import Kind
from weft.proxy.model.world import Settings, World
from weft.proxy.plan import (
    PLANNERS,
    every_row,
    hooks,
    hostports,
    links,
    nodes,
    podlinks,
    routes,
    sandboxes,
    services,
    services_sctp,
    uplinks,
    workloads,
)
from weft.proxy.plan import settings as settings_row
from weft.proxy.plan.mtu import alters_tunnels, tunnel_versions
from weft.proxy.plan.path_mtu import routed_ends
from weft.proxy.plan.rows import Planner

MOVED_BY = {
    services.PLANNER: (Kind.SERVICE, Kind.SLICE, Kind.NODE, Kind.LINK),
    services_sctp.PLANNER: (Kind.SERVICE, Kind.SLICE, Kind.NODE, Kind.LINK),
    hostports.PLANNER: (Kind.POD, Kind.ATTACHMENT, Kind.SERVICE, Kind.NODE, Kind.LINK),
    nodes.PLANNER: (Kind.NODE, Kind.LINK, Kind.SERVICE_CIDR, Kind.PATH_MTU),
    settings_row.PLANNER: (Kind.NODE, Kind.LINK),
    uplinks.PLANNER: (Kind.NODE, Kind.LINK),
    links.PLANNER: (Kind.NODE, Kind.LINK),
    routes.PLANNER: (Kind.NODE, Kind.LINK, Kind.PATH_MTU),
    hooks.PLANNER: (Kind.NODE, Kind.LINK, Kind.ATTACHMENT, Kind.POD, Kind.SHAPING),
    workloads.PLANNER: (Kind.NODE, Kind.ATTACHMENT, Kind.POD, Kind.SHAPING),
    podlinks.PLANNER: (Kind.ATTACHMENT,),
    sandboxes.PLANNER: (Kind.ATTACHMENT, Kind.POD),
}


@pytest.mark.parametrize("planner", MOVED_BY, ids=lambda planner: planner.name)
@given(data=st.data(), of=settings)
@hypothesis.settings(deadline=None)
def test_the_plan_of_one_planner_kept_by_turns_is_the_full_plan(
    planner: Planner, data: DataObject, of: Settings
) -> None:
    kept = Turns([planner], World(of))
    for moves in data.draw(turns(*MOVED_BY[planner])):
        kept.turn(moves)
        kept.check()


@given(data=st.data(), of=settings)
@hypothesis.settings(deadline=None)
def test_the_plan_of_all_planners_kept_by_turns_is_the_full_plan(
    data: DataObject, of: Settings
) -> None:
    kept = Turns(PLANNERS, World(of))
    for moves in data.draw(turns(*MOVES)):
        kept.turn(moves)
        kept.check()


@given(data=st.data(), of=settings)
@hypothesis.settings(deadline=None)
def test_what_is_remembered_of_tunnels_is_what_a_fresh_look_says(
    data: DataObject, of: Settings
) -> None:
    world = World(of)
    for moves in data.draw(turns(Kind.NODE, Kind.LINK)):
        for kind, key, record in moves:
            step = change(world, kind, key, record)
            before, world = world, world.with_change(step)
            alters_tunnels(step, before, world)
        remembered = tunnel_versions(world)
        assert tunnel_versions(World(replace(of), world.tables, world.indexes)) == remembered
        tunnel_versions(world)


@given(data=st.data(), of=settings)
@hypothesis.settings(deadline=None)
def test_what_is_remembered_of_ends_behind_routers_is_what_a_fresh_look_says(
    data: DataObject, of: Settings
) -> None:
    world = World(of)
    for moves in data.draw(turns(Kind.NODE, Kind.LINK)):
        for kind, key, record in moves:
            world = world.with_change(change(world, kind, key, record))
        remembered = routed_ends(world)
        assert routed_ends(World(replace(of), world.tables, world.indexes)) == remembered
        assert routed_ends(world) == remembered


@given(seed=st.integers(0, 1 << 32))
@hypothesis.settings(max_examples=40, deadline=None)
def test_the_links_of_pods_follow_their_policies_by_turns(seed: int) -> None:
    dice = Dice(Random(seed))
    kept = Turns([workloads.PLANNER], empty_world())
    for _ in range(6):
        kept.turn([dice.move() for _ in range(4)])
        kept.check()


@given(data=st.data(), of=settings)
@hypothesis.settings(deadline=None)
def test_no_two_keys_want_one_row_to_be_different(data: DataObject, of: Settings) -> None:
    kept = Turns((), World(of))
    for moves in data.draw(turns(*MOVES)):
        kept.turn(moves)
    assert not conflicts(every_row(kept.world))


@given(data=st.data())
@hypothesis.settings(deadline=None)
def test_the_order_of_changes_to_different_records_does_not_matter(data: DataObject) -> None:
    moves = {(kind, key): after for kind, key, after in data.draw(turns(*MOVES))[0]}
    there = [(kind, key, after) for (kind, key), after in moves.items()]
    plans = []
    for order in (there, list(reversed(there))):
        kept = Turns(PLANNERS, World(Settings("n1")))
        kept.turn(order)
        plans.append(kept.plan())
    assert plans[0] == plans[1]
