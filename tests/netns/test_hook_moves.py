"""Pods with hooks of their own, beside the qdisc of another: into the block and out, never bare."""

import os

import pytest

from tests.netns.hook_scene import Node, packets, run
from tests.netns.test_hooks import FROM_POD, IN, OUT, TO_POD, no_errors, ping, pod_places
from tests.netns.test_hooks import node as node
from tests.netns.test_hooks import objects as objects
from weft.bpf.hook import STALE, LinkPlace, Place
from weft.bpf.pins import HOOKS

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root")


def own_places(*links: int) -> dict[Place, str]:
    """As of pods whose links another shapes."""
    ingress: dict[Place, str] = {LinkPlace(link, IN): "from_pod" for link in links}
    return ingress | {LinkPlace(link, OUT): "to_pod" for link in links}


def test_a_pod_with_anothers_ingress_qdisc_runs_hooks_of_its_own(node: Node) -> None:
    link = node.add_pod(1)
    run("tc", "qdisc", "add", "dev", "host1", "ingress")
    with node.daemon() as (datapath, hooks):
        assert no_errors(hooks.attach(own_places(link)))
        ping(1)
        assert packets(datapath, FROM_POD) > 0
        assert packets(datapath, TO_POD) > 0
        assert hooks.attached() == own_places(link)
    with node.daemon() as (_, hooks):
        assert hooks.attached() == {place: STALE + name for place, name in own_places(link).items()}
        assert no_errors(hooks.detach(own_places(link)))
        assert hooks.attached() == {}


def test_a_pod_moves_from_the_block_to_hooks_of_its_own_and_back(node: Node) -> None:
    link, other = node.add_pod(1), node.add_pod(2)
    with node.daemon() as (datapath, hooks):
        assert no_errors(hooks.attach(pod_places(link, other)))
        for new, old in ((own_places, pod_places), (pod_places, own_places)):
            assert no_errors(hooks.attach(new(link)))
            assert hooks.attached() == pod_places(other) | new(link) | old(link)
            assert no_errors(hooks.detach(old(link)))
            assert hooks.attached() == pod_places(other) | new(link)
            before = packets(datapath, FROM_POD)
            ping(1)
            assert packets(datapath, FROM_POD) > before


def test_without_tcx_a_pod_that_should_move_stays_in_the_block(node: Node) -> None:
    link = node.add_pod(1)
    with node.daemon(has_tcx=False) as (_, hooks):
        assert no_errors(hooks.attach(pod_places(link)))
        errors = hooks.attach(own_places(link))
        assert set(errors) == set(own_places(link))
        assert all("need tcx, Linux 6.6" in words for words in errors.values())
        stays = hooks.detach(pod_places(link))
        assert set(stays) == set(pod_places(link))
        assert hooks.attached() == pod_places(link)
        assert no_errors(hooks.detach(pod_places(link) | own_places(link)))
        assert hooks.attached() == {}


def test_a_pod_that_cannot_go_back_to_the_block_keeps_its_own_hooks(node: Node) -> None:
    link = node.add_pod(1)
    with node.daemon() as (_, hooks):
        assert no_errors(hooks.attach(own_places(link)))
        run("tc", "qdisc", "add", "dev", "host1", "ingress")
        assert set(hooks.attach(pod_places(link))) == set(pod_places(link))
        assert set(hooks.detach(own_places(link))) == set(own_places(link))
        assert hooks.attached() == own_places(link)
        run("tc", "qdisc", "delete", "dev", "host1", "ingress")
        assert no_errors(hooks.attach(pod_places(link)))
        assert no_errors(hooks.detach(own_places(link)))
        assert hooks.attached() == pod_places(link)


def test_a_pod_leaves_the_block_once_its_own_hooks_are_attached_after_all(node: Node) -> None:
    link = node.add_pod(1)
    with node.daemon() as (_, hooks):
        assert no_errors(hooks.attach(pod_places(link)))
        for place in own_places(link):
            (node.pins / HOOKS / f"link-{link}-{place.direction}").mkdir()  # type: ignore[union-attr]
        assert set(hooks.attach(own_places(link))) == set(own_places(link))
        for place in own_places(link):
            (node.pins / HOOKS / f"link-{link}-{place.direction}").rmdir()  # type: ignore[union-attr]
        assert no_errors(hooks.attach(own_places(link)))
        assert no_errors(hooks.detach(pod_places(link)))
        assert hooks.attached() == own_places(link)
