"""The daemon dies and comes back, its pods and its runtimes do not notice."""

import pytest

from tests.netns.cni_lab import Lab, addresses, finish, nothing_left, pings, run, wait_until

pytest_plugins = ["tests.netns.cni_fixtures"]


def test_a_server_killed_during_an_add_leaves_nothing(idle: Lab) -> None:
    pod = idle.pod()
    with idle.daemon() as daemon:
        (idle.folder / "hold").touch()
        adding = idle.start("ADD", pod)
        wait_until("the link is made", (idle.folder / "attaching-c1").exists)
        assert len(idle.links()) == 1
        daemon.kill()
        daemon.wait()
    assert finish(adding).answer["code"] == 11
    (idle.folder / "hold").unlink()
    with idle.daemon():
        assert nothing_left(idle)
        assert idle.cni("ADD", pod).code == 0


def test_an_add_waits_for_a_daemon_that_is_coming(idle: Lab) -> None:
    adding = idle.start("ADD", idle.pod(), WEFT_CNI_WAIT_MS="20000")
    with idle.daemon():
        assert finish(adding).code == 0


def test_an_add_outlives_the_death_of_its_daemon(idle: Lab) -> None:
    (idle.folder / "hold").touch()
    with idle.daemon() as daemon:
        adding = idle.start("ADD", idle.pod(), WEFT_CNI_WAIT_MS="20000")
        wait_until("the link is made", (idle.folder / "attaching-c1").exists)
        daemon.kill()
        daemon.wait()
    (idle.folder / "hold").unlink()
    with idle.daemon():
        assert finish(adding).code == 0
        assert len(idle.links()) == 1


def test_pods_keep_their_network_and_their_addresses_over_a_restart(idle: Lab) -> None:
    pod, other = idle.pod(), idle.pod()
    with idle.daemon() as daemon:
        address = addresses(idle.cni("ADD", pod))[0]
        daemon.kill()
        daemon.wait()
    assert pings(idle.node, address)
    with idle.daemon():
        assert pings(idle.node, address)
        assert address not in str(idle.cni("ADD", other, "c2").answer["ips"])
        assert idle.cni("DEL", pod).code == 0


def test_a_pod_that_vanished_while_the_daemon_was_away_is_released(idle: Lab) -> None:
    pod = idle.pod()
    with idle.daemon():
        idle.cni("ADD", pod)
    run("ip", "netns", "del", pod)
    with idle.daemon():
        assert nothing_left(idle)
    run("ip", "netns", "add", pod)


def test_an_unreadable_lease_file_is_left_alone_while_pods_run(idle: Lab) -> None:
    pod = idle.pod()
    with idle.daemon():
        address = addresses(idle.cni("ADD", pod))[0]
    file = idle.folder / "leases.jsonl"
    file.write_text("torn")
    with pytest.raises(AssertionError), idle.daemon():
        pass
    assert file.read_text() == "torn"
    assert pings(idle.node, address)


def test_an_unreadable_lease_file_is_moved_aside_where_no_pod_runs(idle: Lab) -> None:
    file = idle.folder / "leases.jsonl"
    file.write_text("torn")
    with idle.daemon():
        assert idle.cni("ADD", idle.pod()).code == 0
    assert file.with_name("leases.jsonl.unreadable").read_text() == "torn"
