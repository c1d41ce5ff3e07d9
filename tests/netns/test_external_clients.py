"""Clients outside at the addresses that a Service has for them: node ports, a load balancer's."""

from collections.abc import Iterator

import pytest

from deploy.netlab import Lab
from tests.netns.ask import ask, error_of
from tests.netns.exposed import BALANCERS, LOCAL_NODE_PORT, NODE_PORT, PORT, Stage, exposed

pytestmark = pytest.mark.long

BOTH = pytest.mark.parametrize("version", [4, 6], ids=["ipv4", "ipv6"])
KINDS = pytest.mark.parametrize("udp", [False, True], ids=["tcp", "udp"])


@pytest.fixture(scope="module")
def stage(lab: Lab) -> Iterator[Stage]:
    with exposed(lab) as made:
        yield made


@BOTH
@KINDS
@pytest.mark.parametrize("node", [0, 1], ids=["east", "west"])
def test_a_node_port_of_any_node_reaches_every_endpoint(
    stage: Stage, version: int, udp: bool, node: int
) -> None:
    """And each sees the client, unless no tunnel leads from the entry node to it."""
    address = stage.own(node, version)
    answers = stage.answers(address, NODE_PORT, udp=udp)
    assert {a.server for a in answers} == {"here", "there"}
    near = ("here", "there")[node]
    kept = {a.server for a in answers if a.seen == stage.lab.outside[version == 6]}
    assert kept == ({near} if stage.lab.mode == "direct" else {"here", "there"})
    assert {a.seen for a in answers if a.server not in kept} <= {address}


@BOTH
@KINDS
def test_a_load_balancers_address_is_answered_by_the_node_that_it_leads_to(
    stage: Stage, version: int, udp: bool
) -> None:
    assert stage.servers(BALANCERS[version], PORT, udp=udp) == {"here", "there"}


@BOTH
@KINDS
def test_of_policy_local_a_node_without_endpoint_is_silent(
    stage: Stage, version: int, udp: bool
) -> None:
    address = stage.own(1, version)
    assert stage.servers(address, LOCAL_NODE_PORT, udp=udp) == {"there"}
    answer = ask(stage.client, address, LOCAL_NODE_PORT, udp=udp)
    assert answer is not None
    assert answer.seen == stage.lab.outside[version == 6]
    silent = error_of(stage.client, stage.own(0, version), LOCAL_NODE_PORT, udp=udp)
    assert "timed out" in silent.lower()
