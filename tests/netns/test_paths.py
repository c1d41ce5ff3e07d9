"""Every cell of the table of paths, walked over TCP and UDP in every mode and family: who answers,
whom it saw, what both nodes' programs counted, and who drops it where policy denies.
"""

from collections.abc import Callable, Iterator, Mapping, Set
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial

import pytest

from deploy.netlab import Lab
from deploy.netlab.shell import wait_for
from tests.netns.ask import Answer, error_of
from tests.netns.path_stage import NOBODY, VIP_PORT, Denied, Kind, Stage, staged
from tests.netns.paths import Cell, Judge, Protocol, Reach, Rule, Side
from weft.proxy.api import weft_pb2 as pb

BY_MODE = {
    "vxlan": Reach.TUNNEL, "auto": Reach.DIRECT, "direct": Reach.DIRECT, "bridge": Reach.TUNNEL,
}  # fmt: skip
FAMILIES = {"dual": (4, 6), "ipv4-only": (4,), "ipv6-only": (6,)}
KINDS = (
    *(Kind(f"{mode}-{name}", mode, reach, families, overlay=mode != "direct")
      for name, families in FAMILIES.items() for mode, reach in BY_MODE.items()),
    Kind("auto-far", "auto", Reach.TUNNEL, far=True),
    Kind("bridge-flat", "bridge", Reach.DIRECT, overlay=False),
    Kind("bridge-routed", "bridge", Reach.ROUTED, far=True, overlay=False),
)  # fmt: skip
CORE = ("vxlan-dual", "auto-dual")
# The programs that a flow between pods and nodes meets; uplinks see the lab's other traffic too.
# Neighbours' and routers' discovery counts beside a flow now and then.
WATCHED = ("from_pod", "to_pod", "from_overlay", "to_overlay")


def marked(kind: Kind, *parts: object) -> object:
    """A case in a lab of this kind. Of the minutes that all labs take, `make test` has the core."""
    name = "-".join(map(str, (kind, *(f"ipv{p}" if isinstance(p, int) else p for p in parts))))
    marks = () if kind.name in CORE else (pytest.mark.long,)
    return pytest.param(kind, *parts, id=name, marks=marks)


LABS = [marked(kind, version) for kind in KINDS for version in kind.families]
WALKS = [
    marked(kind, version, cell)
    for kind in KINDS
    for version in kind.families
    for cell in kind.cells()
]


Opened = Callable[[Kind], Stage]


@pytest.fixture(scope="module")
def opened() -> Iterator[Opened]:
    """Every lab that a test asked for, until the last test: what walks in one is not in order."""
    with ExitStack() as stack:
        found: dict[Kind, Stage] = {}

        def open_stage(kind: Kind) -> Stage:
            if kind not in found:
                found[kind] = stack.enter_context(staged(kind))
            return found[kind]

        yield open_stage


@pytest.fixture
def stage(opened: Opened, request: pytest.FixtureRequest) -> Stage:
    return opened(request.param)


@pytest.fixture
def lab(stage: Stage) -> Lab:
    return stage.lab


Step = tuple[str, str, str]
Counts = Mapping[Step, int]


def counted(stage: Stage) -> dict[Step, int]:
    """Packets by (place, program, reason) on both nodes."""
    found: dict[Step, int] = {}
    for place, weft in zip(("here", "there"), stage.daemons, strict=True):
        for one in weft.ListCounters(pb.ListCountersRequest()).items:
            name = (place, one.direction.replace("-", "_"), one.reason.replace("-", "_"))
            found[name] = one.packets
    return found


def grown(before: Counts, after: Counts) -> dict[Step, int]:
    grew = {at: packets - before.get(at, 0) for at, packets in after.items()}
    return {at: packets for at, packets in grew.items() if packets}


def protocols(cell: Cell) -> tuple[Protocol, ...]:
    return (Protocol.TCP, Protocol.UDP) if cell.protocol is Protocol.ANY else (cell.protocol,)


