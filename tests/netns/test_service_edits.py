"""Services that are edited while clients use them: each edit is in force at the next connection."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import pytest

from deploy.netlab import Lab, LabNode, Pod, manifests
from deploy.netlab.shell import wait_for
from tests.netns.ask import Asker
from tests.netns.conftest import assert_dump_equals_plan, lab_name

pytestmark = pytest.mark.long

PORT = 8080
VIPS = {4: "10.96.10.1", 6: "fd00:96::10:1"}
TRIES = 24
"""Two fair endpoints: one of them is missed in 24 draws once in ten million."""
HEADLESS = "service.kubernetes.io/headless"
PROXY_NAME = "service.kubernetes.io/service-proxy-name"


@dataclass(frozen=True, slots=True)
class Stage:
    lab: Lab
    node: LabNode
    servers: Mapping[str, Pod]
    clients: Mapping[str, Asker]

    def put(self, labels: Mapping[str, str] | None = None, **spec: Any) -> None:
        """The Service with these labels and fields."""
        port = [("tcp", "TCP", PORT), ("udp", "UDP", PORT)]
        manifest = dict(manifests.service("web", "default", list(VIPS.values()), port))
        manifest["metadata"] = {**manifest["metadata"], "labels": dict(labels or {})}
        self.lab.manifests.put(manifest | {"spec": {**manifest["spec"], **spec}})

    def put_slices(self, **labels: str) -> None:
        """Both servers behind it, in slices with these labels too."""
        port = [("tcp", "TCP", PORT), ("udp", "UDP", PORT)]
        for version in (4, 6):
            addresses = [pod.address(version) for pod in self.servers.values()]
            words = (f"web-{version}", "default", "web", addresses, port, version)
            piece = dict(manifests.endpoint_slice(*words))
            said = {**piece["metadata"]["labels"], **labels}
            piece["metadata"] = {**piece["metadata"], "labels": said}
            self.lab.manifests.put(piece)


@dataclass(frozen=True, slots=True)
class Caller:
    """One client, one family, one protocol."""

    client: Asker
    address: str
    udp: bool

    def answered(self, tries: int = TRIES) -> set[str]:
        """Who answers new connections; "" for nobody."""
        told = (
            self.client.ask(self.address, PORT, udp=self.udp, timeout_s=0.3) for _ in range(tries)
        )
        return {answer.server if answer else "" for answer in told}

    def becomes(self, what: str, holds: Callable[[set[str]], bool]) -> None:
        wait_for(what, lambda: holds(self.answered()))


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    with Lab(lab_name()) as lab:
        node = lab.add_node("east")
        node.start(timeout_s=300)
        servers = {name: node.add_pod(name) for name in ("first", "second")}
        for pod in servers.values():
            node.serve(pod, PORT)
        with closing(Asker(node.add_pod("client"))) as pod_client, closing(Asker(node)) as own:
            yield Stage(lab, node, servers, {"pod": pod_client, "node": own})


@pytest.fixture(params=["pod", "node"])
def who(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=[(4, False), (6, True)], ids=["ipv4-tcp", "ipv6-udp"])
def caller(request: pytest.FixtureRequest, stage: Stage, who: str) -> Iterator[Caller]:
    """Begins with both servers answering; after the test the kernel holds exactly the plan."""
    version, udp = request.param
    made = Caller(stage.clients[who], VIPS[version], udp)
    stage.put()
    stage.put_slices()
    made.becomes("both answer", lambda said: said == BOTH)
    yield made
    assert_dump_equals_plan(stage.node)


BOTH = {"first", "second"}


def test_affinity_comes_and_goes_with_the_field(stage: Stage, caller: Caller) -> None:
    stage.put(sessionAffinity="ClientIP")
    caller.becomes("one answers", lambda said: len(said) == 1 and said < BOTH)
    (kept,) = caller.answered()
    assert caller.answered() == {kept}
    stage.put(sessionAffinity="None")
    caller.becomes("both answer", lambda said: said == BOTH)


def test_slices_leave_with_the_label_of_headless_ones_and_come_back(
    stage: Stage, caller: Caller
) -> None:
    stage.put_slices(**{HEADLESS: ""})
    caller.becomes("nobody answers", lambda said: said == {""})
    stage.put_slices()
    caller.becomes("both answer", lambda said: said == BOTH)


def test_a_service_leaves_with_another_proxys_name_and_comes_back(
    stage: Stage, caller: Caller
) -> None:
    stage.put({PROXY_NAME: "another"})
    wait_for("nobody answers", lambda: caller.answered(2) == {""})
    stage.put()
    caller.becomes("both answer", lambda said: said == BOTH)


def test_a_service_that_becomes_a_name_is_served_no_more_until_it_is_none(
    stage: Stage, caller: Caller
) -> None:
    stage.put(type="ExternalName", externalName="example.org")
    wait_for("nobody answers", lambda: caller.answered(2) == {""})
    stage.put()
    caller.becomes("both answer", lambda said: said == BOTH)
