"""Read this first: events -> World -> plan -> delta -> apply -> status, one turn after the other.

Owns the order of turns. Never reads a source and never touches the kernel itself: sources post
events, the applier writes. Turns run on one worker thread, so that the event loop answers CNI, gRPC
and probes meanwhile; nothing but a turn alters World, plan and statuses.
"""

import asyncio
import contextlib
import math
import time
from collections import Counter, deque
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

from weft.bpf.table import Table
from weft.proxy.apply.applier import Applier, Counts
from weft.proxy.apply.bridge import Bridge
from weft.proxy.apply.desired import Desired, Owner, RowKey
from weft.proxy.apply.gate import Stage
from weft.proxy.apply.ledger import State, Status, key_text
from weft.proxy.apply.order import in_order
from weft.proxy.apply.patrol import Patrol
from weft.proxy.intake import Intake
from weft.proxy.model.objects import Kind
from weft.proxy.model.world import Change, Key, World
from weft.proxy.planning import Difference, Planning
from weft.proxy.watch.events import Event, kind_of

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Turn:
    """What one turn did, for those who count. Times on the monotonic clock.

    queued_s: when its oldest event was posted; equals started_s when it had none.
    """

    changes: tuple[Change, ...]
    stage: Stage
    queued_s: float
    started_s: float
    ended_s: float


@dataclass(slots=True)
class _Posted:
    event: Event
    at_s: float
    owners: "asyncio.Future[frozenset[Owner]] | None" = None


@dataclass(slots=True, eq=False)
class _Waiter:
    """Someone who waits until `ready` holds between two turns."""

    ready: Callable[[], bool]
    done: "asyncio.Future[None]"


