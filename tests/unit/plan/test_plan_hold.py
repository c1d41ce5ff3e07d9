"""Who is told of the hold link, and when."""

from tests.unit.plan.law import change
from weft.bpf.layout import Settings as SettingsRow
from weft.bpf.layout import pack_u32
from weft.proxy.model.objects import Kind, Link
from weft.proxy.model.world import Settings, World
from weft.proxy.plan import full_plan
from weft.proxy.plan.hooks import Direction, Hook, HookPoint
from weft.proxy.plan.links import HOLD_LINK
from weft.proxy.plan.node import HELD, HOLD

READY = HOLD_LINK.mtu_bytes
UNREADY = 1500


def world_of(*links: Link) -> World:
    world = World(Settings("n1"))
    for link in links:
        world = world.with_change(change(world, Kind.LINK, link.name, link))
    return world


def hold_ends(world: World) -> tuple[int, int]:
    row = full_plan(world)["settings", pack_u32(0)]
    assert isinstance(row, bytes)
    settings = SettingsRow.unpack(row)
    return settings.hold_from_pod, settings.hold_to_pod


def test_every_node_has_one_before_its_node_object_is_known() -> None:
    assert full_plan(world_of())["links", HOLD] == HOLD_LINK


def test_programs_hold_by_it_once_both_ends_delay() -> None:
    near, far = Link(HOLD, 7, READY, ()), Link(HELD, 6, READY, ())
    assert hold_ends(world_of(near, far)) == (7, 6)
    assert hold_ends(world_of(near, Link(HELD, 6, UNREADY, ()))) == (0, 0)
    assert hold_ends(world_of(near)) == (0, 0)


def test_what_goes_into_one_end_is_met_at_the_other() -> None:
    plan = full_plan(world_of(Link(HOLD, 7, READY, ()), Link(HELD, 6, READY, ())))
    hooks = {key: row for (table, key), row in plan.items() if table == "hooks"}
    assert hooks[HookPoint(6, Direction.INGRESS)] == Hook("held_from_pod")
    assert hooks[HookPoint(7, Direction.INGRESS)] == Hook("held_to_pod")
    assert HookPoint(6, Direction.EGRESS) not in hooks


def test_it_is_no_uplink_whatever_its_addresses() -> None:
    plan = full_plan(world_of(Link(HOLD, 7, READY, (), default_route=True)))
    assert ("uplinks", pack_u32(7)) not in plan
