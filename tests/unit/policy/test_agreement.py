"""The tables give the API's answer: reference evaluator against the kernel's look-ups."""

from random import Random

import pytest

from tests.unit.policy.clusters import Dice, Move, cluster_of, empty_world, step
from tests.unit.policy.evaluator import Verdict, verdict
from tests.unit.policy.lookup import allowed, fake_tables, planned
from weft.proxy.model.objects import Kind
from weft.proxy.model.world import World
from weft.proxy.plan.policy_explain import explain
from weft.proxy.plan.policy_rules import Direction

CLUSTERS, FLOWS = 400, 40


def random_world(dice: Dice, moves: int) -> World:
    world = empty_world()
    for _ in range(moves):
        world = step(world, dice.move())[1]
    return world


@pytest.mark.parametrize("batch", range(8))
def test_tables_and_evaluator_agree_on_16000_random_flows(batch: int) -> None:
    dice, seen = Dice(Random(f"agreement {batch}")), {True: 0, False: 0}
    for _ in range(CLUSTERS // 8):
        world = random_world(dice, dice.random.randint(10, 90))
        tables, cluster = fake_tables(planned(world)), cluster_of(world)
        for _ in range(FLOWS):
            flow = dice.flow(cluster)
            expected = verdict(cluster, *flow)
            assert allowed(tables, world, cluster.links, *flow) == expected.allowed, (
                flow,
                expected,
            )
            seen[expected.allowed] += 1
    assert min(seen.values()) > FLOWS * CLUSTERS // 8 // 10, f"lopsided: {seen}"


def test_the_explanation_gives_the_tables_verdict() -> None:
    dice = Dice(Random("explain"))
    for _ in range(120):
        world = random_world(dice, 60)
        cluster = cluster_of(world)
        for _ in range(10):
            source, destination, protocol, port = flow = dice.flow(cluster)
            said = [
                explain(world, Direction.EGRESS, link, destination, protocol, port)
                for link in cluster.links
                if source in link.addresses
            ] + [
                explain(world, Direction.INGRESS, link, source, protocol, port)
                for link in cluster.links
                if destination in link.addresses
            ]
            expected: Verdict = verdict(cluster, *flow)
            assert all(one.allowed for one in said) == expected.allowed, (flow, expected, said)


def test_a_move_is_drawn_for_every_kind_that_policy_reads() -> None:
    dice = Dice(Random(1))
    moves: list[Move] = [dice.move() for _ in range(200)]
    assert {kind for kind, _, _ in moves} == {
        Kind.POLICY, Kind.POD, Kind.NAMESPACE, Kind.NODE, Kind.ATTACHMENT, Kind.SIGHTING,
    }  # fmt: skip
