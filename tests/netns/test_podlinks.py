"""Pods' links without their programs, or set down: closed first, open again when in order."""

import re
import subprocess
from collections.abc import Collection, Mapping
from typing import cast

import pytest

from tests.netns.alone import play
from weft.bpf.clsact import LinkDirection
from weft.bpf.hook import Errors, Hooks, LinkPlace, Place
from weft.proxy.apply.hooks import HooksTarget
from weft.proxy.apply.podlinks import PodLinks
from weft.proxy.apply.target import NotMended
from weft.proxy.model.objects import Kind, Ref, Workload
from weft.proxy.model.world import Change, Settings, World
from weft.proxy.plan.hooks import Direction, Hook, HookPoint

LINK = "weft0123456789a"


class RefusingHooks:
    """A kernel that refuses what `refuses` says and runs the rest."""

    def __init__(self) -> None:
        self.refuses = False
        self.runs: dict[Place, str] = {}

    def attach(self, wanted: Mapping[Place, str]) -> Errors:
        if self.refuses:
            return dict.fromkeys(wanted, "attach: ENOMEM")
        self.runs.update(wanted)
        return {}

    def detach(self, places: Collection[Place]) -> Errors:
        return {}

    def attached(self) -> Mapping[Place, str]:
        return dict(self.runs)


class Node:
    """A namespace with one pod's link, up, and what looks after it."""

    def __init__(self) -> None:
        self.ip("link", "add", LINK, "type", "veth", "peer", "name", "pod0")
        self.ip("link", "set", LINK, "up")
        found = re.search(rf"(\d+): {LINK}", self.ip("link"))
        assert found is not None
        self.ifindex = int(found[1])
        self.hooks, self.now_s = RefusingHooks(), 0.0
        self.target = HooksTarget(cast(Hooks, self.hooks))
        self.links = PodLinks(self.target.hooked_pods, lambda: self.now_s)
        workload = Workload(LINK, Ref("default", "web"), "u", (), self.ifindex, bytes(6), bytes(6))
        change = Change(Kind.ATTACHMENT, LINK, None, workload)
        self.world = World(Settings("n1")).with_change(change)

    def ip(self, *words: str) -> str:
        done = subprocess.run(["ip", *words], check=True, capture_output=True, text=True)
        return done.stdout

    def is_up(self) -> bool:
        return ",UP" in self.ip("link", "show", LINK).splitlines()[0]

    def attach(self) -> None:
        self.target.write(
            {
                HookPoint(self.ifindex, Direction.INGRESS, shared=True): Hook("from_pod"),
                HookPoint(self.ifindex, Direction.EGRESS, shared=True): Hook("to_pod"),
            },
            (),
        )


def test_a_pod_whose_hooks_are_refused_is_cut_off_until_they_are_there() -> None:
    def story() -> None:
        node = Node()
        node.hooks.refuses = True
        node.links.mend(node.world)
        node.attach()
        assert not node.is_up()
        with pytest.raises(NotMended, match="default/web"):
            node.links.mend(node.world)
        assert not node.is_up()
        node.hooks.refuses = False
        node.attach()
        assert node.links.mend(node.world) == 1
        assert node.is_up()

    play(story)


def test_a_link_that_runs_programs_of_ours_all_the_same_stays_up() -> None:
    def story() -> None:
        node = Node()
        for way in LinkDirection:
            node.hooks.runs[LinkPlace(node.ifindex, way)] = "stale:7"
        node.hooks.refuses = True
        node.attach()
        assert node.is_up()

    play(story)


def test_a_link_that_is_down_because_its_pod_is_being_made_is_left_alone() -> None:
    def story() -> None:
        node = Node()
        node.attach()
        node.ip("link", "set", LINK, "down")
        assert node.links.mend(node.world) == 0
        node.now_s += 5.0
        assert node.links.mend(node.world) == 0
        assert not node.is_up()
        node.now_s += 60.0
        assert node.links.mend(node.world) == 1

    play(story)


def test_a_link_that_was_up_and_is_set_down_comes_up_again_at_once() -> None:
    def story() -> None:
        node = Node()
        node.attach()
        assert node.links.mend(node.world) == 0
        node.ip("link", "set", LINK, "down")
        assert node.links.mend(node.world) == 1
        assert node.is_up()

    play(story)