class Loop:
    """The daemon's one loop. `run` it; `post` to it from any thread."""

    def __init__(
        self,
        intake: Intake,
        planning: Planning,
        desired: Desired,
        applier: Applier,
        patrol: Patrol,
    ) -> None:
        self.observers: list[Callable[[Turn], None]] = []
        self.intake = intake
        self.planning = planning
        self.desired = desired
        self.applier = applier
        self._patrol = patrol
        self._bridge = Bridge(intake.world, desired)
        self._queue: deque[_Posted] = deque()
        self._taken: list[_Posted] = []
        self._waiters: list[_Waiter] = []
        self._urgent: set[Owner] = set()
        self._suspects: set[str] = set()
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="turn")
        self._wake = asyncio.Event()
        self._asyncio: asyncio.AbstractEventLoop | None = None

    @property
    def world(self) -> World:
        return self.intake.world

    @property
    def queued_since_s(self) -> float | None:
        """When the oldest event that no turn has brought to its end was posted; None: none."""
        if self._taken:
            return self._taken[0].at_s
        with contextlib.suppress(IndexError):
            return self._queue[0].at_s
        return None

    def queued(self) -> "Counter[Kind]":
        """Events that no turn has brought to its end, by kind."""
        return Counter(kind_of(posted.event) for posted in (*self._taken, *tuple(self._queue)))

    # --- for sources and for those who wait ---
    def post(self, event: Event) -> None:
        """Queue an event; from any thread, also before `run`."""
        self._queue.append(_Posted(event, time.monotonic()))
        if self._asyncio is not None:
            self._asyncio.call_soon_threadsafe(self._wake.set)

    async def submit(self, event: Event) -> frozenset[Owner]:
        """Post an event and return after its turn: the planner keys that it touched.

        They are planned at once, also before every source has listed.
        """
        future: asyncio.Future[frozenset[Owner]] = asyncio.get_running_loop().create_future()
        self._queue.append(_Posted(event, time.monotonic(), future))
        self._wake.set()
        return await future

    async def wait_until(self, ready: Callable[[], bool], timeout_s: float) -> bool:
        """Whether `ready` held between two turns in time. It may read World and statuses."""
        waiter = _Waiter(ready, asyncio.get_running_loop().create_future())
        self._waiters.append(waiter)
        self._wake.set()
        try:
            async with asyncio.timeout(timeout_s if math.isfinite(timeout_s) else None):
                await waiter.done
        except TimeoutError:
            return False
        finally:
            self._waiters.remove(waiter)
        return True

    def unfinished(self, owners: Iterable[Owner]) -> tuple[str, ...]:
        """The rows of `owners` that are not in the kernel, with the reason, for people."""
        ledger = self.applier.ledger
        places = (place for owner in owners for place in self.desired.places(owner))
        statuses = ((place.table, ledger.status(place)) for place in places)
        return tuple(f"{t}: {s.reason}" for t, s in statuses if s.state is not State.DONE)

    async def missing(self, owners: Iterable[Owner]) -> tuple[str, ...]:
        """The rows of `owners` that the kernel has not, for people; the next turn brings them. An
        owner without rows wants some in vain. Raises OSError.
        """

        def read() -> Iterator[str]:
            for owner in owners:
                places = self.desired.places(owner)
                present = {place.table: self.applier.dump(place.table) for place in places}
                if not places:
                    yield f"{owner[0]}: no row"
                for place in places:
                    if present[place.table].get(place.key) != self.desired.value(place):
                        self.suspect(place.table)
                        yield f"{place.table}: not as planned at {key_text(place.key)}"

        return await self.between_turns(lambda: tuple(read()))

    async def between_turns(self, ask: Callable[[], T]) -> T:
        """Run `ask` on the worker, where nothing moves meanwhile."""
        return await asyncio.get_running_loop().run_in_executor(self._worker, ask)

    def suspect(self, table: str) -> None:
        """Another hand may have touched `table`: compare it at the next turn. From any thread."""
        self._suspects.add(table)
        if self._asyncio is not None:
            self._asyncio.call_soon_threadsafe(self._wake.set)

    # --- the loop ---
    async def run(self) -> None:
        """Turn after turn until cancelled. A turn that raises is a bug and ends the daemon."""
        self._asyncio = asyncio.get_running_loop()
        self._wake.set()
        try:
            while True:
                await self._sleep()
                await self._next_turn()
        finally:
            self._asyncio = None
            self._worker.shutdown(cancel_futures=True)

    async def _sleep(self) -> None:
        """Until there is an event, a waiter, a retry or a comparison."""
        due_s = min(self.applier.next_retry_s(), self._patrol.next_s)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(0.0, due_s - time.monotonic())):
                await self._wake.wait()
        self._wake.clear()

    async def _next_turn(self) -> None:
        posted = [self._queue.popleft() for _ in range(len(self._queue))]
        answers: dict[int, frozenset[Owner]] = {}
        self._taken = posted
        turn = await self.between_turns(lambda: self._turn(posted, answers))
        self._taken = []
        for number, owners in answers.items():
            future = posted[number].owners
            if future is not None and not future.done():
                future.set_result(owners)
        for observer in self.observers:
            observer(turn)
        for waiter in self._waiters:
            if not waiter.done.done() and waiter.ready():
                waiter.done.set_result(None)

    def _turn(self, posted: Sequence[_Posted], answers: dict[int, frozenset[Owner]]) -> Turn:
        started_s = time.monotonic()
        changes: list[Change] = []
        for number, item in enumerate(posted):
            touched: set[Owner] = set()
            for step in self.intake.take(item.event):
                changes.append(step.change)
                if self._follows_changes or item.owners is not None:
                    self.planning.touch(step)
                if item.owners is not None:
                    touched.update(self.planning.touched_by(step))
            if item.owners is not None:
                answers[number] = frozenset(touched)
                self._urgent |= touched
        self._write()
        queued_s = posted[0].at_s if posted else started_s
        return Turn(tuple(changes), self.intake.stage, queued_s, started_s, time.monotonic())

    @property
    def _follows_changes(self) -> bool:
        """A first listing is planned whole: what each of its objects touches need not be asked."""
        return self.applier.stage is not Stage.STARTING or bool(self._urgent)

    def _write(self) -> None:
        stage = self.intake.stage
        if stage is not Stage.STARTING and self.applier.stage is Stage.STARTING:
            self.planning.touch_all(self.world)
        if stage is Stage.STARTING:
            self.planning.plan_only(self.world, self._urgent)
        else:
            self._urgent.clear()
            self.planning.plan(self.world)
        delta = self.desired.take_delta()
        parts = self._bridge.parts(delta, self.world)
        if stage is not Stage.LISTED:
            parts = (delta,)
        elif stage is not self.applier.stage:
            parts = ()
        if stage is not self.applier.stage:
            self.applier.advance(stage)
        for part in parts:
            self.applier.apply(part)
        self.applier.retry()
        suspects = set()
        while self._suspects:
            suspects.add(self._suspects.pop())
        for table in in_order(suspects):
            self.applier.compare(table)
        self._patrol.step()


