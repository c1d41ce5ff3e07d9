"""The real shim against the real server, in namespaces."""

import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.netns.cni_lab import RANGES, Lab, Outcome, finish, lab, pings, run, wait_until


@pytest.fixture(params=["routed", "bridge"])
def node(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Lab]:
    with lab(tmp_path, request.param) as one, one.daemon():
        yield one


@pytest.fixture
def idle(tmp_path: Path) -> Iterator[Lab]:
    """A routed node whose daemon is not started."""
    with lab(tmp_path) as one:
        yield one


@pytest.fixture
def routed(idle: Lab) -> Iterator[Lab]:
    with idle.daemon():
        yield idle


def details(outcome: Outcome) -> str:
    assert outcome.code == 1, outcome
    return f"{outcome.answer['msg']}: {outcome.answer.get('details', '')}"


def addresses(added: Outcome) -> list[str]:
    return [ip["address"].split("/")[0] for ip in added.answer["ips"]]


def nothing_left(lab: Lab) -> bool:
    routes = json.dumps(lab.ip("route", "show", "proto", "87"))
    return (lab.links(), lab.leases(), routes) == (set(), set(), "[]")


# --- ADD ---


def test_an_added_pod_is_reached_at_once_in_both_families(node: Lab) -> None:
    added = node.cni("ADD", node.pod())
    assert added.code == 0, added
    for address in addresses(added):
        assert pings(node.node, address)


def test_two_pods_of_a_node_reach_each_other(node: Lab) -> None:
    one, other = node.pod(), node.pod()
    node.cni("ADD", one, "c1")
    for address in addresses(node.cni("ADD", other, "c2")):
        assert pings(one, address)


def test_a_pods_addresses_are_never_tentative(node: Lab) -> None:
    pod = node.pod()
    node.cni("ADD", pod)
    flags = node.ip("address", "show", "dev", "eth0", ns=pod)[0]["addr_info"]
    assert [one["family"] for one in flags] == ["inet", "inet6", "inet6"]
    assert not any(one.get("tentative") for one in flags)


def test_the_pods_link_has_the_mtu_and_the_mac_that_were_asked_for(tmp_path: Path) -> None:
    with lab(tmp_path) as node:
        node.config["mtu"] = 1280
        with node.daemon():
            pod = node.pod()
            node.cni("ADD", pod, config={"runtimeConfig": {"mac": "02:00:00:00:00:0f"}})
            (eth0,) = node.ip("link", "show", "dev", "eth0", ns=pod)
            assert (eth0["mtu"], eth0["address"]) == (1280, "02:00:00:00:00:0f")


def test_a_requested_address_is_given(routed: Lab) -> None:
    added = routed.cni("ADD", routed.pod(), config={"runtimeConfig": {"ips": ["10.77.0.99"]}})
    assert added.answer["ips"][0]["address"] == "10.77.0.99/32"


def test_thirty_adds_at_once_all_succeed(node: Lab) -> None:
    pods = [node.pod() for _ in range(30)]
    running = [node.start("ADD", pod, f"c{i}") for i, pod in enumerate(pods)]
    answers = [finish(one) for one in running]
    assert [one.code for one in answers] == [0] * 30, answers
    assert len({one.answer["ips"][0]["address"] for one in answers}) == 30
    running = [node.start("DEL", pod, f"c{i}") for i, pod in enumerate(pods)]
    assert [finish(one).code for one in running] == [0] * 30
    assert nothing_left(node)


def test_a_second_interface_of_a_container_is_an_attachment_of_its_own(routed: Lab) -> None:
    pod = routed.pod()
    first = routed.cni("ADD", pod, ifname="eth0")
    second = routed.cni("ADD", pod, ifname="net1")
    assert second.code == 0, second
    for address in addresses(first) + addresses(second):
        assert pings(routed.node, address)
    assert routed.ip("route", "get", "192.0.2.1", ns=pod)[0]["dev"] == "eth0"
    assert routed.ip("-6", "route", "get", "2001:db8::1", ns=pod)[0]["dev"] == "eth0"
    assert routed.cni("DEL", pod, ifname="eth0").code == 0
    assert pings(routed.node, addresses(second)[0])


def test_adding_twice_fails_and_leaves_the_first_attachment_intact(routed: Lab) -> None:
    pod = routed.pod()
    first = routed.cni("ADD", pod)
    assert "already attached" in details(routed.cni("ADD", pod))
    assert pings(routed.node, addresses(first)[0])


def test_an_interface_that_is_already_there_is_never_taken_over(node: Lab) -> None:
    pod = node.pod()
    run("ip", "-n", pod, "link", "add", "eth0", "type", "bridge")
    assert "already has an interface eth0" in details(node.cni("ADD", pod))
    assert nothing_left(node)
    assert node.ip("-d", "link", "show", "eth0", ns=pod)[0]["linkinfo"]["info_kind"] == "bridge"


