"""Links that lead outside come, go, change their addresses, and need no Ethernet."""

import json
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass

import pytest

from deploy.netlab import Lab, LabNode, Pod
from deploy.netlab.shell import attempt, run, wait_for
from tests.netns.ask import Host, ask, error_of
from tests.netns.conftest import lab_name
from tests.netns.outside import Talk, join, make_host, serve, set_up, tunnel

pytestmark = pytest.mark.long

PORT, CLOSED_PORT = 8080, 9
LINK = "eth1"
OWN = {4: "10.99.0.1", 6: "fd00:99::1"}
OTHER = {4: "10.99.0.9", 6: "fd00:99::9"}
PROVIDER = {4: "10.99.0.2", 6: "fd00:99::2"}
BITS = {4: 24, 6: 64}
HOST_BITS = {4: 32, 6: 128}
BEHIND = {4: "203.0.113.7", 6: "2001:db8:b::7"}
"""The provider's server, to which the node has a route."""
ELSEWHERE = {4: "203.0.113.8", 6: "2001:db8:b::8"}
"""Another of its addresses, to which only a policy route leads."""
AT_ONCE_S = 3
"""A second for the node, and time to ask on a busy machine."""

BOTH = pytest.mark.parametrize("version", [4, 6], ids=["ipv4", "ipv6"])


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with Lab(lab_name(), mode="vxlan") as made:
        made.add_node("east").start()
        yield made


@dataclass(frozen=True, slots=True)
class Stage:
    """A pod, and a provider that knows no pod's address."""

    lab: Lab
    pod: Pod
    provider: Host

    @property
    def node(self) -> LabNode:
        return self.lab.nodes[0]

    def ip(self, *words: str) -> None:
        run("ip", "-n", self.node.namespace, *words)

    def seen(self, address: str, *, udp: bool = False) -> str | None:
        """As whom the pod is seen by a server; None: it was not answered."""
        answer = ask(self.pod, address, PORT, udp=udp, timeout_s=0.5)
        return answer.seen if answer else None

    def await_seen(self, version: int, wanted: str, *, timeout_s: float = 15) -> None:
        where = BEHIND[version]
        what = f"{where} sees {wanted}"
        wait_for(what, lambda: self.seen(where) == wanted, timeout_s=timeout_s)

    def second_link(self) -> None:
        """An uplink beside the first: joined to the provider, a route to what is behind it."""
        join(self.node.namespace, LINK, tuple(f"{OWN[v]}/{BITS[v]}" for v in (4, 6)),
             self.provider.namespace, "eth0",
             tuple(f"{PROVIDER[v]}/{BITS[v]}" for v in (4, 6)))  # fmt: skip
        self.node.run("sysctl", "-qw", f"net.ipv4.conf.{LINK}.promote_secondaries=1")
        answer_from_behind(self.provider, "eth0", {4: "10.99.0.0/24", 6: "fd00:99::/64"})
        self.route()

    def route(self, link: str = LINK) -> None:
        for version in (4, 6):
            self.ip("route", "replace", BEHIND[version], "via", PROVIDER[version], "dev", link)

    def address(self, what: str, address: str) -> None:
        version = 6 if ":" in address else 4
        extra = ("nodad",) if what == "add" and version == 6 else ()
        self.ip("addr", what, f"{address}/{BITS[version]}", "dev", LINK, *extra)


def answer_from_behind(provider: Host, link: str, near: dict[int, str]) -> None:
    """A datagram's answer gets the address that the route to the client names."""
    for version, network in near.items():
        first = ("metric", "1") if version == 6 else ()
        run("ip", "-n", provider.namespace, "route", "replace", network, "dev", link,
            "src", BEHIND[version], *first)  # fmt: skip


@pytest.fixture(scope="module")
def alone(lab: Lab) -> Iterator[Stage]:
    """With the one uplink that was there at the start."""
    with ExitStack() as stack:
        provider = make_host(lab, stack, "provider")
        for addresses in (BEHIND, ELSEWHERE):
            hosts = tuple(f"{addresses[v]}/{HOST_BITS[v]}" for v in (4, 6))
            set_up(provider.namespace, "lo", hosts)
        serve(lab, stack, provider.namespace, "provider", PORT)
        serve(lab, stack, lab.switch, "outside", PORT)
        yield Stage(lab, lab.nodes[0].add_pod("client"), provider)


def settle(node: LabNode) -> None:
    """Until the daemon has heard of the last link's end."""
    wait_for(
        "the law", lambda: not json.loads(node.weft("dump", "-o", "json", check=False))["items"]
    )


@pytest.fixture
def stage(alone: Stage) -> Iterator[Stage]:
    """With a second uplink, which appears while the daemon runs."""
    try:
        alone.second_link()
        for version in (4, 6):
            alone.await_seen(version, OWN[version])
        yield alone
    finally:
        attempt("ip", "-n", alone.provider.namespace, "link", "del", "eth0")
        settle(alone.node)