@dataclass(frozen=True, slots=True)
class Walk:
    """Of one cell: questions, and what was counted meanwhile."""

    stage: Stage
    cell: Cell
    version: int
    protocol: Protocol

    @property
    def name(self) -> str:
        return f"{self.cell} over {self.protocol} and IPv{self.version}"

    def ask(self, timeout_s: float = 2) -> Answer | None:
        address, port = self.stage.target(self.cell.target, self.version)
        udp = self.protocol is Protocol.UDP
        return self.stage.askers[self.cell.source].ask(address, port, udp=udp, timeout_s=timeout_s)

    def is_alone(self) -> bool:
        """A walk by its path; false where something was counted beside it."""
        before = counted(self.stage)
        answer = self.ask()
        steps = set(grown(before, counted(self.stage)))
        assert answer == self.stage.answer(self.cell, self.version), steps
        wanted = self.cell.counted()
        assert wanted <= steps
        return of_pods(steps) == of_pods(wanted)

    def is_judged(self, judge: Judge | None) -> bool:
        """Against a policy: dropped once, by the judge; where there is none, as without."""
        before = counted(self.stage)
        if not judge:
            assert self.ask() == self.stage.answer(self.cell, self.version)
            return not drops(before, counted(self.stage))
        assert self.ask(timeout_s=0) is None
        wanted = {(judge.place, judge.program, f"policy_{judge.rule}"): 1}
        wait_for(f"a drop by {judge}", lambda: bool(drops(before, counted(self.stage))))
        return drops(before, counted(self.stage)) == wanted


def of_pods(steps: Set[Step]) -> frozenset[Step]:
    return frozenset(step for step in steps if step[1] in WATCHED)


def drops(before: Counts, after: Counts) -> Counts:
    return {at: n for at, n in grown(before, after).items() if at[2].startswith("policy_")}


@pytest.mark.parametrize(("stage", "version", "cell"), WALKS, indirect=["stage"])
@pytest.mark.usefixtures("lab")
def test_a_flow_takes_its_path_and_its_reply_comes_back(
    stage: Stage, version: int, cell: Cell
) -> None:
    stage.deny(Denied.NOTHING)
    for protocol in protocols(cell):
        one = Walk(stage, cell, version, protocol)
        wait_for("a walk with nothing counted beside it", one.is_alone)


@pytest.mark.parametrize("denied", [Denied.EGRESS, Denied.INGRESS, Denied.STRANGERS])
@pytest.mark.parametrize(("stage", "version"), LABS, indirect=["stage"])
@pytest.mark.usefixtures("lab")
def test_whoever_judges_drops_what_a_policy_denies_and_nobody_else(
    stage: Stage, version: int, denied: Denied
) -> None:
    stage.deny(denied)
    for cell in stage.kind.cells():
        judge = judge_of(cell, denied)
        for protocol in protocols(cell):
            one = Walk(stage, cell, version, protocol)
            wait_for(f"{one.name}, only {judge} drops it", partial(one.is_judged, judge))


def judge_of(cell: Cell, denied: Denied) -> Judge | None:
    """Whom the denial makes drop the cell's first packet."""
    rule = Rule.EGRESS if denied is Denied.EGRESS else Rule.INGRESS
    if denied is Denied.STRANGERS and cell.judged_as:
        return None
    return next((judge for judge in cell.judges if judge.rule is rule), None)


@pytest.mark.parametrize("udp", [False, True], ids=["tcp", "udp"])
@pytest.mark.parametrize("source", [Side.POD, Side.NODE])
@pytest.mark.parametrize(("stage", "version"), LABS, indirect=["stage"])
@pytest.mark.usefixtures("lab")
def test_a_service_with_nothing_behind_it_refuses_at_once(
    stage: Stage, source: Side, version: int, udp: bool
) -> None:
    stage.deny(Denied.NOTHING)
    who = stage.client if source is Side.POD else stage.east
    assert "ConnectionRefusedError" in error_of(who, NOBODY[version], VIP_PORT, udp=udp)