def test_a_failed_add_undoes_itself_so_that_a_retry_succeeds(node: Lab) -> None:
    pod, flag = node.pod(), node.folder / "not-ready"
    flag.touch()
    refused = node.cni("ADD", pod)
    assert refused.answer["code"] == 11
    assert nothing_left(node)
    assert len(node.ip("link", ns=pod)) == 1
    flag.unlink()
    assert node.cni("ADD", pod).code == 0


def test_an_exhausted_range_says_so_and_the_retry_works_once_there_is_room(tmp_path: Path) -> None:
    with lab(tmp_path) as node:
        node.config["ranges"] = ["10.77.0.0/30"]
        with node.daemon():
            pod, late = node.pod(), node.pod()
            assert node.cni("ADD", pod, "c1").code == 0
            full = node.cni("ADD", late, "c2")
            assert full.answer["code"] == 103
            assert "10.77.0.0/30" in details(full)
            assert "1 of 1" in details(full)
            node.cni("DEL", pod, "c1")
            assert node.cni("ADD", late, "c2").code == 0


def test_a_pod_killed_runtime_leaves_nothing_behind(idle: Lab) -> None:
    """The runtime's time-out kills the shim; nobody will send a DEL for what it never heard of."""
    (idle.folder / "hold").touch()
    with idle.daemon() as daemon:
        adding = idle.start("ADD", idle.pod())
        wait_until("the link is made", (idle.folder / "attaching-c1").exists)
        adding.kill()
        adding.wait()
        daemon.send_signal(signal.SIGUSR1)
        wait_until("all is undone", lambda: nothing_left(idle))


def test_the_host_end_stays_down_until_the_node_has_attached_the_pod(idle: Lab) -> None:
    (idle.folder / "hold").touch()
    with idle.daemon() as daemon:
        adding = idle.start("ADD", idle.pod())
        wait_until("the link is made", (idle.folder / "attaching-c1").exists)
        (name,) = idle.links()
        assert "UP" not in idle.ip("link", "show", name)[0]["flags"]
        daemon.send_signal(signal.SIGUSR1)
        assert finish(adding).code == 0
        assert "UP" in idle.ip("link", "show", name)[0]["flags"]


# --- hostile and broken input ---


@pytest.mark.parametrize("kind", ["missing", "pipe", "file", "other namespace"])
def test_a_path_that_is_no_network_namespace_is_refused_at_once(
    routed: Lab, tmp_path: Path, kind: str
) -> None:
    path = tmp_path / "planted"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "file":
        path.touch()
    elif kind == "other namespace":
        path = Path("/proc/self/ns/uts")
    refused = routed.cni("ADD", "x", CNI_NETNS=str(path))
    assert refused.answer["code"] == 8
    assert str(path) in details(refused)
    assert nothing_left(routed)


def test_the_nodes_own_namespace_is_refused(routed: Lab) -> None:
    refused = routed.cni("ADD", routed.node)
    assert refused.answer["code"] == 8
    assert "own" in details(refused)


@pytest.mark.parametrize(
    ("config", "code"),
    [
        (b"{", 6),
        (b"", 6),
        (b'{"cniVersion":"1.0.0"}', 7),
        (b'{"cniVersion":"9.0.0","name":"a"}', 1),
    ],
)
def test_a_broken_configuration_gets_its_code(routed: Lab, config: bytes, code: int) -> None:
    assert routed.cni("ADD", routed.pod(), config=config).answer["code"] == code


def test_a_misplaced_plugin_says_that_it_must_be_first(routed: Lab) -> None:
    refused = routed.cni("ADD", routed.pod(), config={"prevResult": {"ips": []}})
    assert refused.answer["code"] == 7
    assert "first plugin" in details(refused)


@pytest.mark.parametrize(
    ("ranges", "words"),
    [([], "no range"), (["10.77.0.0/24", "10.77.0.0/25"], "overlap"), (["10.0.0.0/31"], "small")],
)
def test_missing_or_wrong_ranges_fail_adds_and_status_and_nothing_else(
    tmp_path: Path, ranges: list[str], words: str
) -> None:
    with lab(tmp_path) as node:
        with node.daemon():
            pod = node.pod()
            node.cni("ADD", pod)
        node.config["ranges"] = ranges
        with node.daemon():
            assert words in details(node.cni("ADD", node.pod(), "c2"))
            assert node.cni("STATUS").answer["code"] == 50
            assert node.cni("DEL", pod).code == 0
            assert nothing_left(node)


