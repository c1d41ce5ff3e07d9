"""`python -m weft.cni`: the same verbs where there is no daemon."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.netns.cni_lab import (
    ROOT,
    Lab,
    Outcome,
    addresses,
    details,
    finish,
    lab,
    pings,
    run,
)

PLUGIN = (sys.executable, "-m", "weft.cni")
TREE = str(ROOT / "build/tree")


@pytest.fixture(params=["routed", "bridge"])
def node(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Lab]:
    with lab(tmp_path, request.param) as one:
        yield one


@pytest.fixture
def routed(tmp_path: Path) -> Iterator[Lab]:
    with lab(tmp_path) as one:
        yield one


def cni(node: Lab, verb: str, *args: str, **kwargs: Any) -> Outcome:
    return node.cni(verb, *args, plugin=PLUGIN, PYTHONPATH=TREE, **kwargs)


def test_a_pod_is_reached_in_both_families_as_soon_as_it_is_added(node: Lab) -> None:
    one, other = node.pod(), node.pod()
    assert cni(node, "ADD", one, "c1").code == 0
    for address in addresses(cni(node, "ADD", other, "c2")):
        assert pings(node.node, address)
        assert pings(one, address)


def test_what_was_added_is_checked_and_deleted_without_a_trace(node: Lab) -> None:
    pod = node.pod()
    added = cni(node, "ADD", pod)
    assert cni(node, "CHECK", pod, config={"prevResult": added.answer}).code == 0
    assert cni(node, "DEL", pod) == cni(node, "DEL", pod) == Outcome(0, None, "")
    assert (node.links(), node.leases("local/weft/leases.jsonl")) == (set(), set())


def test_adds_at_once_share_the_lease_file(node: Lab) -> None:
    pods = [node.pod() for _ in range(8)]
    running = [
        node.start("ADD", pod, f"c{i}", plugin=PLUGIN, PYTHONPATH=TREE)
        for i, pod in enumerate(pods)
    ]
    answers = [finish(one) for one in running]
    assert [one.code for one in answers] == [0] * 8, answers
    assert len({addresses(one)[0] for one in answers}) == 8


@pytest.mark.parametrize(
    ("config", "code", "words"),
    [
        ({"mode": "warp"}, 7, "routed or bridge"),
        ({"ranges": ["10.0.0.7/24"]}, 7, "host bits"),
        ({"ranges": []}, 101, "no range"),
        ({"cniVersion": "7.0.0"}, 1, "7.0.0"),
    ],
)
def test_a_configuration_that_cannot_be_served_says_why(
    routed: Lab, config: dict[str, object], code: int, words: str
) -> None:
    refused = cni(routed, "ADD", routed.pod(), config=config)
    assert refused.answer["code"] == code
    assert words in details(refused)
    assert routed.links() == set()


def test_a_namespace_that_is_not_there_is_named(routed: Lab) -> None:
    refused = cni(routed, "ADD", "never-was")
    assert refused.answer["code"] == 8
    assert "/run/netns/never-was: No such file" in details(refused)


def test_gc_and_status_and_version_answer_too(routed: Lab) -> None:
    pod = routed.pod()
    assert cni(routed, "ADD", pod).code == 0
    assert cni(routed, "STATUS") == Outcome(0, None, "")
    assert cni(routed, "GC", config={"cni.dev/valid-attachments": []}) == Outcome(0, None, "")
    assert routed.links() == set()
    assert cni(routed, "VERSION").answer["supportedVersions"][0] == "0.1.0"


def test_forwarding_keeps_router_advertisements_on_uplinks(routed: Lab) -> None:
    run("ip", "-n", routed.node, "link", "add", "uplink0", "type", "bridge")
    sysctl = ("ip", "netns", "exec", routed.node, "sysctl", "-n")
    assert cni(routed, "ADD", routed.pod()).code == 0
    assert run(*sysctl, "net.ipv6.conf.all.forwarding", "net.ipv4.ip_forward") == "1\n1\n"
    assert run(*sysctl, "net.ipv6.conf.uplink0.accept_ra") == "2\n"


def test_a_lease_file_that_does_not_read_is_an_error_and_stays(routed: Lab) -> None:
    file = routed.folder / "local/weft/leases.jsonl"
    file.parent.mkdir(parents=True)
    file.write_text("torn")
    refused = cni(routed, "ADD", routed.pod())
    assert refused.answer["code"] == 110
    assert file.read_text() == "torn"
    file.unlink()
    assert cni(routed, "ADD", routed.pod()).code == 0
