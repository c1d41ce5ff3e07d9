"""How a delta reaches the kernel: gated, in order, with a status per row, and drift repaired."""

from collections.abc import Collection, Hashable, Iterator, Mapping

from weft.proxy.apply.applier import Applier
from weft.proxy.apply.desired import Desired, RowKey
from weft.proxy.apply.gate import Stage
from weft.proxy.apply.ledger import State
from weft.proxy.apply.target import NotMended
from weft.proxy.plan.rows import Row


class MemoryTarget:
    """A table in memory that refuses the keys in `refused` and writes down what was asked."""

    def __init__(self, name: str, journal: list[str]) -> None:
        self.rows: dict[Hashable, object] = {}
        self.refused: dict[Hashable, str] = {}
        self.broken = ""
        self.unreadable = ""
        self._name = name
        self._journal = journal

    def dump(self) -> Iterator[tuple[Hashable, object]]:
        if self.unreadable:
            raise OSError(self.unreadable)
        return iter(list(self.rows.items()))

    def write(
        self, upserts: Mapping[Hashable, object], deletes: Collection[Hashable]
    ) -> Mapping[Hashable, str]:
        if self.broken:
            raise OSError(self.broken)
        self._journal += [f"{self._name} +{key!r}" for key in upserts]
        self._journal += [f"{self._name} -{key!r}" for key in deletes]
        self.rows.update({k: v for k, v in upserts.items() if k not in self.refused})
        for key in deletes:
            self.rows.pop(key, None)
        return {key: why for key, why in self.refused.items() if key in upserts}


class Bench:
    """An Applier over memory targets and a clock that the test moves."""

    def __init__(self, *tables: str) -> None:
        self.now_s = 100.0
        self.journal: list[str] = []
        self.targets = {table: MemoryTarget(table, self.journal) for table in tables}
        self.desired = Desired()
        self.applier = Applier(self.targets, self.desired, lambda: self.now_s)

    def want(self, *rows: tuple[str, str, str], owner: str = "o") -> None:
        self.desired.replace(("test", owner), [Row(*row) for row in rows])
        self.applier.apply(self.desired.take_delta())

    def status(self, table: str, key: str) -> State:
        return self.applier.ledger.status(RowKey(table, key)).state


def listed(*tables: str) -> Bench:
    bench = Bench(*tables)
    bench.applier.advance(Stage.LISTED)
    return bench


def test_backends_and_slots_go_up_before_the_frontend_and_down_after_it() -> None:
    bench = listed("frontends", "slots", "backends")
    bench.want(("frontends", "f", "1"), ("slots", "s", "1"), ("backends", "b", "1"))
    bench.want()
    assert bench.journal == [
        "backends +'b'", "slots +'s'", "frontends +'f'",
        "frontends -'f'", "slots -'s'", "backends -'b'",
    ]  # fmt: skip


def test_a_start_adopts_what_is_right_and_writes_the_difference_only() -> None:
    bench = Bench("peers")
    bench.targets["peers"].rows = {"same": "1", "other": "0", "stale": "1"}
    bench.want(("peers", "same", "1"), ("peers", "other", "1"), ("peers", "new", "1"))
    bench.applier.advance(Stage.LISTED)
    assert sorted(bench.journal) == ["peers +'new'", "peers +'other'", "peers -'stale'"]
    assert bench.targets["peers"].rows == {"same": "1", "other": "1", "new": "1"}


def test_nothing_of_services_is_written_or_deleted_before_every_source_has_listed() -> None:
    bench = Bench("frontends")
    bench.targets["frontends"].rows = {"old": "1"}
    bench.want(("frontends", "new", "1"))
    assert bench.journal == []
    assert bench.status("frontends", "new") is State.PENDING


def test_a_new_workload_is_written_before_every_source_has_listed() -> None:
    bench = Bench("workloads")
    bench.targets["workloads"].rows = {"running": "open"}
    bench.want(("workloads", "running", "closed"), ("workloads", "fresh", "closed"))
    assert bench.targets["workloads"].rows == {"running": "open", "fresh": "closed"}
    assert bench.status("workloads", "running") is State.PENDING
    assert bench.status("workloads", "fresh") is State.DONE


def test_a_workload_of_this_run_may_change_and_go_before_every_source_has_listed() -> None:
    bench = Bench("workloads")
    bench.want(("workloads", "fresh", "closed"))
    bench.want(("workloads", "fresh", "open"))
    assert bench.targets["workloads"].rows == {"fresh": "open"}
    bench.want()
    assert bench.targets["workloads"].rows == {}


def test_the_checkpoint_adds_what_the_kernel_lacks_and_changes_nothing() -> None:
    bench = Bench("frontends")
    bench.targets["frontends"].rows = {"a": "kernel", "gone": "1"}
    bench.want(("frontends", "a", "cached"), ("frontends", "b", "cached"))
    bench.applier.advance(Stage.CACHED)
    assert bench.targets["frontends"].rows == {"a": "kernel", "gone": "1", "b": "cached"}
    bench.applier.advance(Stage.LISTED)
    assert bench.targets["frontends"].rows == {"a": "cached", "b": "cached"}
    assert bench.status("frontends", "a") is State.DONE