# --- DEL ---


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
        assert nothing_left(idle)
        assert list((idle.folder / "deletions").iterdir()) == []
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


# --- the daemon dies and comes back ---


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


# --- CHECK, GC, STATUS, VERSION and what the shim says on its own ---


def test_check_accepts_what_add_made_and_names_what_was_broken(node: Lab) -> None:
    pod = node.pod()
    result = {"prevResult": node.cni("ADD", pod).answer}
    assert node.cni("CHECK", pod, config=result) == Outcome(0, None, "")
    run("ip", "-n", pod, "address", "del", result["prevResult"]["ips"][0]["address"], "dev", "eth0")
    broken = node.cni("CHECK", pod, config=result)
    assert broken.answer["code"] == 109
    assert "eth0 lacks 10.77.0.2" in details(broken)


def test_check_notices_a_missing_host_route(routed: Lab) -> None:
    pod = routed.pod()
    result = {"prevResult": routed.cni("ADD", pod).answer}
    run("ip", "-n", routed.node, "route", "del", "10.77.0.2")
    assert "route to 10.77.0.2" in details(routed.cni("CHECK", pod, config=result))


def test_check_of_an_unknown_container_says_so(routed: Lab) -> None:
    pod = routed.pod()
    result = {"prevResult": routed.cni("ADD", pod).answer}
    assert routed.cni("CHECK", pod, "c9", config=result).answer["code"] == 3


def test_check_without_a_daemon_is_try_again_and_not_broken(idle: Lab) -> None:
    started_s = time.monotonic()
    assert idle.cni("CHECK", idle.pod()).answer["code"] == 11
    assert time.monotonic() - started_s < 8


@pytest.mark.parametrize("key", ["cni.dev/valid-attachments", "cni.dev/attachments"])
def test_gc_frees_what_is_not_listed_and_nothing_of_other_networks(routed: Lab, key: str) -> None:
    pods = {name: routed.pod() for name in ("stays", "goes", "foreign")}
    for name, pod in pods.items():
        network = {"name": "other"} if name == "foreign" else {}
        assert routed.cni("ADD", pod, name, config=network).code == 0
    listed = {key: [{"containerID": "stays", "ifname": "eth0"}]}
    assert routed.cni("GC", config=listed) == Outcome(0, None, "")
    assert len(routed.links()) == 2
    assert routed.cni("GC").code == 0
    assert len(routed.links()) == 2
    assert (routed.folder / "detached").read_text() == "goes/eth0\n"


def test_status_is_silent_when_pods_can_be_served(routed: Lab) -> None:
    assert routed.cni("STATUS") == Outcome(0, None, "")


def test_status_without_a_daemon_is_50_and_quick(idle: Lab) -> None:
    started_s = time.monotonic()
    assert idle.cni("STATUS").answer["code"] == 50
    assert time.monotonic() - started_s < 1


def test_status_of_a_stopped_daemon_is_bounded(idle: Lab) -> None:
    with idle.daemon() as daemon:
        daemon.send_signal(signal.SIGSTOP)
        try:
            assert idle.cni("STATUS").answer["code"] == 50
        finally:
            daemon.send_signal(signal.SIGCONT)


def test_version_answers_without_daemon_or_stdin(idle: Lab) -> None:
    read, write = os.pipe()  # never written, never closed: who reads it hangs
    try:
        out = run("env", "CNI_COMMAND=VERSION", "build/weft-cni", stdin=read)
    finally:
        os.close(read)
        os.close(write)
    assert json.loads(out)["supportedVersions"][-1] == "1.1.0"


def test_no_command_at_all_gets_words_for_a_human(idle: Lab) -> None:
    outcome = idle.cni("")
    assert (outcome.code, outcome.answer) == (0, None)
    assert "1.1.0" in outcome.stderr


def test_an_unknown_command_is_an_error_that_says_it(idle: Lab) -> None:
    outcome = idle.cni("PATCH")
    assert (outcome.code, outcome.answer["code"]) == (1, 4)
    assert "PATCH" in outcome.answer["msg"]


def test_the_socket_is_its_owners_only(routed: Lab) -> None:
    assert (routed.folder / "cni.sock").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("version", ["0.3.1", "0.4.0", "1.0.0", "1.1.0"])
def test_the_result_is_in_the_version_of_the_configuration(routed: Lab, version: str) -> None:
    pod = routed.pod()
    added = routed.cni("ADD", pod, config={"cniVersion": version})
    assert added.answer["cniVersion"] == version
    assert added.answer["interfaces"][1]["sandbox"] == f"/run/netns/{pod}"
    assert RANGES[0].startswith(added.answer["ips"][0]["address"][:8])
