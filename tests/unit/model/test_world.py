"""World: a change gives the next one, what stayed is shared, indexes never lie."""

from collections.abc import Hashable
from ipaddress import ip_address

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.strategies import DataObject
from immutables import Map

from tests.unit.plan.law import change
from tests.unit.plan.worlds import MOVES, turns
from weft.proxy.model.index import INDEXES, Index
from weft.proxy.model.objects import EndpointSlice, Kind, Pod, Ref, Workload
from weft.proxy.model.world import Change, Key, Record, Settings, World, apply_changes

EMPTY = World(Settings("n1"))
WEB, API = Ref("shop", "web"), Ref("shop", "api")
POD_IP = ip_address("10.244.1.5")


def piece(name: str, service: str) -> EndpointSlice:
    return EndpointSlice(Ref("shop", name), service, (), ())


def pod(name: str, namespace: str = "shop") -> Pod:
    return Pod(Ref(namespace, name), "uid", "n1", {}, (POD_IP,), False, False)


def with_record(world: World, kind: Kind, key: Key, record: Record | None) -> World:
    return world.with_change(change(world, kind, key, record))


def test_a_world_is_never_altered() -> None:
    world = with_record(EMPTY, Kind.SLICE, WEB, piece("web", "web"))
    assert EMPTY.slice(WEB) is None
    assert world.slice(WEB) == piece("web", "web")
    assert with_record(world, Kind.SLICE, WEB, None).slice(WEB) is None


def test_a_change_shares_every_other_table_and_index() -> None:
    world = with_record(EMPTY, Kind.SLICE, WEB, piece("web", "web"))
    after = with_record(world, Kind.POD, API, pod("api"))
    assert after.table(Kind.SLICE) is world.table(Kind.SLICE)
    assert after.indexes[Index.SLICES_BY_SERVICE] is world.indexes[Index.SLICES_BY_SERVICE]


def test_a_slice_that_moves_to_another_service_leaves_the_first() -> None:
    world = with_record(EMPTY, Kind.SLICE, WEB, piece("web", "web"))
    after = with_record(world, Kind.SLICE, WEB, piece("web", "api"))
    assert after.slices_of(WEB) == ()
    assert after.slices_of(API) == (piece("web", "api"),)


def test_a_slice_of_no_service_is_filed_nowhere() -> None:
    world = with_record(EMPTY, Kind.SLICE, WEB, piece("web", ""))
    assert world.slices_of(Ref("shop", "")) == ()


def test_two_pods_may_own_an_address_for_a_moment() -> None:
    world = with_record(EMPTY, Kind.POD, WEB, pod("web"))
    world = with_record(world, Kind.POD, API, pod("api"))
    assert {p.ref for p in world.pods_at(POD_IP)} == {WEB, API}
    assert [p.ref for p in with_record(world, Kind.POD, WEB, None).pods_at(POD_IP)] == [API]


def test_pods_are_found_by_namespace() -> None:
    world = with_record(EMPTY, Kind.POD, WEB, pod("web"))
    other = Ref("other", "web")
    world = with_record(world, Kind.POD, other, pod("web", "other"))
    assert dict(world.pods_in("shop")) == {WEB: pod("web")}
    assert world.pods_in("none") == Map()


def test_links_of_a_pod_are_found_by_pod_namespace_and_address() -> None:
    link = Workload("weft1", WEB, "uid", (POD_IP,), 7, bytes(6), bytes(6))
    world = with_record(EMPTY, Kind.ATTACHMENT, "weft1", link)
    assert world.workload("weft1") == link
    assert world.workloads_of(WEB) == world.workloads_at(POD_IP) == (link,)
    assert world.workloads_in("shop") == (link,)


def test_what_is_gone_twice_is_gone() -> None:
    gone = Change(Kind.POD, WEB, pod("web"), None)
    assert EMPTY.with_change(gone).table(Kind.POD) == Map()


@given(data=st.data())
def test_a_batch_gives_the_world_that_its_changes_give_one_by_one(data: DataObject) -> None:
    batch = [move for turn in data.draw(turns(*MOVES)) for move in turn]
    changes, step = [], EMPTY
    for kind, key, after in batch:
        changes.append(change(step, kind, key, after))
        step = step.with_change(changes[-1])
    assert apply_changes(EMPTY, changes) == step


@given(data=st.data())
def test_every_index_says_what_its_table_says(data: DataObject) -> None:
    world = EMPTY
    for kind, key, after in (move for turn in data.draw(turns(*MOVES)) for move in turn):
        world = with_record(world, kind, key, after)
    for kind, indexes in INDEXES.items():
        for index, groups_of in indexes.items():
            expected: dict[Hashable, dict[Key, Record]] = {}
            for key, record in world.table(kind).items():
                for group in groups_of(record):
                    expected.setdefault(group, {})[key] = record
            found = world.indexes.get(index) or Map()
            assert {group: dict(members) for group, members in found.items()} == expected
