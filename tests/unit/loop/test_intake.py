"""In what order news becomes the World."""

from ipaddress import ip_address, ip_network

import pytest

from weft.proxy.intake import Intake
from weft.proxy.model.objects import Kind, NetworkPolicy, Node, Pod, Ref, Selector, Workload
from weft.proxy.model.world import Settings, World
from weft.proxy.plan.policy import judgement
from weft.proxy.watch.events import Listed, Moved

WEB, CLOSED = Ref("default", "web"), Ref("default", "closed")
POD = Pod(WEB, "u1", "n1", {}, (), False, False)
POLICY = NetworkPolicy(CLOSED, Selector(), True, True, (), ())
LINK = Workload("weft1", WEB, "u1", (ip_address("10.1.1.10"),), 7, bytes(6), bytes(6))
PODS, POLICIES = Listed(Kind.POD, {WEB: POD}), Listed(Kind.POLICY, {CLOSED: POLICY})
CACHED = Listed(Kind.POLICY, {CLOSED: POLICY}, cached=True)


def is_open(world: World) -> bool:
    """Whether any direction of the link is judged by no rule set."""
    judged = judgement(world, LINK)
    return not (judged.ingress_set and judged.egress_set)


@pytest.mark.parametrize("news", [PODS, Moved(Kind.POD, WEB, POD)], ids=["listed", "moved"])
@pytest.mark.parametrize("policies", [POLICIES, CACHED], ids=["live", "cached"])
def test_a_link_made_before_policies_have_listed_is_open_at_no_moment(
    news: Listed | Moved, policies: Listed
) -> None:
    intake = Intake(World(Settings("n1")), frozenset(Kind))
    for event in (Moved(Kind.ATTACHMENT, LINK.key, LINK), news, policies):
        for step in intake.take(event):
            assert not is_open(step.after), step.change
    assert intake.world.pod(WEB) == POD
    assert [*intake.world.policies_in("default").values()] == [POLICY]


def test_pods_are_taken_at_once_when_policies_have_listed() -> None:
    intake = Intake(World(Settings("n1")), frozenset(Kind))
    taken = [step.change.kind for event in (POLICIES, PODS) for step in intake.take(event)]
    assert taken == [Kind.POLICY, Kind.POD]


OWN, PEER = Ref("", "n1"), Ref("", "n2")


def node(ref: Ref, pod_cidr: str) -> Node:
    return Node(ref, (), (ip_network(pod_cidr),), {}, leaving=False)


@pytest.mark.parametrize(
    "news", [Moved(Kind.NODE, OWN, None), Listed(Kind.NODE, {})], ids=["moved", "listed"]
)
def test_the_own_node_stays_as_it_was_while_its_object_is_gone(news: Listed | Moved) -> None:
    intake = Intake(World(Settings("n1")), frozenset(Kind))
    first = node(OWN, "10.1.1.0/24")
    for event in (Moved(Kind.NODE, OWN, first), news):
        assert len([*intake.take(event)]) == (0 if event is news else 1)
    assert intake.node_deleted
    assert intake.world.own_node() == first


def test_a_new_own_node_takes_the_place_of_the_one_that_was_kept() -> None:
    intake = Intake(World(Settings("n1")), frozenset(Kind))
    fresh = node(OWN, "10.1.9.0/24")
    for record in (node(OWN, "10.1.1.0/24"), None, fresh):
        [*intake.take(Moved(Kind.NODE, OWN, record))]
    assert not intake.node_deleted
    assert intake.world.own_node() == fresh


def test_a_node_that_never_came_is_not_deleted_and_peers_go_at_once() -> None:
    intake = Intake(World(Settings("n1")), frozenset(Kind))
    peer = node(PEER, "10.1.2.0/24")
    for event in (
        Listed(Kind.NODE, {}),
        Moved(Kind.NODE, PEER, peer),
        Moved(Kind.NODE, PEER, None),
    ):
        [*intake.take(event)]
    assert not intake.node_deleted
    assert intake.world.node("n2") is None
