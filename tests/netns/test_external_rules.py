"""Who outside may reach a Service, where, and what the others are told, in both families."""

import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from ipaddress import ip_interface
from typing import Any

import pytest

from deploy.netlab import Lab, LabNode, Pod, manifests
from deploy.netlab.shell import run, wait_for
from tests.netns.ask import Asker, Host, error_of
from tests.netns.conftest import assert_dump_equals_plan, lab_name
from tests.netns.outside import serve

pytestmark = pytest.mark.long

PORT, NODE_PORT = 8080, 30_095
VIPS = {4: "10.96.5.1", 6: "fd00:10:96::5:1"}
BALANCERS = {4: "198.51.100.50", 6: "2001:db8:f::50"}
EXTERNALS = {4: "203.0.113.50", 6: "2001:db8:e::50"}
LATER = {4: "172.30.0.88/24", 6: "fd00:30::88/64"}
ELSEWHERE = ["192.0.2.0/24", "2001:db8:dead::/48"]
BOTH = {"here", "there"}
TRIES = 24


@dataclass(frozen=True, slots=True)
class Stage:
    """Two nodes with a server each; the client is the switch, whose routes lead to the first."""

    lab: Lab
    client: Host
    asker: Asker
    pods: dict[str, Pod]

    @property
    def east(self) -> LabNode:
        return self.lab.nodes[0]

    def own(self, version: int) -> str:
        return str(ip_interface(self.east.underlay[version == 6]).ip)

    def places(self, version: int) -> dict[str, tuple[str, int]]:
        return {
            "node port": (self.own(version), NODE_PORT),
            "load balancer": (BALANCERS[version], PORT),
            "external ip": (EXTERNALS[version], PORT),
            "cluster ip": (VIPS[version], PORT),
        }

    def answered(self, place: tuple[str, int], *, udp: bool, tries: int = TRIES) -> set[str]:
        """Who answers new connections of one client; "" for nobody."""
        told = (self.asker.ask(*place, udp=udp, timeout_s=0.4) for _ in range(tries))
        return {answer.server if answer else "" for answer in told}

    def becomes(
        self, answers: set[str], place: tuple[str, int], *, udp: bool = False, tries: int = TRIES
    ) -> None:
        """Soon, and no others."""
        what = f"{place} answered by {answers}"
        wait_for(what, lambda: self.answered(place, udp=udp, tries=tries) == answers, timeout_s=30)

    def refuses(self, place: tuple[str, int], *, udp: bool) -> None:
        said = f"{place} refuses"
        wait_for(said, lambda: "refused" in error_of(self.client, *place, udp=udp).lower())

    def put(self, *names: str, **spec: Any) -> None:
        """The Service at every kind of address, with these servers."""
        ports = [("tcp", "TCP", PORT), ("udp", "UDP", PORT)]
        for version in (4, 6):
            piece = dict(manifests.endpoint_slice(f"web-{version}", "default", "web", (), ports,
                                                  version))  # fmt: skip
            piece["endpoints"] = [
                {
                    "addresses": [str(self.pods[name].address(version))],
                    "nodeName": {"here": "east", "there": "west"}[name],
                    "conditions": {"ready": True},
                }
                for name in names
            ]
            self.lab.manifests.put(piece)
        service = dict(manifests.service("web", "default", list(VIPS.values()), ports))
        listed = [{**one, "nodePort": NODE_PORT} for one in service["spec"]["ports"]]
        exposed = {"type": "LoadBalancer", "externalIPs": list(EXTERNALS.values()), "ports": listed}
        service["spec"] = {**service["spec"], **exposed, **spec}
        ingress = [{"ip": address} for address in BALANCERS.values()]
        self.lab.manifests.put(service | {"status": {"loadBalancer": {"ingress": ingress}}})


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    prefixes = ",".join(str(ip_interface(address).network) for address in LATER.values())
    with Lab(lab_name()) as lab, ExitStack() as stack:
        east, west = lab.add_node("east"), lab.add_node("west")
        for node in lab.nodes:
            node.flags = ("--node-port-addresses", prefixes)
            node.start(timeout_s=300)
        pods = {"here": east.add_pod("here"), "there": west.add_pod("there")}
        for name, pod in pods.items():
            serve(lab, stack, pod.namespace, name, PORT)
        client = Host(lab.switch, lab.cgroup)
        asker = stack.enter_context(closing(Asker(client)))
        made = Stage(lab, client, asker, pods)
        for version in (4, 6):
            for address in (BALANCERS[version], EXTERNALS[version], VIPS[version]):
                route = ("route", "add", address, "via", made.own(version))
                run("ip", "-n", lab.switch, *route)
        yield made


