"""The real shim against the real server, in namespaces."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.netns.cni_lab import Lab, finish, lab, run, wait_until


@pytest.fixture(params=["routed", "bridge"])
def node(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Lab]:
    with lab(tmp_path, request.param) as one, one.daemon():
        yield one


@pytest.fixture
def routed(tmp_path: Path) -> Iterator[Lab]:
    with lab(tmp_path) as one:
        yield one


def pings(lab: Lab, ns: str, address: str) -> bool:
    out = run("ip", "netns", "exec", ns, "ping", "-c1", "-W2", address, check=False)
    return " 1 received" in out


def test_an_added_pod_is_reached_at_once_in_both_families(node: Lab) -> None:
    added = node.cni("ADD", node.pod())
    assert added.code == 0, added
    for ip in added.answer["ips"]:
        assert pings(node, node.node, ip["address"].split("/")[0])


def test_two_pods_of_a_node_reach_each_other(node: Lab) -> None:
    one, other = node.pod(), node.pod()
    node.cni("ADD", one, "c1")
    for ip in node.cni("ADD", other, "c2").answer["ips"]:
        assert pings(node, one, ip["address"].split("/")[0])


def test_a_deleted_pod_leaves_no_link_no_lease_and_no_route(node: Lab) -> None:
    pod = node.pod()
    node.cni("ADD", pod)
    assert node.links()
    assert node.cni("DEL", pod) == node.cni("DEL", pod)
    assert (node.links(), node.leases()) == (set(), set())
    assert "10.77.0.2" not in run("ip", "-n", node.node, "route")
    assert node.ip("link", "show", ns=pod)[0]["ifname"] == "lo"


def test_thirty_adds_at_once_all_succeed(node: Lab) -> None:
    pods = [node.pod() for _ in range(30)]
    running = [node.start("ADD", pod, f"c{i}") for i, pod in enumerate(pods)]
    answers = [finish(one) for one in running]
    assert [one.code for one in answers] == [0] * 30, answers
    assert len({one.answer["ips"][0]["address"] for one in answers}) == 30
    running = [node.start("DEL", pod, f"c{i}") for i, pod in enumerate(pods)]
    assert [finish(one).code for one in running] == [0] * 30
    assert (node.links(), node.leases()) == (set(), set())


def test_a_server_killed_during_an_add_leaves_nothing(routed: Lab) -> None:
    pod = routed.pod()
    with routed.daemon() as daemon:
        (routed.folder / "hold").touch()
        adding = routed.start("ADD", pod)
        wait_until("the link is made", (routed.folder / "attaching-c1").exists)
        assert len(routed.links()) == 1
        daemon.kill()
        daemon.wait()
    assert finish(adding).answer["code"] == 11
    (routed.folder / "hold").unlink()
    with routed.daemon():
        assert (routed.links(), routed.leases()) == (set(), set())
        assert routed.cni("ADD", pod).code == 0
