"""When tables are compared, on clocks that the test moves."""

from functools import partial

from weft.proxy.apply.applier import Applier
from weft.proxy.apply.desired import Desired
from weft.proxy.apply.patrol import OFTEN_S, ROUND_S, SHARE, Patrol


class Walk:
    """A patrol over repairs that cost processor time and write down that they ran."""

    def __init__(self, *tables: str, often: tuple[str, ...] = (), cost_s: float = 0.0) -> None:
        self.now_s, self.spent_s, self.ran, self.drifted = 0.0, 0.0, list[str](), 0
        applier = self.applier = Applier({}, Desired(), lambda: self.now_s)

        def repair(name: str) -> int:
            self.ran.append(name)
            self.spent_s += cost_s
            return self.drifted

        for name in (*tables, *often):
            applier.repairs[name] = partial(repair, name)
        self.patrol = Patrol(applier, tables, often, lambda: self.now_s, lambda: self.spent_s)

    def until(self, end_s: float) -> None:
        while self.now_s < end_s:
            self.now_s = min(end_s, self.patrol.next_s)
            self.patrol.step()


def test_every_table_has_its_turn_once_a_round() -> None:
    walk = Walk("a", "b", "c")
    walk.until(ROUND_S)
    assert walk.ran == ["a", "b", "c"]


def test_what_is_often_altered_is_compared_every_second_and_all_of_it_at_once() -> None:
    walk = Walk("a", often=("x", "y"))
    walk.until(3 * OFTEN_S)
    assert walk.ran == ["x", "y"] * 3


def test_a_repair_that_failed_is_tried_again_every_second() -> None:
    walk = Walk("a", often=("x",))
    walk.until(ROUND_S)
    walk.applier.unmended["a"] = "no such device"
    walk.until(ROUND_S + 2 * OFTEN_S)
    assert walk.ran[-3:] == ["x", "a", "x"]


def test_no_walk_takes_more_of_a_core_than_its_share() -> None:
    walk = Walk("a", often=("x",), cost_s=0.05)
    walk.until(100.0)
    assert walk.ran.count("x") <= 100.0 * SHARE / 0.05 + 1
    assert walk.ran.count("a") == 3


def test_after_a_repair_the_next_look_does_not_wait_for_its_share() -> None:
    walk = Walk("a", often=("x",), cost_s=0.05)
    walk.drifted = 1
    walk.until(3 * OFTEN_S)
    assert walk.ran == ["x", "x", "x"]