@BOTH
def test_each_flow_leaves_with_the_address_of_its_link(stage: Stage, version: int) -> None:
    outside = stage.lab.outside[version == 6]
    own = stage.node.underlay[version == 6].split("/")[0]
    for udp in (False, True):
        assert stage.seen(BEHIND[version], udp=udp) == OWN[version]
        assert stage.seen(outside, udp=udp) == own


@BOTH
def test_a_policy_route_decides_whose_address_a_pod_gets(stage: Stage, version: int) -> None:
    family = f"-{version}"
    assert stage.seen(ELSEWHERE[version]) is None
    rule = ("from", str(stage.pod.address(version)), "lookup", "100")
    stage.ip("route", "add", "default", "via", PROVIDER[version], "dev", LINK, "table", "100")
    stage.ip(family, "rule", "add", *rule)
    try:
        assert stage.seen(ELSEWHERE[version]) == OWN[version]
    finally:
        stage.ip(family, "rule", "del", *rule)


@BOTH
def test_new_flows_get_the_address_that_took_anothers_place(stage: Stage, version: int) -> None:
    stage.address("add", OTHER[version])
    stage.address("del", OWN[version])
    stage.route()
    stage.await_seen(version, OTHER[version], timeout_s=AT_ONCE_S)
    stage.address("add", OWN[version])
    stage.address("del", OTHER[version])
    stage.route()
    stage.await_seen(version, OWN[version], timeout_s=AT_ONCE_S)


@BOTH
def test_flows_live_on_when_an_address_is_added(stage: Stage, version: int) -> None:
    with ExitStack() as stack:
        talk = Talk(stack, stage.pod, BEHIND[version], PORT, 20, kind="tcp")
        assert talk.connected == 20
        stage.address("add", OTHER[version])
        wait_for("the address", lambda: OTHER[version] in stage.node.run("ip", "addr"))
        for _ in range(3):
            assert talk.round() == 20
            assert stage.seen(BEHIND[version]) == OWN[version]


def test_a_temporary_address_is_not_chosen(stage: Stage) -> None:
    stage.node.run("sysctl", "-qw", f"net.ipv6.conf.{LINK}.use_tempaddr=2")
    stage.ip("addr", "add", f"{OTHER[6]}/64", "dev", LINK, "nodad", "mngtmpaddr")
    wait_for("a temporary address", lambda: temporary(stage) != "")
    stage.address("del", OWN[6])
    stage.await_seen(6, OTHER[6])


def temporary(stage: Stage) -> str:
    shown = ("ip", "-6", "addr", "show", "dev", LINK, "temporary", "-tentative")
    return stage.node.run(*shown)


def test_no_pods_address_leaves_where_the_link_has_none(stage: Stage) -> None:
    stage.address("del", OWN[4])
    stage.ip("route", "add", f"{PROVIDER[4]}/32", "dev", LINK)
    stage.route()
    assert stage.seen(BEHIND[4]) is None
    stage.address("add", OWN[4])
    stage.await_seen(4, OWN[4])


def test_a_link_under_another_name_is_the_same_uplink(stage: Stage) -> None:
    stage.ip("link", "set", LINK, "down")
    stage.ip("link", "set", LINK, "name", "wan0")
    set_up(stage.node.namespace, "wan0", (f"{OWN[6]}/64",))
    stage.route("wan0")
    for version in (4, 6):
        stage.await_seen(version, OWN[version])


def test_a_link_made_anew_is_an_uplink_again(stage: Stage) -> None:
    for _ in range(3):
        stage.ip("link", "del", LINK)
        stage.second_link()
        for version in (4, 6):
            stage.await_seen(version, OWN[version])


@BOTH
def test_a_link_without_ethernet_is_an_uplink_like_others(alone: Stage, version: int) -> None:
    near, far = {4: "10.88.0.1", 6: "fd00:88::1"}, {4: "10.88.0.2", 6: "fd00:88::2"}
    with ExitStack() as stack:
        tunnel(stack, alone.node.namespace, alone.provider.namespace, "tun0")
        for host, ends in ((alone.node, near), (alone.provider, far)):
            set_up(host.namespace, "tun0", (f"{ends[4]}/30", f"{ends[6]}/126"))
        inside = {4: "10.88.0.0/30", 6: "fd00:88::/126"}
        answer_from_behind(alone.provider, "tun0", inside)
        alone.ip("route", "add", BEHIND[version], "via", far[version])
        alone.await_seen(version, near[version])
        assert alone.seen(BEHIND[version], udp=True) == near[version]
        alone.pod.run("ping", "-c", "1", "-W", "2", BEHIND[version])
        alone.pod.run("ping", "-c", "1", "-W", "2", "-s", "3000", BEHIND[version])
        said = error_of(alone.pod, BEHIND[version], CLOSED_PORT, udp=True)
        assert "ConnectionRefusedError" in said
        # The links with Ethernet are read as before.
        assert alone.seen(alone.lab.outside[version == 6]) is not None
    settle(alone.node)
