"""What Services cost, and who of a namespace is admitted when they would take too much."""

from collections import Counter
from dataclasses import replace
from ipaddress import ip_address

from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.strategies import DataObject

from tests.unit.plan.law import Turns, change
from tests.unit.plan.worlds import turns
from weft.proxy.model.objects import (
    EndpointSlice,
    Kind,
    Protocol,
    Ref,
    Service,
    ServicePort,
    SliceEndpoint,
    SlicePort,
)
from weft.proxy.model.world import Settings, World
from weft.proxy.plan import services
from weft.proxy.plan.shares import Cost, beyond, cost_of, every_beyond, limits, moved

TIGHT = Settings("n1", table_sizes={"frontends": 6, "slots": 4})


def service(name: str, created: int, *, namespace: str = "shop", ports: int = 1) -> Service:
    """Two frontends with one port, of which each more is one more."""
    every = tuple(ServicePort(f"p{n}", Protocol.TCP, 80 + n) for n in range(ports))
    vip = ip_address("10.96.0.0") + int.from_bytes(name.encode(), "big")
    return Service(Ref(namespace, name), "ClusterIP", (vip,), every, created_ns=created)


def slice_of(name: str, endpoints: int) -> EndpointSlice:
    some = tuple(
        SliceEndpoint(ip_address("10.244.1.0") + n, True, True, False, "n1", None)
        for n in range(endpoints)
    )
    return EndpointSlice(Ref("shop", name), name, (SlicePort("p0", Protocol.TCP, 80),), some)


def world_of(*records: Service | EndpointSlice, settings: Settings = TIGHT) -> World:
    world = World(settings)
    for record in records:
        kind = Kind.SERVICE if isinstance(record, Service) else Kind.SLICE
        world = world.with_change(change(world, kind, record.ref, record))
    return world


def refused(world: World) -> set[str]:
    return {ref.name for ref, _ in every_beyond(world)}


@given(data=st.data())
@hypothesis_settings(deadline=None)
def test_no_service_has_more_rows_than_it_is_counted_for(data: DataObject) -> None:
    kept = Turns([services.PLANNER], World(Settings("n1")))
    for moves in data.draw(turns(Kind.SERVICE, Kind.SLICE)):
        kept.turn(moves)
    for one in kept.world.services():
        rows = Counter(row.table for row in set(services.PLANNER.rows(kept.world, one.ref)))
        cost = cost_of(one, kept.world.slices_of(one.ref))
        assert all(rows[table] <= most for table, most in cost._asdict().items())


def test_what_fits_is_admitted() -> None:
    world = world_of(*(service(name, 1) for name in "abc"))
    assert refused(world) == set()


def test_the_oldest_are_admitted_whatever_the_order_of_events() -> None:
    some = [service(name, created) for created, name in enumerate("dcba")]
    for order in (some, some[::-1]):
        assert refused(world_of(*order)) == {"a"}


def test_of_one_age_the_name_decides() -> None:
    assert refused(world_of(*(service(name, 7) for name in "bdca"))) == {"d"}


def test_a_service_that_is_too_large_leaves_the_room_to_smaller_ones() -> None:
    world = world_of(service("a", 1), service("b", 2, ports=4), service("c", 3))
    assert refused(world) == {"b"}
    assert set(services.PLANNER.rows(world, Ref("shop", "b"))) == set()
    assert set(services.PLANNER.rows(world, Ref("shop", "c")))


def test_a_namespace_takes_nothing_from_another() -> None:
    many = [service(name, 1) for name in "abcdef"]
    world = world_of(*many, service("z", 9, namespace="other"))
    assert refused(world) == set("def")
    assert not beyond(world, "other")


def test_endpoints_count_and_the_reason_says_of_which_table() -> None:
    world = world_of(service("a", 1), slice_of("a", 3), service("b", 2), slice_of("b", 2))
    ((ref, why),) = every_beyond(world)
    assert ref.name == "b"
    assert "5 rows of slots, of which a namespace may have 4" in why


def test_a_change_names_those_that_it_admits_or_puts_out() -> None:
    before = world_of(service("a", 1), slice_of("a", 1), service("b", 2), slice_of("b", 2))
    for record, named in ((slice_of("a", 3), {"b"}), (slice_of("a", 2), set[str]())):
        step = change(before, Kind.SLICE, record.ref, record)
        after = before.with_change(step)
        assert {ref.name for ref in moved(step, before, after)} == named
    tight = world_of(*(service(name, 1) for name in "abcd"))
    gone = change(tight, Kind.SERVICE, Ref("shop", "a"), None)
    assert {ref.name for ref in moved(gone, tight, tight.with_change(gone))} == {"d"}


def test_a_share_is_a_part_of_the_table_and_never_less_than_the_floor() -> None:
    sizes = {"frontends": 10_000, "slots": 1_500, "backends": 100}
    of = Settings("n1", namespace_share=20, table_sizes=sizes)
    assert limits(of)[:3] == (2_000, 1_024, 100)
    assert limits(replace(of, namespace_share=100))[:3] == (10_000, 1_500, 100)


def test_a_service_of_another_proxy_costs_its_address_alone() -> None:
    assert cost_of(replace(service("a", 1), proxied=False), ()) == Cost(frontends=1)
