"""Fixtures of the packet tests: one load for all of them, empty tables for each."""

from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.packet.holding import with_hold_link
from tests.packet.runner import Node, loaded
from tests.packet.scene import ADDRESSES, Scene
from tests.packet.sockets import Sockets, hook
from tests.packet.wire import Wire, wired


@pytest.fixture(scope="session")
def node() -> Iterator[Node]:
    with loaded() as made:
        yield made


@pytest.fixture(params=[4, 6], ids=["ipv4", "ipv6"])
def scene(request: pytest.FixtureRequest, node: Node) -> Scene:
    """A node of its own for each test and family: settings written, nothing else known."""
    node.clear()
    made = Scene(node, ADDRESSES[request.param])
    made.settings()
    return made


@pytest.fixture
def held(scene: Scene) -> Scene:
    """A node with a hold link."""
    return with_hold_link(scene)


@pytest.fixture
def scene4(node: Node) -> Scene:
    """For what only IPv4 has."""
    node.clear()
    made = Scene(node, ADDRESSES[4])
    made.settings()
    return made


@pytest.fixture
def scene6(node: Node) -> Scene:
    """For what only IPv6 has."""
    node.clear()
    made = Scene(node, ADDRESSES[6])
    made.settings()
    return made


@pytest.fixture(scope="module")
def hooked(node: Node) -> Iterator[Node]:
    with hook(node) as made:
        yield made


@pytest.fixture(params=[4, 6], ids=["ipv4", "ipv6"])
def sockets(request: pytest.FixtureRequest, hooked: Node) -> Iterator[Sockets]:
    hooked.clear()
    with ExitStack() as stack:
        made = Sockets(hooked, request.param, stack)
        made.settings(host_netns=1)  # no namespace's: this process counts as a pod's
        yield made


@pytest.fixture(scope="module")
def wire(node: Node) -> Iterator[Wire]:
    with wired(node) as made:
        yield made
