"""The central law for policy: the plan kept change by change is the plan made from nothing."""

from collections.abc import Hashable, Iterable
from ipaddress import IPv4Address, IPv4Network
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.policy.clusters import (
    LOOPBACK,
    OTHER_IPS,
    OWN_NODE,
    POD_IPS,
    PORTS,
    Dice,
    Flow,
    empty_world,
    step,
    world_of,
)
from tests.unit.policy.lookup import Rows, Tables, fake_tables, planned, set_allows
from weft.proxy.model.objects import (
    Address,
    IPBlock,
    Kind,
    NetworkPolicy,
    Node,
    Peer,
    Pod,
    Ref,
    Rule,
    Selector,
)
from weft.proxy.model.objects import Workload as Link
from weft.proxy.model.world import Change, World
from weft.proxy.plan.policy import BLOCKS, PLANNERS, Judgement, judgement, workload_keys
from weft.proxy.plan.policy_prefix import prefix_of
from weft.proxy.plan.policy_world import book_of, forget
from weft.proxy.plan.rows import Row

seeds = st.integers(0, 1 << 32)
Owner = tuple[str, Hashable]
ADDRESSES = (*POD_IPS, *OTHER_IPS)


class Kept:
    """A World and policy's rows of it, of which only what a change names is planned again."""

    def __init__(self) -> None:
        self.world = empty_world()
        self.judgements: dict[str, Judgement] = {}
        self._wanted: dict[Owner, tuple[Row, ...]] = {}

    def turn(self, dice: Dice, moves: int) -> None:
        """Several changes, planned together at their end, as the loop does."""
        stale: set[Owner] = set()
        links: set[str] = set()
        for _ in range(moves):
            change, after = step(self.world, dice.move())
            stale |= set(_named(change, self.world, after))
            links |= set(workload_keys(change, self.world, after))
            self.world = after
        for planner in PLANNERS:
            for name, key in stale:
                if name == planner.name:
                    self._wanted[name, key] = tuple(planner.rows(self.world, key))
        for link in links:
            workload = self.world.workload(link)
            if workload is None:
                self.judgements.pop(link, None)
            else:
                self.judgements[link] = judgement(self.world, workload)

    def rows(self) -> Rows:
        return _packed(row for rows in self._wanted.values() for row in rows)


def _named(change: Change, before: World, after: World) -> Iterable[Owner]:
    for planner in PLANNERS:
        for key in planner.keys(change, before, after):
            yield planner.name, key


def _packed(rows: Iterable[Row]) -> Rows:
    found: Rows = {}
    for table, key, value in rows:
        assert isinstance(key, bytes)
        assert isinstance(value, bytes)
        found[table, key] = value
    return found


def judgements(world: World) -> dict[str, Judgement]:
    return {link.key: judgement(world, link) for link in world.workloads()}


@settings(max_examples=150, deadline=None)
@given(seeds, st.lists(st.integers(1, 12), min_size=1, max_size=14))
def test_rows_and_judgements_kept_by_change_are_those_made_afresh(
    seed: int, turns: list[int]
) -> None:
    forget()
    kept, dice = Kept(), Dice(Random(seed))
    for moves in turns:
        kept.turn(dice, moves)
    rows, said = kept.rows(), kept.judgements
    book = book_of(kept.world)
    forget()
    assert rows == planned(kept.world)
    assert said == judgements(kept.world)
    assert book == book_of(kept.world)


@settings(max_examples=30, deadline=None)
@given(seeds)
def test_the_order_in_which_records_come_leaves_no_trace(seed: int) -> None:
    forget()
    dice = Dice(Random(seed))
    world = empty_world()
    for _ in range(40):
        world = step(world, dice.move())[1]
    everything = [
        (kind, key, rec) for kind, table in world.tables.items() for key, rec in table.items()
    ]
    plans = []
    for _ in range(2):
        dice.random.shuffle(everything)
        other = empty_world()
        for move in everything:
            change, after = step(other, move)
            workload_keys(change, other, after)
            other = after
        plans.append((planned(other), judgements(other)))
    assert plans[0] == plans[1] == (planned(world), judgements(world))


