"""What planner keys want together: owners, conflicts and the difference between two moments."""

from hypothesis import given
from hypothesis import strategies as st

from weft.proxy.apply.desired import Desired, Owner, RowKey
from weft.proxy.plan.rows import Row

WEB: Owner = ("services", "web")
API: Owner = ("services", "api")


def test_a_row_that_comes_is_an_upsert_once() -> None:
    desired = Desired()
    desired.replace(WEB, [Row("frontends", b"k", b"v")])
    assert desired.take_delta().upserts == {"frontends": {b"k": b"v"}}
    assert not desired.take_delta()


def test_a_row_that_its_owner_stops_yielding_is_a_delete() -> None:
    desired = Desired()
    desired.replace(WEB, [Row("frontends", b"k", b"v")])
    desired.take_delta()
    desired.replace(WEB, [])
    assert desired.take_delta().deletes == {"frontends": {b"k"}}
    assert desired.places(WEB) == ()


def test_a_row_of_two_owners_stays_until_the_last_one_goes() -> None:
    desired = Desired()
    for owner in (WEB, API):
        desired.replace(owner, [Row("peers", b"k", b"v")])
    desired.take_delta()
    desired.replace(WEB, [])
    assert not desired.take_delta()
    desired.replace(API, [])
    assert desired.take_delta().deletes == {"peers": {b"k"}}


def test_a_row_that_comes_back_within_a_turn_is_not_written() -> None:
    desired = Desired()
    desired.replace(WEB, [Row("peers", b"k", b"v")])
    desired.take_delta()
    desired.replace(WEB, [])
    desired.replace(API, [Row("peers", b"k", b"v")])
    assert not desired.take_delta()


def test_a_conflict_has_the_same_winner_in_either_order_and_is_reported() -> None:
    rows = {WEB: [Row("frontends", b"k", b"2")], API: [Row("frontends", b"k", b"1")]}
    for order in ((WEB, API), (API, WEB)):
        desired = Desired()
        for owner in order:
            desired.replace(owner, rows[owner])
        assert desired.value(RowKey("frontends", b"k")) == b"1"
        assert set(desired.conflicts()[RowKey("frontends", b"k")]) == {WEB, API}


def test_the_loser_of_a_conflict_takes_over_when_the_winner_goes() -> None:
    desired = Desired()
    desired.replace(WEB, [Row("frontends", b"k", b"2")])
    desired.replace(API, [Row("frontends", b"k", b"1")])
    desired.take_delta()
    desired.replace(API, [])
    assert desired.take_delta().upserts == {"frontends": {b"k": b"2"}}
    assert desired.conflicts() == {}


def test_a_row_that_changed_hands_follows_its_last_owner() -> None:
    desired = Desired()
    for owner in (WEB, API):
        desired.replace(owner, [Row("peers", b"k", b"1")])
    desired.replace(WEB, [])
    desired.replace(API, [Row("peers", b"k", b"2")])
    assert desired.take_delta().upserts == {"peers": {b"k": b"2"}}
    desired.replace(API, [])
    assert desired.count("peers") == 0


_wishes = st.dictionaries(
    st.tuples(st.sampled_from(["peers", "slots"]), st.binary(max_size=1)),
    st.binary(max_size=1),
    max_size=3,
)


@given(st.lists(st.tuples(st.integers(0, 3), _wishes), max_size=20))
def test_deltas_add_up_to_the_union_of_what_the_owners_want_last(
    turns: list[tuple[int, dict[tuple[str, bytes], bytes]]],
) -> None:
    desired, applied = Desired(), {}
    last: dict[int, dict[tuple[str, bytes], bytes]] = {}
    for key, wishes in turns:
        last[key] = wishes
        desired.replace(("p", key), [Row(*place, value) for place, value in wishes.items()])
        delta = desired.take_delta()
        for table, rows in delta.upserts.items():
            applied.update({(table, row): value for row, value in rows.items()})
        for table, keys in delta.deletes.items():
            for gone in keys:
                del applied[table, gone]
    union: dict[tuple[str, bytes], bytes] = {}
    for wishes in last.values():
        for place, value in wishes.items():
            union[place] = min(value, union.get(place, value))
    assert applied == union


def test_an_owner_that_names_a_row_twice_gets_the_value_that_would_win_between_owners() -> None:
    for values in ((b"1", b"2"), (b"2", b"1")):
        desired = Desired()
        desired.replace(WEB, [Row("peers", b"k", value) for value in values])
        assert desired.take_delta().upserts == {"peers": {b"k": b"1"}}