@dataclass(frozen=True, slots=True)
class RowView:
    """One desired row and how far it has come."""

    key: Hashable
    value: object
    status: Status


class View:
    """All that readers (observe) may see of the loop. Nothing here alters anything.

    What walks rows is awaited: it runs between two turns. The rest answers at once.
    """

    def __init__(self, loop: Loop, tables: Mapping[str, Table]) -> None:
        self.tables = tables
        """The open BPF tables by name, for counters, flows and look-ups."""
        self._loop = loop

    @property
    def world(self) -> World:
        return self._loop.world

    @property
    def stage(self) -> Stage:
        """LISTED: every source has listed and the kernel was brought in line."""
        return self._loop.applier.stage

    @property
    def waits_for(self) -> tuple[Kind, ...]:
        """The kinds of object that no source has listed yet."""
        return self._loop.intake.waits_for()

    @property
    def queued_since_s(self) -> float | None:
        """When the oldest event that is not through a turn was posted (monotonic); None: none."""
        return self._loop.queued_since_s

    def queued(self) -> Mapping[Kind, int]:
        """Events that are not through a turn, by kind."""
        return self._loop.queued()

    @property
    def counts(self) -> Counts:
        return self._loop.applier.counts

    @property
    def broken(self) -> Mapping[tuple[Kind, Key], str]:
        """Objects that could not be understood, with the reason."""
        return dict(self._loop.intake.broken)

    @property
    def unmended(self) -> Mapping[str, str]:
        """What another hand altered and could not be put back, with the reason."""
        return dict(self._loop.applier.unmended)

    @property
    def node_deleted(self) -> bool:
        """The own Node object is gone; the World keeps what it said last."""
        return self._loop.intake.node_deleted

    @property
    def failed(self) -> tuple[Owner, ...]:
        """Planner keys that could not be planned: their rows are those of an earlier World."""
        return tuple(self._loop.planning.failed)

    def watch_turns(self, observer: Callable[[Turn], None]) -> None:
        """Call `observer` after every turn."""
        self._loop.observers.append(observer)

    def row_count(self, table: str) -> int:
        """Desired rows of a table."""
        return self._loop.desired.count(table)

    def errors(self) -> Mapping[str, int]:
        """Rows in error by table."""
        return self._loop.applier.ledger.errors()

    def status(self, table: str, key: Hashable) -> Status:
        return self._loop.applier.ledger.status(RowKey(table, key))

    async def unfinished(self) -> Mapping[RowKey, Status]:
        """Every row that is not done."""
        return await self._loop.between_turns(self._loop.applier.ledger.unfinished)

    async def rows(self, table: str) -> tuple[RowView, ...]:
        """A table's desired rows with their statuses."""

        def read() -> tuple[RowView, ...]:
            status = self._loop.applier.ledger.status
            rows = self._loop.desired.rows(table)
            return tuple(RowView(k, v, status(RowKey(table, k))) for k, v in rows.items())

        return await self._loop.between_turns(read)

    async def dump(self, table: str) -> dict[Hashable, object]:
        """A table's rows as the kernel has them; for `links`, `routes` and `hooks` too."""
        return await self._loop.between_turns(lambda: self._loop.applier.dump(table))

    async def conflicts(self) -> Mapping[RowKey, tuple[Owner, ...]]:
        """Rows for which planner keys want different values."""
        return await self._loop.between_turns(self._loop.desired.conflicts)

    async def audit(self) -> tuple[Difference, ...]:
        """The central law, checked now: the kernel's rows against a full plan made afresh."""

        def read() -> tuple[Difference, ...]:
            return self._loop.planning.audit(self.world, self._loop.applier.dumps())

        return await self._loop.between_turns(read)