@settings(max_examples=80, deadline=None)
@given(seeds)
def test_a_revision_moves_whenever_the_answer_for_any_peer_does(seed: int) -> None:
    forget()
    dice, world = Dice(Random(seed)), empty_world()
    for _ in range(30):
        world = step(world, dice.move())[1]
    for _ in range(6):
        change, after = step(world, dice.move())
        workload_keys(change, world, after)
        _check_revisions(dice, world, after)
        world = after


def _check_revisions(dice: Dice, before: World, after: World) -> None:
    old, new = judgements(before), judgements(after)
    tables = [(fake_tables(planned(before)), old), (fake_tables(planned(after)), new)]
    for link in old.keys() & new.keys():
        for set_of, revision_of in SIDES:
            for _ in range(4):
                flow = _flow(dice)
                answers = [_allows(rows, getattr(j[link], set_of), flow) for rows, j in tables]
                if answers[0] != answers[1]:
                    assert getattr(old[link], revision_of) != getattr(new[link], revision_of)


SIDES = (("ingress_set", "ingress_revision"), ("egress_set", "egress_revision"))


def _flow(dice: Dice) -> Flow:
    address: Address = dice.one(ADDRESSES)
    return address, address, dice.one((6, 17)), dice.one(PORTS)


def _allows(tables: Tables, set_id: int, flow: Flow) -> bool:
    return set_allows(tables, set_id, flow[0], flow[2], flow[3])


@settings(max_examples=60, deadline=None)
@given(seeds)
def test_a_change_that_names_no_workload_leaves_every_judgement(seed: int) -> None:
    forget()
    dice, world = Dice(Random(seed)), empty_world()
    for _ in range(60):
        change, after = step(world, dice.move())
        named, old, new = (
            set(workload_keys(change, world, after)),
            judgements(world),
            judgements(after),
        )
        moved = {k for k in old.keys() | new.keys() if old.get(k) != new.get(k)}
        assert moved <= named
        world = after


def test_a_node_that_takes_an_address_out_of_a_block_moves_the_revision() -> None:
    """Its gateway address was the block's until it came, and is the node's now."""
    forget()
    ref, ip, block = Ref("a", "w1"), POD_IPS[0], IPBlock(IPv4Network("10.244.0.0/16"))
    rule = Rule((Peer(block=block),))
    before = world_of(
        Pod(ref, "u", OWN_NODE, {}, (ip,), False, False),
        Link("l1", ref, "u", (ip,), LOOPBACK, bytes(6), bytes(6)),
        NetworkPolicy(Ref("a", "p"), Selector(), True, False, (rule,), ()),
    )
    joining = Node(Ref("", "n9"), (IPv4Address("192.0.2.9"),), (IPv4Network("10.244.9.0/24"),))
    change, after = step(before, (Kind.NODE, joining.ref, joining))
    old = judgements(before)["l1"]
    assert "l1" in workload_keys(change, before, after)
    assert judgements(after)["l1"].ingress_revision != old.ingress_revision
    assert judgements(after)["l1"].ingress_set == old.ingress_set


def test_a_pod_cidr_that_comes_around_a_block_changes_the_blocks_row() -> None:
    """Unknown addresses of the block may be pods from then on."""
    forget()
    ref, ip = Ref("a", "w1"), POD_IPS[0]
    peers = (Peer(namespaces=Selector()), Peer(block=IPBlock(IPv4Network("10.244.9.128/25"))))
    rules = tuple(Rule((peer,)) for peer in peers)
    before = world_of(
        Pod(ref, "u", OWN_NODE, {}, (ip,), False, False),
        Link("l1", ref, "u", (ip,), LOOPBACK, bytes(6), bytes(6)),
        NetworkPolicy(Ref("a", "p"), Selector(), True, True, rules[:1], rules[1:]),
    )
    joining = Node(Ref("", "n9"), (), (IPv4Network("10.244.9.0/24"),))
    change, after = step(before, (Kind.NODE, joining.ref, joining))
    named = set(_named(change, before, after))
    block = prefix_of(IPv4Network("10.244.9.128/25"))
    assert ("blocks", block) in named
    assert ("blocks", prefix_of(joining.pod_cidrs[0])) in named
    rows = [list(BLOCKS.rows(world, block)) for world in (before, after)]
    assert rows[0] != rows[1]
