"""The one loop: events in, rows in the kernel, those who wait told."""

import asyncio

from tests.unit.loop.bench import TABLE, moved, namespace, running
from weft.proxy.apply.gate import Stage
from weft.proxy.loop import Turn, View
from weft.proxy.model.objects import Broken, Kind, Ref
from weft.proxy.watch.events import Listed, Moved, Refused


def test_an_event_becomes_a_row_in_one_turn() -> None:
    async def story() -> None:
        async with running() as bench:
            await bench.loop.submit(moved("a", row="1"))
            assert bench.target.rows == {"a": "1"}

    asyncio.run(story())


def test_nothing_is_deleted_before_every_kind_has_listed() -> None:
    async def story() -> None:
        async with running(listed=False) as bench:
            bench.target.rows = {"stale": "1"}
            bench.list(Kind.NAMESPACE, namespace("a", row="1"))
            await bench.turned()
            assert bench.target.rows == {"stale": "1"}
            bench.list(Kind.POD)
            await bench.turned()
            assert bench.target.rows == {"a": "1"}

    asyncio.run(story())


def test_a_restart_writes_only_what_differs() -> None:
    async def story() -> None:
        async with running(listed=False) as bench:
            bench.target.rows = {"a": "1", "b": "0"}
            bench.list(Kind.NAMESPACE, namespace("a", row="1"), namespace("b", row="1"))
            bench.list(Kind.POD)
            await bench.turned()
            assert bench.target.rows == {"a": "1", "b": "1"}
            assert bench.target.writes == 1

    asyncio.run(story())


def test_a_second_list_is_a_replacement_removals_included() -> None:
    async def story() -> None:
        async with running() as bench:
            bench.list(Kind.NAMESPACE, namespace("a", row="1"), namespace("b", row="1"))
            bench.list(Kind.NAMESPACE, namespace("b", row="1"))
            await bench.turned()
            assert bench.target.rows == {"b": "1"}

    asyncio.run(story())


def test_the_checkpoint_adds_and_a_real_list_then_removes() -> None:
    async def story() -> None:
        async with running(listed=False) as bench:
            bench.target.rows = {"a": "kernel"}
            cached = namespace("a", row="cached"), namespace("b", row="cached")
            bench.list(Kind.NAMESPACE, *cached, cached=True)
            bench.list(Kind.POD, cached=True)
            await bench.turned()
            assert bench.applier.stage is Stage.CACHED
            assert bench.target.rows == {"a": "kernel", "b": "cached"}
            bench.list(Kind.NAMESPACE, namespace("a", row="listed"))
            bench.list(Kind.POD)
            await bench.turned()
            assert bench.target.rows == {"a": "listed"}

    asyncio.run(story())


def test_a_waiter_is_woken_by_the_turn_that_makes_its_wish_true() -> None:
    async def story() -> None:
        async with running() as bench:
            waiting = asyncio.create_task(
                bench.loop.wait_until(lambda: bench.loop.world.namespace("a") is not None, 10)
            )
            bench.loop.post(moved("a"))
            assert await waiting

    asyncio.run(story())


def test_a_waiter_gives_up_in_time() -> None:
    async def story() -> None:
        async with running() as bench:
            assert not await bench.loop.wait_until(lambda: False, 0.01)

    asyncio.run(story())


def test_an_unfinished_row_is_named_until_a_retry_brings_it_in() -> None:
    async def story() -> None:
        async with running() as bench:
            bench.target.refused = {"a"}
            owners = await bench.loop.submit(moved("a", row="1"))
            assert bench.loop.unfinished(owners) == ("peers: no room",)
            bench.target.refused = set()
            assert await bench.loop.wait_until(lambda: not bench.loop.unfinished(owners), 10)
            assert bench.target.rows == {"a": "1"}

    asyncio.run(story())


def test_what_another_hand_took_is_missing_and_back_with_the_next_turn() -> None:
    async def story() -> None:
        async with running() as bench:
            owners = await bench.loop.submit(moved("a", row="1"))
            assert await bench.loop.missing(owners) == ()
            del bench.target.rows["a"]
            assert await bench.loop.missing(owners) == ("peers: not as planned at a",)
            await bench.turned()
            assert await bench.loop.missing(owners) == ()
            assert await bench.loop.missing([("test", "b")]) == ("test: no row",)

    asyncio.run(story())


def test_a_planner_that_raises_keeps_its_rows_and_hurts_no_other() -> None:
    async def story() -> None:
        async with running() as bench:
            bench.loop.post(moved("a", row="1"))
            await bench.turned()
            bench.loop.post(moved("a", **{"raise": "yes"}))
            bench.loop.post(moved("b", row="1"))
            await bench.turned()
            assert bench.target.rows == {"a": "1", "b": "1"}
            assert bench.planning.failed == {("test", Ref("", "a"))}

    asyncio.run(story())


def test_a_suspected_table_is_compared_at_once() -> None:
    async def story() -> None:
        async with running() as bench:
            await bench.loop.submit(moved("a", row="1"))
            bench.target.rows = {"foreign": "1"}
            bench.loop.suspect(TABLE)
            await bench.turned()
            assert bench.target.rows == {"a": "1"}

    asyncio.run(story())


def test_a_broken_object_is_reported_and_its_last_record_stays() -> None:
    async def story() -> None:
        async with running() as bench:
            bench.loop.post(moved("a", row="1"))
            bench.loop.post(Refused(Broken(Kind.NAMESPACE, Ref("", "a"), "no name")))
            await bench.turned()
            assert View(bench.loop, {}).broken == {(Kind.NAMESPACE, Ref("", "a")): "no name"}
            assert bench.target.rows == {"a": "1"}
            broken = Broken(Kind.NAMESPACE, Ref("", "a"), "still")
            bench.loop.post(Listed(Kind.NAMESPACE, {}, (broken,)))
            await bench.turned()
            assert bench.target.rows == {"a": "1"}
            bench.loop.post(Moved(Kind.NAMESPACE, Ref("", "a"), None))
            await bench.turned()
            assert View(bench.loop, {}).broken == {}

    asyncio.run(story())


def test_observers_hear_of_each_turn_with_its_changes() -> None:
    async def story() -> None:
        async with running() as bench:
            turns: list[Turn] = []
            View(bench.loop, {}).watch_turns(turns.append)
            bench.loop.post(moved("a", row="1"))
            await bench.turned()
            assert [c.key for turn in turns for c in turn.changes] == [Ref("", "a")]
            assert all(t.queued_s <= t.started_s <= t.ended_s for t in turns)

    asyncio.run(story())


def test_what_was_planned_before_the_listing_and_vanished_with_it_leaves_no_row() -> None:
    async def story() -> None:
        async with running(listed=False) as bench:
            bench.target.rows = {"old": "1"}
            await bench.loop.submit(moved("gone", row="1"))
            await bench.loop.submit(moved("stays", row="1"))
            bench.list(Kind.NAMESPACE, namespace("stays", row="2"), namespace("new", row="1"))
            bench.list(Kind.POD)
            await bench.turned()
            assert bench.target.rows == {"stays": "2", "new": "1"}

    asyncio.run(story())
