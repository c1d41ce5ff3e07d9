"""CHECK, GC, STATUS, VERSION, and what the shim says on its own."""

import json
import os
import signal
import time
from pathlib import Path

import pytest

from tests.netns.cni_lab import RANGES, Lab, Outcome, details, lab, run

pytest_plugins = ["tests.netns.cni_fixtures"]


def test_check_accepts_what_add_made_and_names_what_was_broken(node: Lab) -> None:
    pod = node.pod()
    result = {"prevResult": node.cni("ADD", pod).answer}
    assert node.cni("CHECK", pod, config=result) == Outcome(0, None, "")
    run("ip", "-n", pod, "address", "del", result["prevResult"]["ips"][0]["address"], "dev", "eth0")
    broken = node.cni("CHECK", pod, config=result)
    assert broken.answer["code"] == 109
    assert "eth0 lacks 10.77.0.2" in details(broken)


@pytest.mark.parametrize("mode", ["routed", "bridge"])
def test_check_accepts_routes_that_say_less_than_the_link(tmp_path: Path, mode: str) -> None:
    with lab(tmp_path, mode) as node:
        node.config["routeMtu"] = 1450
        with node.daemon():
            pod = node.pod()
            result = {"prevResult": node.cni("ADD", pod).answer}
            assert result["prevResult"]["interfaces"][1]["mtu"] == 1500
            assert node.cni("CHECK", pod, config=result) == Outcome(0, None, "")
            for family, outside, inside in (
                ("-4", "192.0.2.1", "10.77.0.9"),
                ("-6", "2001:db8::1", "fd77::9"),
            ):
                (beyond,) = node.ip(family, "route", "get", outside, ns=pod)
                (within,) = node.ip(family, "route", "get", inside, ns=pod)
                assert beyond["metrics"] == [{"mtu": 1450}]
                assert "mtu" not in within.get("metrics", [{}])[0]


def test_check_notices_a_missing_host_route(routed: Lab) -> None:
    pod = routed.pod()
    result = {"prevResult": routed.cni("ADD", pod).answer}
    run("ip", "-n", routed.node, "route", "del", "10.77.0.2")
    assert "route to 10.77.0.2" in details(routed.cni("CHECK", pod, config=result))


def test_check_of_an_unknown_container_says_so(routed: Lab) -> None:
    pod = routed.pod()
    result = {"prevResult": routed.cni("ADD", pod).answer}
    assert routed.cni("CHECK", pod, "c9", config=result).answer["code"] == 3


@pytest.mark.parametrize("config", [{}, {"prevResult": None}])
def test_check_without_a_previous_result_is_an_invalid_configuration(
    routed: Lab, config: dict[str, object]
) -> None:
    refused = routed.cni("CHECK", routed.pod(), config=config)
    assert refused.answer["code"] == 7
    assert "required prevResult missing" in details(refused)


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
