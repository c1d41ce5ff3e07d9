"""ADD by the real shim and the real server, in namespaces."""

import os
import signal
import subprocess
from pathlib import Path

from tests.netns.cni_lab import (
    Lab,
    addresses,
    details,
    finish,
    lab,
    nothing_left,
    pings,
    run,
    wait_until,
)

pytest_plugins = ["tests.netns.cni_fixtures"]


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


def test_a_namespace_whose_ipv6_was_switched_off_gets_its_ipv6_address(node: Lab) -> None:
    pod = node.pod()
    run("ip", "netns", "exec", pod, "sysctl", "-w", "net.ipv6.conf.all.disable_ipv6=1")
    for address in addresses(node.cni("ADD", pod)):
        assert pings(node.node, address)


def test_the_daemon_needs_no_capability_but_net_admin(idle: Lab) -> None:
    with idle.daemon("setpriv", "--inh-caps=-all", "--bounding-set=-all,+net_admin"):
        pod = idle.pod()
        for address in addresses(idle.cni("ADD", pod)):
            assert pings(idle.node, address)
        assert idle.cni("DEL", pod).code == 0
        assert nothing_left(idle)


def test_a_pod_in_a_user_namespace_of_its_own_is_wired(idle: Lab) -> None:
    """Its network namespace belongs to that user namespace (Kubernetes: hostUsers: false)."""
    pod = subprocess.Popen(["unshare", "-Urn", "sleep", "60"])
    try:
        path = Path(f"/proc/{pod.pid}/ns/net")
        own = os.readlink("/proc/self/ns/net")
        wait_until("the pod has its namespace", lambda: os.readlink(path) != own)
        with idle.daemon("setpriv", "--inh-caps=-all", "--bounding-set=-all,+net_admin"):
            added = idle.cni("ADD", "x", CNI_NETNS=str(path))
            for address in addresses(added):
                assert pings(idle.node, address)
            assert idle.cni("DEL", "x", CNI_NETNS=str(path)).code == 0
    finally:
        pod.kill()
        pod.wait()


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