def test_a_refused_row_is_an_error_with_its_reason_and_the_others_go_on() -> None:
    bench = listed("slots")
    bench.targets["slots"].refused = {"b": "table slots is full: 1 entries"}
    bench.want(("slots", "a", "1"), ("slots", "b", "1"))
    status = bench.applier.ledger.status(RowKey("slots", "b"))
    assert (status.state, status.reason) == (State.ERROR, "table slots is full: 1 entries")
    assert status.since_s == 100.0
    assert bench.status("slots", "a") is State.DONE
    assert bench.applier.ledger.errors() == {"slots": 1}


def test_a_refused_row_is_tried_again_with_growing_pauses_until_it_goes_in() -> None:
    bench = listed("slots")
    bench.targets["slots"].refused = {"b": "full"}
    bench.want(("slots", "b", "1"))
    pauses = []
    for _ in range(3):
        due_s = bench.applier.next_retry_s()
        pauses.append(round(due_s - bench.now_s, 3))
        bench.now_s = due_s
        bench.applier.retry()
    assert pauses == [0.1, 0.2, 0.4]
    bench.targets["slots"].refused = {}
    bench.now_s = bench.applier.next_retry_s()
    bench.applier.retry()
    assert bench.targets["slots"].rows == {"b": "1"}
    assert bench.applier.next_retry_s() == float("inf")


def test_a_table_that_fails_as_a_whole_fails_each_of_its_rows_and_no_other_table() -> None:
    bench = listed("links", "routes")
    bench.targets["links"].broken = "Operation not permitted"
    bench.want(("links", "weft.vx", "1"), ("routes", "r", "1"))
    assert bench.status("links", "weft.vx") is State.ERROR
    assert bench.targets["routes"].rows == {"r": "1"}


def test_a_row_refused_and_then_no_longer_wanted_is_deleted_and_forgotten() -> None:
    bench = listed("slots")
    bench.targets["slots"].refused = {"b": "full"}
    bench.want(("slots", "b", "1"))
    bench.want()
    assert bench.applier.ledger.unfinished() == {}


def test_a_comparison_repairs_rows_that_another_hand_lost_changed_or_added_and_counts() -> None:
    bench = listed("peers")
    bench.want(("peers", "a", "1"), ("peers", "b", "1"))
    bench.targets["peers"].rows = {"a": "0", "c": "1"}
    assert bench.applier.compare("peers") == 3
    assert bench.targets["peers"].rows == {"a": "1", "b": "1"}
    assert bench.applier.counts.repaired["peers"] == 3
    assert bench.applier.compare("peers") == 0


def test_a_table_that_cannot_be_read_gets_its_rows_and_loses_none() -> None:
    bench = Bench("routes")
    bench.targets["routes"].rows = {"unknown": "1"}
    bench.targets["routes"].unreadable = "Interrupted"
    bench.want(("routes", "a", "1"))
    assert bench.status("routes", "a") is State.PENDING
    bench.applier.advance(Stage.LISTED)
    assert bench.targets["routes"].rows == {"unknown": "1", "a": "1"}


def test_what_has_no_rows_is_mended_and_counted_like_drift() -> None:
    bench = listed("routes")
    bench.applier.repairs["pod routes"] = lambda: 2
    assert bench.applier.compare("pod routes") == 2
    assert bench.applier.counts.repaired["pod routes"] == 2


def test_a_repair_that_the_kernel_refuses_is_said_and_stops_nothing() -> None:
    def refused() -> int:
        raise OSError("Operation not permitted")

    bench = listed("routes")
    bench.applier.repairs["pod routes"] = refused
    assert bench.applier.compare("pod routes") == 0


def test_a_repair_that_failed_is_known_with_its_reason_until_it_succeeds() -> None:
    bench, what = listed("routes"), [NotMended("chain f drops: let it accept", 1)]

    def mend() -> int:
        if what:
            raise what[0]
        return 0

    bench.applier.repairs["forward"] = mend
    assert bench.applier.compare("forward") == 1
    assert bench.applier.unmended == {"forward": "chain f drops: let it accept"}
    what.clear()
    assert bench.applier.compare("forward") == 0
    assert bench.applier.unmended == {}


def test_while_the_checkpoint_stands_in_a_comparison_puts_back_and_takes_nothing_away() -> None:
    bench = Bench("routes")
    bench.want(("routes", "a", "1"), ("routes", "b", "1"))
    assert bench.applier.compare("routes") == 0
    bench.applier.advance(Stage.CACHED)
    bench.targets["routes"].rows = {"b": "0", "foreign": "1"}
    bench.applier.compare("routes")
    assert bench.targets["routes"].rows == {"a": "1", "b": "1", "foreign": "1"}