@pytest.fixture(autouse=True)
def law(stage: Stage) -> Iterator[None]:
    """Each test begins with both servers reached; after it the kernel holds exactly the plan."""
    stage.put("here", "there")
    for version in (4, 6):
        stage.becomes(BOTH, stage.places(version)["node port"])
    yield
    for node in stage.lab.nodes:
        assert_dump_equals_plan(node)


FAMILIES = pytest.mark.parametrize("version", [4, 6], ids=["ipv4", "ipv6"])
PROTOCOLS = pytest.mark.parametrize("udp", [False, True], ids=["tcp", "udp"])


@FAMILIES
@PROTOCOLS
def test_every_address_leads_to_every_endpoint(stage: Stage, version: int, udp: bool) -> None:
    for place in stage.places(version).values():
        assert stage.answered(place, udp=udp) == BOTH


@FAMILIES
@PROTOCOLS
def test_source_ranges_hold_at_the_load_balancers_address_alone(
    stage: Stage, version: int, udp: bool
) -> None:
    places = stage.places(version)
    balancer = places.pop("load balancer")
    stage.put("here", "there", loadBalancerSourceRanges=ELSEWHERE)
    stage.becomes({""}, balancer, udp=udp, tries=1)
    assert "timed out" in error_of(stage.client, *balancer, udp=udp).lower()
    for place in places.values():
        assert stage.answered(place, udp=udp) == BOTH
    own = f"{stage.lab.outside[version == 6]}/{32 if version == 4 else 128}"
    stage.put("here", "there", loadBalancerSourceRanges=[*ELSEWHERE, own])
    stage.becomes(BOTH, balancer, udp=udp)


@FAMILIES
@PROTOCOLS
def test_without_endpoints_every_address_refuses_at_once(
    stage: Stage, version: int, udp: bool
) -> None:
    stage.put()
    for place in stage.places(version).values():
        stage.refuses(place, udp=udp)


@FAMILIES
@PROTOCOLS
def test_policy_local_keeps_to_the_node_and_is_silent_where_that_has_none(
    stage: Stage, version: int, udp: bool
) -> None:
    places = stage.places(version)
    del places["cluster ip"]
    stage.put("here", "there", externalTrafficPolicy="Local")
    for place in places.values():
        stage.becomes({"here"}, place, udp=udp)
    stage.put("there", externalTrafficPolicy="Local")
    for place in places.values():
        stage.becomes({""}, place, udp=udp, tries=1)
    balancer = places["load balancer"]
    assert "timed out" in error_of(stage.client, *balancer, udp=udp).lower()


@FAMILIES
@PROTOCOLS
def test_a_client_outside_with_affinity_keeps_its_endpoint_at_every_address(
    stage: Stage, version: int, udp: bool
) -> None:
    places = stage.places(version)
    stage.put("here", "there", sessionAffinity="ClientIP")
    first = places["node port"]
    wait_for("one answers", lambda: len(stage.answered(first, udp=udp)) == 1)
    (kept,) = stage.answered(first, udp=udp)
    for place in places.values():
        assert stage.answered(place, udp=udp) == {kept}
    (other,) = BOTH - {kept}
    stage.put(other, sessionAffinity="ClientIP")
    stage.becomes({other}, first, udp=udp)


@FAMILIES
def test_a_node_port_is_at_an_address_within_a_second_of_its_coming(
    stage: Stage, version: int
) -> None:
    address = LATER[version]
    place = str(ip_interface(address).ip), NODE_PORT
    nodad = ("nodad",) if version == 6 else ()
    stage.east.run("ip", "addr", "add", address, "dev", "eth0", *nodad)
    try:
        came_s = time.monotonic()
        wait_for("the node port", lambda: stage.answered(place, udp=False, tries=1) <= BOTH)
        assert time.monotonic() - came_s < 1
    finally:
        stage.east.run("ip", "addr", "del", address, "dev", "eth0")
