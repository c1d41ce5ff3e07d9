"""The node's links as the source tells them, in a namespace of the test's own."""

import ctypes
import re
import subprocess
import threading
from collections.abc import Callable, Iterator
from ipaddress import ip_address, ip_network

import pytest

from deploy.netlab.shell import wait_for
from weft.bpf.clsact import POD_BLOCK
from weft.proxy.model.objects import Kind, Link, Shaping
from weft.proxy.model.world import Key, Record
from weft.proxy.watch.events import Event, Listed, Moved
from weft.proxy.watch.netlink import Netlink

POD_LINKS = re.compile(r"weft[0-9a-f]{11}")
POD_LINK = "weft0123456789a"
PROTOCOL, POD_PROTOCOL = 88, 87
_CLONE_NEWNET = 0x40000000


class Node:
    """A namespace and the source in it. Its thread is the only one that may change it."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.suspects: list[str] = []
        self.source = Netlink(
            self.events.append, self.suspects.append, POD_LINKS, POD_BLOCK, PROTOCOL, POD_PROTOCOL
        )

    def ip(self, *words: str) -> None:
        subprocess.run(["ip", *words], check=True, capture_output=True)

    def uplink(self) -> Link:
        """up0, which must be known."""
        found = self.link("up0")
        assert found is not None
        return found

    def link(self, name: str) -> Link | None:
        """What was said of a link last."""
        found = self._last(Kind.LINK, name)
        assert found is None or isinstance(found, Link)
        return found

    def qdiscs(self, link: str) -> tuple[str, ...]:
        """What was said last of others' qdiscs on a pod's link."""
        found = self._last(Kind.SHAPING, link)
        return found.qdiscs if isinstance(found, Shaping) else ()

    def _last(self, kind: Kind, name: str) -> Record | None:
        known: dict[Key, Record | None] = {}
        for event in list(self.events):
            if isinstance(event, Listed) and event.kind is kind:
                known = {**event.records}
            elif isinstance(event, Moved) and event.kind is kind:
                known[event.key] = event.record
        return known.get(name)


Story = Callable[[Node], None]


def play(story: Story) -> None:
    """Run `story` in a new namespace, which goes with its thread."""
    failures: list[BaseException] = []

    def run() -> None:
        try:
            assert ctypes.CDLL(None, use_errno=True).unshare(_CLONE_NEWNET) == 0
            node = Node()
            node.ip("link", "add", "up0", "type", "veth", "peer", "name", "far0")
            node.source.start()
            wait_for("the list", lambda: bool(node.events))
            try:
                story(node)
            finally:
                node.source.stop()
        except BaseException as failure:
            failures.append(failure)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if failures:
        raise failures[0]


@pytest.fixture(autouse=True)
def no_namespace_stays() -> Iterator[None]:
    before = threading.active_count()
    yield
    wait_for("the source's thread to end", lambda: threading.active_count() <= before)


def test_links_are_listed_with_mtu_and_addresses() -> None:
    def story(node: Node) -> None:
        node.ip("link", "set", "up0", "mtu", "1400")
        node.ip("addr", "add", "192.0.2.1/24", "dev", "up0")
        node.ip("addr", "add", "2001:db8::1/64", "dev", "up0", "nodad")
        wanted = {ip_address("192.0.2.1"), ip_address("2001:db8::1")}
        wait_for("both addresses", lambda: set(node.uplink().addresses) == wanted)
        networks = {ip_network("192.0.2.0/24"), ip_network("2001:db8::/64")}
        assert set(node.uplink().networks) == networks
        assert node.uplink().mtu_bytes == 1400
        assert not node.uplink().default_route

    play(story)


def test_a_default_route_makes_an_uplink_and_its_end_unmakes_it() -> None:
    def story(node: Node) -> None:
        node.ip("addr", "add", "192.0.2.1/24", "dev", "up0")
        for name in ("up0", "far0"):
            node.ip("link", "set", name, "up")
        node.ip("route", "add", "default", "via", "192.0.2.254")
        wait_for("the uplink", lambda: node.uplink().default_route)
        node.ip("route", "del", "default")
        wait_for("no uplink", lambda: not node.uplink().default_route)

    play(story)


def test_a_link_that_goes_is_gone() -> None:
    def story(node: Node) -> None:
        node.ip("link", "del", "up0")
        wait_for("the end", lambda: node.link("up0") is None)

    play(story)


def test_pods_links_and_their_addresses_are_nobodys_business() -> None:
    def story(node: Node) -> None:
        node.ip("link", "add", POD_LINK, "type", "veth", "peer", "name", "pod0")
        node.ip("addr", "add", "10.0.0.1/32", "dev", POD_LINK)
        node.ip("link", "set", POD_LINK, "up")
        node.ip("link", "add", "last0", "type", "veth", "peer", "name", "last1")
        wait_for("what came after", lambda: node.link("last0") is not None)
        assert node.link(POD_LINK) is None

    play(story)


def test_a_route_of_ours_that_another_hand_takes_is_suspected() -> None:
    def story(node: Node) -> None:
        node.ip("link", "set", "up0", "up")
        node.ip("route", "add", "10.9.0.0/24", "dev", "up0", "proto", str(PROTOCOL))
        wait_for("the route", lambda: "routes" in node.suspects)
        node.suspects.clear()
        node.ip("route", "del", "10.9.0.0/24")
        wait_for("the loss", lambda: "routes" in node.suspects)

    play(story)


def test_a_pods_route_that_another_hand_takes_is_suspected() -> None:
    def story(node: Node) -> None:
        make_pod(node)
        node.ip("route", "del", "10.0.0.1/32")
        wait_for("the loss", lambda: "pod routes" in node.suspects)

    play(story)


def test_a_pod_that_goes_with_its_link_is_no_theft() -> None:
    def story(node: Node) -> None:
        make_pod(node)
        node.ip("link", "del", POD_LINK)
        node.ip("link", "add", "last0", "type", "veth", "peer", "name", "last1")
        wait_for("what came after", lambda: node.link("last0") is not None)
        assert "pod routes" not in node.suspects

    play(story)


def test_what_others_hang_on_a_pods_link_is_said_while_it_is_there() -> None:
    def story(node: Node) -> None:
        make_pod(node)
        tc("qdisc", "add", "dev", POD_LINK, "root", "tbf", "rate", "1mbit", "burst", "9k",
           "latency", "9ms")  # fmt: skip
        wait_for("the shaper", lambda: node.qdiscs(POD_LINK) == ("tbf",))
        tc("qdisc", "add", "dev", POD_LINK, "ingress")
        wait_for("both", lambda: node.qdiscs(POD_LINK) == ("ingress", "tbf"))
        tc("qdisc", "del", "dev", POD_LINK, "ingress")
        wait_for("the shaper alone", lambda: node.qdiscs(POD_LINK) == ("tbf",))
        node.ip("link", "del", POD_LINK)
        wait_for("the end", lambda: node.qdiscs(POD_LINK) == ())

    play(story)


def test_our_own_qdisc_on_a_pods_link_is_no_shaper_and_its_loss_is_suspected() -> None:
    def story(node: Node) -> None:
        make_pod(node)
        tc("qdisc", "add", "dev", POD_LINK, "ingress_block", str(POD_BLOCK), "clsact")
        tc("qdisc", "add", "dev", "up0", "clsact")
        node.ip("link", "set", "up0", "mtu", "1400")
        wait_for("what came after", lambda: node.uplink().mtu_bytes == 1400)
        assert node.qdiscs(POD_LINK) == ()
        assert "hooks" not in node.suspects
        tc("qdisc", "del", "dev", POD_LINK, "clsact")
        wait_for("the suspicion", lambda: "hooks" in node.suspects)

    play(story)


def tc(*words: str) -> None:
    subprocess.run(["tc", *words], check=True, capture_output=True)


def make_pod(node: Node) -> None:
    node.ip("link", "add", POD_LINK, "type", "veth", "peer", "name", "pod0")
    node.ip("link", "set", POD_LINK, "up")
    node.ip("route", "add", "10.0.0.1/32", "dev", POD_LINK, "proto", str(POD_PROTOCOL))


def test_routes_of_others_are_not_suspected() -> None:
    def story(node: Node) -> None:
        node.ip("link", "set", "up0", "up")
        wait_for("the link", lambda: "links" in node.suspects)
        node.ip("route", "add", "10.9.0.0/24", "dev", "up0", "proto", "static")
        node.ip("link", "set", "up0", "mtu", "1400")
        wait_for("the MTU", lambda: node.uplink().mtu_bytes == 1400)
        # A link that changes may have taken routes along, so both are looked at.
        assert node.suspects.count("routes") == node.suspects.count("links")

    play(story)
