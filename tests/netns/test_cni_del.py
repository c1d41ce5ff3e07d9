"""DEL by the real shim, with the real server and without."""

import pytest

from tests.netns.cni_lab import Lab, Outcome, nothing_left, run, wait_until

pytest_plugins = ["tests.netns.cni_fixtures"]


def test_a_deleted_pod_leaves_no_link_no_lease_and_no_route(node: Lab) -> None:
    pod = node.pod()
    node.cni("ADD", pod)
    assert node.links()
    assert node.cni("DEL", pod) == node.cni("DEL", pod) == Outcome(0, None, "")
    assert nothing_left(node)
    assert node.ip("link", "show", ns=pod)[0]["ifname"] == "lo"


@pytest.mark.parametrize(
    ("env", "config"),
    [
        ({"CNI_NETNS": ""}, {}),
        ({"CNI_NETNS": "/run/netns/never-was"}, {}),
        ({}, {"prevResult": {"ips": "garbage"}}),
        ({}, {"prevResult": None, "ranges": ["192.168.0.0/24"], "mode": "other"}),
        ({"CNI_ARGS": "COLOUR=red"}, {}),
    ],
)
def test_a_del_needs_nothing_but_the_attachments_name(
    routed: Lab, env: dict[str, str], config: dict[str, object]
) -> None:
    pod = routed.pod()
    routed.cni("ADD", pod)
    assert routed.cni("DEL", pod, config=config, **env) == Outcome(0, None, "")
    assert nothing_left(routed)


def test_a_del_frees_the_address_of_a_pod_whose_namespace_is_gone(routed: Lab) -> None:
    pod = routed.pod()
    routed.cni("ADD", pod)
    run("ip", "netns", "del", pod)
    assert routed.leases()
    assert routed.cni("DEL", pod).code == 0
    assert nothing_left(routed)
    run("ip", "netns", "add", pod)


def test_a_del_in_another_network_leaves_the_attachment_alone(routed: Lab) -> None:
    pod = routed.pod()
    routed.cni("ADD", pod)
    assert routed.cni("DEL", pod, config={"name": "other"}).code == 0
    assert len(routed.links()) == 1


def test_a_del_without_a_daemon_succeeds_and_is_carried_out_at_the_next_start(idle: Lab) -> None:
    pod = idle.pod()
    with idle.daemon():
        idle.cni("ADD", pod)
    assert idle.cni("DEL", pod) == Outcome(0, None, "")
    assert [one.name for one in (idle.folder / "deletions").iterdir()] == ["c1@eth0"]
    with idle.daemon():
        wait_until("the queue is empty", lambda: not list((idle.folder / "deletions").iterdir()))
        assert nothing_left(idle)
        assert (idle.folder / "detached").read_text() == "c1/eth0\n"


def test_a_queued_del_goes_before_a_new_add_of_the_same_attachment(routed: Lab) -> None:
    pod = routed.pod()
    routed.cni("ADD", pod)
    assert routed.cni("DEL", pod, WEFT_CNI_SOCKET="/nowhere").code == 0
    assert routed.cni("ADD", pod).code == 0
    assert list((routed.folder / "deletions").iterdir()) == []
    assert len(routed.links()) == 1


def test_a_del_on_a_node_that_never_had_a_daemon_succeeds(idle: Lab) -> None:
    assert idle.cni("DEL", idle.pod()) == Outcome(0, None, "")
    assert not (idle.folder / "deletions").exists()


def test_a_del_that_cannot_be_queued_is_to_be_tried_again(idle: Lab) -> None:
    (idle.folder / "deletions").touch()
    assert idle.cni("DEL", idle.pod()).answer["code"] == 11


def test_a_del_that_names_no_attachment_is_refused_instead_of_queued(idle: Lab) -> None:
    (idle.folder / "deletions").mkdir()
    refused = idle.cni("DEL", idle.pod(), CNI_CONTAINERID="../x")
    assert refused.answer["code"] == 4
    assert list((idle.folder / "deletions").iterdir()) == []
