"""What another node's word on an address is worth, and when it is worth nothing any more."""

from dataclasses import replace
from ipaddress import ip_address, ip_network

import pytest

from weft.proxy.intake import Intake
from weft.proxy.model.objects import LISTED_KINDS, Address, Kind, Node, Pod, Ref, Sighting, Workload
from weft.proxy.model.owners import owner
from weft.proxy.model.sightings import pods_claiming, unresolved
from weft.proxy.model.world import Key, Record, Settings, World
from weft.proxy.watch.events import Listed, Moved, key_of

X, OTHER = ip_address("10.244.2.5"), ip_address("10.244.2.6")
ALICE, BOB = Ref("default", "alice"), Ref("default", "bob")


def node(name: str, number: int) -> Node:
    cidrs = (ip_network(f"10.244.{number}.0/24"), ip_network(f"fd00:{number}::/64"))
    return Node(Ref("", name), (ip_address(f"192.0.2.{number}"),), cidrs)


def pod(ref: Ref, *addresses: Address, on: str = "n2", finished: bool = False) -> Pod:
    return Pod(ref, f"uid of {ref.name}", on, {}, addresses, False, finished)


def word(ref: Ref, address: Address = X, by: str = "n2") -> Sighting:
    return Sighting(address, ref, f"uid of {ref.name}", by)


class Cluster:
    """What n1 knows of n2 and n3; each record comes as an event."""

    def __init__(self, *records: Record) -> None:
        self.intake = Intake(World(Settings("n1")), LISTED_KINDS)
        self.put(node("n1", 1), node("n2", 2), node("n3", 3))
        list(self.intake.take(Listed(Kind.POLICY, {})))
        self.put(*records)

    @property
    def world(self) -> World:
        return self.intake.world

    def put(self, *records: Record) -> None:
        for record in records:
            list(self.intake.take(Moved(_KINDS[type(record)], key_of(record), record)))

    def remove(self, kind: Kind, key: Key) -> None:
        list(self.intake.take(Moved(kind, key, None)))

    def at(self, address: Address = X) -> set[Ref]:
        return {pod.ref for pod in pods_claiming(self.world, address)}


_KINDS: dict[type, Kind] = {
    Node: Kind.NODE, Pod: Kind.POD, Sighting: Kind.SIGHTING, Workload: Kind.ATTACHMENT,
}  # fmt: skip


def test_the_owners_word_makes_a_pod_without_addresses_known() -> None:
    cluster = Cluster(pod(ALICE))
    assert unresolved(cluster.world, X) == node("n2", 2)
    cluster.put(word(ALICE))
    assert cluster.at() == {ALICE}
    assert unresolved(cluster.world, X) is None


@pytest.mark.parametrize(
    ("known", "said"),
    [
        (pod(ALICE), word(ALICE, by="n3")),
        (pod(ALICE, on="n3"), word(ALICE)),
        (pod(ALICE, on="n3"), word(ALICE, by="n3")),
        (pod(ALICE), replace(word(ALICE), uid="uid of its forerunner")),
        (pod(ALICE), word(BOB)),
        (pod(ALICE, finished=True), word(ALICE)),
        (replace(pod(ALICE), host_network=True), word(ALICE)),
        (pod(ALICE, OTHER), word(ALICE)),
        (replace(pod(ALICE), uid=""), replace(word(ALICE), uid="")),
        (pod(ALICE, on="n1"), word(ALICE, ip_address("10.244.1.5"), "n1")),
        (pod(ALICE), word(ALICE, ip_address("203.0.113.5"))),
    ],
    ids=[
        "by a node that has not the podCIDR", "pod of another node",
        "pod and word of a node that has not the podCIDR", "another uid", "unknown pod",
        "finished pod", "pod on the host's network", "pod with other addresses", "no uid",
        "the own node's pod", "no pod's address",
    ],
)  # fmt: skip
def test_a_word_that_the_api_does_not_bear_out_is_not_taken(known: Pod, said: Sighting) -> None:
    cluster = Cluster(known, said)
    assert not list(cluster.world.sightings())


@pytest.mark.parametrize(
    "news",
    [
        pod(ALICE, X), pod(ALICE, OTHER), pod(ALICE, finished=True), pod(ALICE, on="n3"),
        replace(pod(ALICE), uid="uid of its heir"), replace(node("n2", 2), pod_cidrs=()),
        node("n2", 4),
    ],
    ids=[
        "the API says its addresses", "the API says others", "it has finished", "another node",
        "another pod of its name", "its node has no podCIDR", "its node has another podCIDR",
    ],
)  # fmt: skip
def test_a_word_goes_when_the_api_says_more_or_otherwise(news: Record) -> None:
    cluster = Cluster(pod(ALICE), word(ALICE), news)
    assert not list(cluster.world.sightings())


def test_a_word_dies_with_its_pod() -> None:
    cluster = Cluster(pod(ALICE), word(ALICE))
    cluster.remove(Kind.POD, ALICE)
    assert not list(cluster.world.sightings())
    assert cluster.at() == set()


def test_an_address_given_on_is_not_its_former_pods_though_the_api_still_says_so() -> None:
    cluster = Cluster(pod(ALICE, X), pod(BOB), word(BOB))
    assert cluster.at() == {BOB}
    cluster.remove(Kind.POD, BOB)
    assert cluster.at() == set(), "alice had left before bob came"
    cluster.remove(Kind.POD, ALICE)
    assert not list(cluster.world.sightings())


def test_a_pod_that_is_not_known_yet_takes_the_address_from_its_former_pod() -> None:
    cluster = Cluster(pod(ALICE, X), word(BOB))
    assert cluster.at() == set()
    cluster.put(pod(BOB))
    assert cluster.at() == {BOB}
    cluster.put(pod(BOB, X))
    assert cluster.at() == {BOB}


def test_a_pod_that_the_api_puts_at_the_address_later_shares_it() -> None:
    """Late news of a former pod, or early news of the next: either's rights alone are too many."""
    cluster = Cluster(pod(ALICE), word(ALICE), pod(BOB, X))
    assert cluster.at() == {ALICE, BOB}
    cluster.remove(Kind.POD, ALICE)
    assert cluster.at() == {BOB}


def test_a_node_has_no_word_against_pods_of_another() -> None:
    cluster = Cluster(pod(ALICE, X, on="n3"), pod(BOB), word(BOB))
    assert cluster.at() == {ALICE, BOB}


def test_a_link_here_needs_no_word() -> None:
    link = Workload("weft1", ALICE, "uid", (ip_address("10.244.1.9"),), 7, bytes(6), bytes(6))
    cluster = Cluster(link)
    assert unresolved(cluster.world, ip_address("10.244.1.9")) is None


def test_the_owner_of_an_address_is_who_has_the_narrowest_pod_cidr_around_it() -> None:
    wide = Node(Ref("", "wide"), (), (ip_network("10.244.0.0/16"), ip_network("::/0")))
    cluster = Cluster(wide)
    found = [owner(cluster.world, ip_address(a)) for a in ("10.244.2.9", "10.244.9.9", "fd00:3::9")]
    assert [one.ref.name for one in found if one] == ["n2", "wide", "n3"]
    cluster.remove(Kind.NODE, Ref("", "n3"))
    late = owner(cluster.world, ip_address("fd00:3::9"))
    assert late is not None
    assert late.ref.name == "wide"
    assert owner(cluster.world, ip_address("10.9.9.9")) is None
