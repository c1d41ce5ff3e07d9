"""While a turn's rows are being written, every answer is the old one or the new one."""

from collections.abc import Hashable, Iterator
from random import Random

from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.unit.policy.clusters import (
    NODE_IPS,
    OTHER_IPS,
    POD_IPS,
    PORTS,
    Dice,
    Move,
    empty_world,
    step,
    world_of,
)
from tests.unit.policy.lookup import NAMES, Rows, set_allows
from weft.bpf.layout import TABLES, Workload, pack_address
from weft.bpf.table import FakeTable
from weft.proxy.apply.bridge import Bridge
from weft.proxy.apply.desired import Delta, Desired
from weft.proxy.apply.order import steps
from weft.proxy.model.objects import (
    Address,
    Kind,
    Namespace,
    NetworkPolicy,
    Peer,
    Pod,
    Ref,
    Rule,
    Selector,
)
from weft.proxy.model.objects import Workload as Link
from weft.proxy.model.world import World
from weft.proxy.plan import policy, workloads
from weft.proxy.plan.policy_world import forget

PLANNERS = (*policy.PLANNERS, workloads.PLANNER)
PEERS = (*POD_IPS, *OTHER_IPS, *NODE_IPS)
Question = tuple[str, int, int, int]
"""Direction, index of a peer, protocol, port."""


class Node:
    """A World, and tables that hold its rows; `turn` yields after every single row written."""

    def __init__(self, world: World) -> None:
        forget()
        self.tables = {name: FakeTable(TABLES[name]) for name in (*NAMES, "workloads")}
        self.world, self._desired = empty_world(), Desired()
        self._bridge = Bridge(self.world, self._desired)
        for kind, table in world.tables.items():
            for key, record in table.items():
                for _ in self.turn((kind, key, record)):
                    pass

    def turn(self, move: Move) -> Iterator[None]:
        change, after = step(self.world, move)
        named = {(p, key) for p in PLANNERS for key in p.keys(change, self.world, after)}
        self.world = after
        for planner, key in named:
            self._desired.replace((planner.name, key), planner.rows(after, key))
        for delta in self._bridge.parts(self._desired.take_delta(), after):
            yield from self._write(delta)

    def _write(self, delta: Delta) -> Iterator[None]:
        for table, up in steps(delta):
            rows: list[Hashable] = list(delta.upserts[table] if up else delta.deletes[table])
            for key in rows:
                assert isinstance(key, bytes)
                value = delta.upserts[table][key] if up else b""
                assert isinstance(value, bytes)
                if up:
                    self.tables[table].update({key: value})
                else:
                    self.tables[table].delete([key])
                yield

    def rows(self) -> Rows:
        return {(name, k): v for name, table in self.tables.items() for k, v in table.items()}

    def answers(self, link: Link, questions: list[Question]) -> list[bool | None]:
        """By the row that the link has at this moment; None: it has none."""
        row = self.tables["workloads"].lookup(pack_address(link.addresses[0]))
        if row is None:
            return [None] * len(questions)
        held = Workload.unpack(row)
        sets = {"ingress": held.ingress_set, "egress": held.egress_set}
        return [
            set_allows(self.tables, sets[direction], PEERS[peer], protocol, port)
            for direction, peer, protocol, port in questions
        ]


def own_addresses(world: World, link: Link) -> set[Address]:
    pod = world.pod(link.ref)
    return {*link.addresses, *(pod.addresses if pod else ())}


def check_turn(node: Node, move: Move, questions: list[Question]) -> None:
    """Every answer on the way is the start's or the end's, while the link is there.

    Not asked: a pod about itself. Its labels make its class and its set move in one turn, and no
    packet from a pod to its own address meets a rule set (S19).
    """
    links = [link for link in node.world.workloads() if link.addresses]
    own = [own_addresses(node.world, link) for link in links]
    old = [node.answers(link, questions) for link in links]
    on_the_way = [[node.answers(link, questions) for link in links] for _ in node.turn(move)]
    new = [node.answers(link, questions) for link in links]
    for link, addresses in zip(links, own, strict=True):
        addresses |= own_addresses(node.world, link)
    for seen in on_the_way:
        for itself, start, now, end in zip(own, old, seen, new, strict=True):
            for said, question in zip(zip(start, now, end, strict=True), questions, strict=True):
                if PEERS[question[1]] not in itself:
                    assert None in said or said[1] in (said[0], said[2]), question


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 1 << 32))
@example(304780)  # a set that retires while all its atoms stay in force
def test_no_write_of_a_turn_gives_an_answer_that_neither_end_gives(seed: int) -> None:
    dice, world = Dice(Random(seed)), empty_world()
    for _ in range(40):
        world = step(world, dice.move())[1]
    node = Node(world)
    for _ in range(6):
        questions = [
            (dice.one(("ingress", "egress")), dice.random.randrange(len(PEERS)), 6, dice.one(PORTS))
            for _ in range(6)
        ]
        check_turn(node, dice.move(), questions)


def test_a_peer_that_two_versions_of_a_policy_allow_is_never_refused_between_them() -> None:
    """The old selector is gone from the classes of the new World, and must not be missed."""
    ref = Ref("a", "p")
    peers = (
        Peer(pods=Selector((("app", "x"),))),
        Peer(namespaces=Selector((("team", "red"),))),
    )
    versions = [NetworkPolicy(ref, Selector(), True, False, (Rule((p,)),), ()) for p in peers]
    ip, other = POD_IPS[0], POD_IPS[3]
    node = Node(
        world_of(
            Namespace(Ref("", "a"), {"team": "red"}),
            Pod(Ref("a", "w1"), "u", "n1", {}, (ip,), False, False),
            Pod(Ref("a", "w2"), "u", "n2", {"app": "x"}, (other,), False, False),
            Link("l1", Ref("a", "w1"), "u", (ip,), 1, bytes(6), bytes(6)),
            versions[0],
        )
    )
    question = ("ingress", PEERS.index(other), 6, 80)
    link = next(iter(node.world.workloads()))
    assert node.answers(link, [question]) == [True]
    for version in (versions[1], versions[0]):
        for _ in node.turn((Kind.POLICY, ref, version)):
            assert node.answers(link, [question]) == [True]


def test_after_the_turn_the_tables_hold_the_plan_and_nothing_of_the_interim() -> None:
    dice, world = Dice(Random(7)), empty_world()
    for _ in range(40):
        world = step(world, dice.move())[1]
    node = Node(world)
    for _ in range(60):
        for _ in node.turn(dice.move()):
            pass
    planned = {
        (row.table, row.key): row.value
        for planner in PLANNERS
        for key in planner.all_keys(node.world)
        for row in planner.rows(node.world, key)
    }
    assert node.rows() == planned


def test_a_change_that_replaces_no_set_needs_no_interim_rows() -> None:
    dice, world = Dice(Random(3)), empty_world()
    for _ in range(60):
        change, after = step(world, dice.move())
        before = policy.state(world)
        list(policy.workload_keys(change, world, after))
        interim = policy.transition(before, after)
        old = {one.id for judged in before.judged.values() for one in judged.sets()}
        if old <= policy.state(after).universe.sets.keys():
            assert interim == ()
        world = after
