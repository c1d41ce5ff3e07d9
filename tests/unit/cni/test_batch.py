"""Slow calls are shared by those who wait for them."""

import asyncio
import threading
from collections.abc import Sequence

import pytest

from weft.cni.batch import Batch


def test_what_arrives_during_a_call_goes_together_into_the_next() -> None:
    calls: list[list[int]] = []
    first_runs, go_on = threading.Event(), threading.Event()

    def work(items: Sequence[int]) -> None:
        calls.append(list(items))
        first_runs.set()
        go_on.wait(5)

    async def inside() -> None:
        batch = Batch(work)
        first = asyncio.create_task(batch.put(0))
        await asyncio.to_thread(first_runs.wait, 5)
        others = [asyncio.create_task(batch.put(i)) for i in range(1, 6)]
        await asyncio.sleep(0)
        go_on.set()
        await asyncio.gather(first, *others)

    asyncio.run(inside())
    assert calls == [[0], [1, 2, 3, 4, 5]]


def test_a_failure_reaches_everyone_in_its_batch_and_nobody_after() -> None:
    def work(items: Sequence[int]) -> None:
        if 1 in items:
            raise OSError("no")

    async def inside() -> None:
        batch = Batch(work)
        with pytest.raises(OSError, match="no"):
            await batch.put(1)
        await batch.put(2)

    asyncio.run(inside())


def test_an_item_whose_waiter_left_is_worked_on_all_the_same() -> None:
    done: list[int] = []
    go_on = threading.Event()

    def work(items: Sequence[int]) -> None:
        go_on.wait(5)
        done.extend(items)

    async def inside() -> None:
        batch = Batch(work)
        left = asyncio.create_task(batch.put(1))
        await asyncio.sleep(0)
        left.cancel()
        stays = asyncio.create_task(batch.put(2))
        go_on.set()
        await stays

    asyncio.run(inside())
    assert done == [1, 2]
