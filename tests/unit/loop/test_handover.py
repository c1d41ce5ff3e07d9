"""Which attachments make this node tell others that an address was given on."""

import asyncio
import time
from collections.abc import Iterable
from dataclasses import replace
from ipaddress import ip_address

import pytest

from weft.proxy.handover import REMEMBERED_S, Handovers
from weft.proxy.model.objects import Address, Kind, Pod, Ref, Workload
from weft.proxy.model.world import Change, Settings, World

X, Y = ip_address("10.244.1.5"), ip_address("fd00:1::5")


def link(uid: str) -> Workload:
    name = f"weft of {uid}"
    return Workload(name, Ref("default", uid), uid, (X, Y), 7, bytes(6), bytes(6))


class Node:
    """Tells nobody, and remembers of what."""

    def __init__(self, *pods: Pod) -> None:
        world = World(Settings("n1"))
        for pod in pods:
            world = world.with_change(Change(Kind.POD, pod.ref, None, pod))
        self.told: list[Address] = []
        self.handovers = Handovers(lambda: world, self._announce)

    async def _announce(self, addresses: Iterable[Address]) -> bool:
        self.told += addresses
        return True

    def attach(self, fresh: Workload) -> None:
        asyncio.run(self.handovers.attached(fresh))


def test_an_address_of_another_pod_a_moment_ago_is_told_once() -> None:
    node = Node()
    node.attach(link("a"))
    node.handovers.detached(link("a"))
    node.attach(link("b"))
    assert node.told == [X, Y]
    node.attach(link("c"))
    assert node.told == [X, Y]


def test_an_address_that_its_own_pod_takes_up_again_is_not() -> None:
    node = Node()
    node.handovers.detached(link("a"))
    node.attach(link("a"))
    assert node.told == []


def test_what_was_long_ago_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    node, elsewhere = Node(), replace(link("z"), addresses=(ip_address("10.244.1.9"),))
    node.handovers.detached(link("a"))
    later_s = time.monotonic() + REMEMBERED_S
    monkeypatch.setattr(time, "monotonic", lambda: later_s)
    node.handovers.detached(elsewhere)
    node.attach(link("b"))
    assert node.told == []


def test_an_address_that_the_api_still_gives_to_another_is_told() -> None:
    node = Node(Pod(Ref("default", "former"), "f", "n1", {}, (X,), False, False))
    node.attach(link("b"))
    assert node.told == [X]
