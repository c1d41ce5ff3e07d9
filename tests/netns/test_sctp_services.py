"""Services over SCTP, which netfilter translates: every kind of client at every kind of address, in
both families, with endpoints here, there, on the nodes themselves, and none.
"""

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from ipaddress import ip_interface
from pathlib import Path
from typing import Any

import pytest

from deploy.netlab import Lab, LabNode, Pod, manifests
from deploy.netlab.shell import stop, wait_for
from tests.netns.ask import Host
from tests.netns.conftest import assert_dump_equals_plan, lab_name

pytestmark = pytest.mark.long

SCTP = Path(__file__).with_name("sctp.py")
PORT, TARGET, NODE_PORT = 38412, 9899, 30_100
VIPS = {4: "10.96.6.1", 6: "fd00:10:96::6:1"}
BALANCERS = {4: "198.51.100.60", 6: "2001:db8:f::60"}
ONE_MODE = pytest.mark.parametrize("stage", ["vxlan"], indirect=True)
FAMILIES = pytest.mark.parametrize("version", [4, 6], ids=["ipv4", "ipv6"])


@dataclass(frozen=True, slots=True)
class Stage:
    """Servers: the pods `client` and `here` on east, `there` on west, and both nodes."""

    lab: Lab
    pods: dict[str, Pod]
    outside: Host

    @property
    def east(self) -> LabNode:
        return self.lab.nodes[0]

    def own(self, node: LabNode, version: int) -> str:
        return str(ip_interface(node.underlay[version == 6]).ip)

    def gateway(self, version: int) -> str:
        return str(ip_interface(self.east.pod_cidrs[version == 6]).network[1])

    def put(self, *endpoints: str, **spec: Any) -> None:
        for version in (4, 6):
            piece = dict(
                manifests.endpoint_slice(
                    f"amf-{version}", "default", "amf", (), [("s", "SCTP", TARGET)], version
                )
            )
            piece["endpoints"] = [self._endpoint(name, version) for name in endpoints]
            self.lab.manifests.put(piece)
        service = dict(
            manifests.service("amf", "default", list(VIPS.values()), [("s", "SCTP", PORT)])
        )
        ports = [{**service["spec"]["ports"][0], "nodePort": NODE_PORT}]
        service["spec"] = {**service["spec"], "type": "LoadBalancer", "ports": ports, **spec}
        ingress = [{"ip": address} for address in BALANCERS.values()]
        self.lab.manifests.put({**service, "status": {"loadBalancer": {"ingress": ingress}}})

    def _endpoint(self, name: str, version: int) -> dict[str, Any]:
        nodes = {node.name: node for node in self.lab.nodes}
        node = {"there": "west", "west": "west"}.get(name, "east")
        pod = self.pods.get(name)
        address = str(pod.address(version)) if pod else self.own(nodes[name], version)
        return {"addresses": [address], "nodeName": node, "conditions": {"ready": True}}

    def ask(
        self, who: Pod | LabNode | Host, address: str, port: int, times: int = 1, *more: int
    ) -> set[str]:
        words = map(str, (address, port, times, *more))
        return set(who.run(sys.executable, SCTP, "ask", *words).splitlines())

    def expect(
        self,
        answers: set[str],
        who: Pod | LabNode | Host,
        address: str,
        port: int,
        times: int = 2,
    ) -> None:
        """Soon, and no others."""
        said: set[str] = set()

        def is_so() -> bool:
            said.clear()
            said.update(self.ask(who, address, port, times))
            return said == answers

        try:
            wait_for("", is_so, timeout_s=10)
        except TimeoutError:
            pytest.fail(f"to {address} {port}: {said}, not {answers}")

    def label(self, name: str, **labels: str) -> None:
        pod = self.pods[name]
        node = "west" if name == "there" else "east"
        self.lab.manifests.put(manifests.pod(name, "default", pod.uid, node, pod.addresses, labels))


@pytest.fixture(scope="module", params=["vxlan", "direct", "bridge"])
def stage(request: pytest.FixtureRequest) -> Iterator[Stage]:
    with Lab(lab_name(), mode=request.param) as lab, ExitStack() as stack:
        east, west = lab.add_node("east"), lab.add_node("west")
        for node in lab.nodes:
            node.start(timeout_s=120)
        pods = {"client": east.add_pod("client"), "here": east.add_pod("here")}
        pods["there"] = west.add_pod("there")
        servers: dict[str, Pod | LabNode] = {**pods, "east": east, "west": west}
        for name, who in servers.items():
            serve(stack, who, name, lab.folder / f"{name}.ready")
        yield Stage(lab, pods, Host(lab.switch, lab.cgroup))


def serve(stack: ExitStack, who: Pod | LabNode, name: str, ready: Path) -> None:
    argv = who.command(sys.executable, SCTP, "serve", name, str(TARGET), ready)
    process = subprocess.Popen(argv)
    stack.callback(lambda: stop(process))
    wait_for(f"{name} serves", ready.exists, timeout_s=30)


@pytest.fixture(autouse=True)
def law(stage: Stage) -> Iterator[None]:
    """After every test the kernel holds exactly the full plan."""
    yield
    for node in stage.lab.nodes:
        assert_dump_equals_plan(node)


@FAMILIES
@pytest.mark.parametrize("endpoint", ["here", "there", "client", "east", "west"])
def test_every_client_reaches_an_endpoint_wherever_it_is(
    stage: Stage, version: int, endpoint: str
) -> None:
    """And who keeps its address keeps it: a client whose answer comes back by this node."""
    stage.put(endpoint)
    client, east, west = stage.pods["client"], *stage.lab.nodes
    own, vip = stage.own(east, version), VIPS[version]
    kept = str(client.address(version))
    seen = {"client": stage.gateway(version), "west": own}.get(endpoint, kept)
    stage.expect({f"{endpoint} {seen}"}, client, vip, PORT)
    stage.expect({f"{endpoint} {seen}"}, client, own, NODE_PORT)
    stage.expect({f"{endpoint} {seen}"}, client, BALANCERS[version], PORT)
    by_tunnel = endpoint == "there" and stage.lab.mode != "direct"
    stage.expect({f"{endpoint} {stage.gateway(version) if by_tunnel else own}"}, east, vip, PORT)
    outside = stage.lab.outside[version == 6]
    past_east = endpoint == "west" or (endpoint == "there" and not by_tunnel)
    stage.expect({f"{endpoint} {own if past_east else outside}"}, stage.outside, own, NODE_PORT)
    node = stage.gateway(version) if by_tunnel else own if past_east else stage.own(west, version)
    stage.expect({f"{endpoint} {node}"}, west, own, NODE_PORT)


@ONE_MODE
@FAMILIES
def test_every_endpoint_gets_its_share(stage: Stage, version: int) -> None:
    stage.put("here", "there", "east", "west")
    own = stage.own(stage.east, version)

    def servers(who: Pod | Host, address: str, port: int) -> set[str]:
        return {answer.split()[0] for answer in stage.ask(who, address, port, 12)}

    everyone = {"here", "there", "east", "west"}
    wait_for(
        "all", lambda: servers(stage.pods["client"], VIPS[version], PORT) == everyone, timeout_s=20
    )
    wait_for("all", lambda: servers(stage.outside, own, NODE_PORT) == everyone, timeout_s=20)


@ONE_MODE
@FAMILIES
def test_without_an_endpoint_every_client_is_refused(stage: Stage, version: int) -> None:
    stage.put()
    own = stage.own(stage.east, version)
    for who in (stage.pods["client"], stage.east):
        stage.expect({"refused"}, who, VIPS[version], PORT)
        stage.expect({"refused"}, who, VIPS[version], PORT + 1)
        stage.expect({"refused"}, who, own, NODE_PORT)
    stage.expect({"refused"}, stage.outside, own, NODE_PORT)


@ONE_MODE
@FAMILIES
def test_policy_local_is_silent_to_the_outside_without_an_endpoint_here(
    stage: Stage, version: int
) -> None:
    stage.put("there", externalTrafficPolicy="Local", internalTrafficPolicy="Local")
    own = stage.own(stage.east, version)
    stage.expect({"silence"}, stage.outside, own, NODE_PORT, times=1)
    stage.expect({"silence"}, stage.pods["client"], VIPS[version], PORT, times=1)
    stage.expect({"silence"}, stage.east, VIPS[version], PORT, times=1)
    (answer,) = stage.ask(stage.pods["client"], own, NODE_PORT)
    assert answer.split()[0] == "there"


@ONE_MODE
@FAMILIES
def test_source_ranges_hold_at_the_load_balancers_address_alone(stage: Stage, version: int) -> None:
    ranges = ["192.0.2.0/24", "2001:db8:dead::/48"]
    client = stage.pods["client"]
    kept = f"here {client.address(version)}"
    stage.put("here", loadBalancerSourceRanges=ranges)
    stage.expect({"silence"}, client, BALANCERS[version], PORT, times=1)
    stage.expect({"silence"}, stage.east, BALANCERS[version], PORT, times=1)
    stage.expect({kept}, client, VIPS[version], PORT)
    host = client.address(version)
    stage.put("here", loadBalancerSourceRanges=[*ranges, f"{host}/{host.max_prefixlen}"])
    stage.expect({kept}, client, BALANCERS[version], PORT)


@ONE_MODE
@FAMILIES
def test_a_client_with_affinity_keeps_its_endpoint_until_that_goes(
    stage: Stage, version: int
) -> None:
    stage.put("here", "there", sessionAffinity="ClientIP")
    client, vip = stage.pods["client"], VIPS[version]
    own = stage.own(stage.east, version)
    wait_for("affinity", lambda: len(stage.ask(client, vip, PORT, 6)) == 1)
    (first,) = stage.ask(client, vip, PORT, 6)
    assert stage.ask(client, own, NODE_PORT, 6) == {first}
    assert stage.ask(client, BALANCERS[version], PORT, 6) == {first}
    (other,) = {"here", "there"} - {first.split()[0]}
    stage.put(other, sessionAffinity="ClientIP")
    stage.expect({f"{other} {client.address(version)}"}, client, vip, PORT, times=6)


@ONE_MODE
@FAMILIES
def test_tcp_udp_and_sctp_of_one_number_are_three_services(stage: Stage, version: int) -> None:
    ports = [{"name": n, "protocol": n.upper(), "port": PORT} for n in ("tcp", "udp")]
    listed = [*ports, {"name": "s", "protocol": "SCTP", "port": PORT}]
    stage.put("here", type="ClusterIP", ports=listed)
    client, vip = stage.pods["client"], VIPS[version]
    stage.expect({f"here {client.address(version)}"}, client, vip, PORT)
    asked = client.attempt("bash", "-c", f"exec 3<>/dev/tcp/{vip}/{PORT}")
    assert "refused" in asked.stderr.lower()
    stage.put("here", type="ClusterIP", ports=ports)
    stage.expect({"refused"}, client, vip, PORT)


@FAMILIES
@pytest.mark.parametrize("endpoint", ["here", "there", "east"])
def test_egress_is_judged_by_the_endpoint_that_netfilter_chose(
    stage: Stage, version: int, endpoint: str
) -> None:
    stage.put(endpoint)
    client, vip = stage.pods["client"], VIPS[version]
    stage.label("client", app="client")
    stage.expect({f"{endpoint} {client.address(version)}"}, client, vip, PORT)
    stage.lab.manifests.put(policy("Egress", {"app": "client"}, egress=[]))
    stage.expect({"silence"}, client, vip, PORT, times=1)
    address = stage._endpoint(endpoint, version)["addresses"][0]
    to = [{"ipBlock": {"cidr": f"{address}/{32 if version == 4 else 128}"}}]
    ports = [{"protocol": "SCTP", "port": TARGET}]
    allowed = policy("Egress", {"app": "client"}, egress=[{"to": to, "ports": ports}])
    stage.lab.manifests.put(allowed)
    stage.expect({f"{endpoint} {client.address(version)}"}, client, vip, PORT)
    stage.lab.manifests.remove("NetworkPolicy", "only", "default")


@ONE_MODE
@FAMILIES
def test_ingress_is_judged_by_who_the_client_is(stage: Stage, version: int) -> None:
    stage.put("here")
    client, vip = stage.pods["client"], VIPS[version]
    stage.label("client", app="client")
    stage.label("here", app="here")
    stage.lab.manifests.put(policy("Ingress", {"app": "here"}, ingress=[]))
    stage.expect({"silence"}, client, vip, PORT, times=1)
    stage.expect({"silence"}, stage.outside, stage.own(stage.east, version), NODE_PORT, times=1)
    stage.expect({f"here {stage.own(stage.east, version)}"}, stage.east, vip, PORT)
    who = [{"podSelector": {"matchLabels": {"app": "client"}}}]
    stage.lab.manifests.put(policy("Ingress", {"app": "here"}, ingress=[{"from": who}]))
    stage.expect({f"here {client.address(version)}"}, client, vip, PORT)
    stage.expect({"silence"}, stage.outside, stage.own(stage.east, version), NODE_PORT, times=1)
    stage.lab.manifests.remove("NetworkPolicy", "only", "default")


def policy(kind: str, labels: dict[str, str], **rules: Any) -> dict[str, Any]:
    spec = {"podSelector": {"matchLabels": labels}, "policyTypes": [kind], **rules}
    metadata = {"name": "only", "namespace": "default"}
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": metadata,
        "spec": spec,
    }


@ONE_MODE
def test_a_flushed_ruleset_is_back_within_two_seconds(stage: Stage) -> None:
    stage.put("here")
    client = stage.pods["client"]
    stage.expect({f"here {client.address(4)}"}, client, VIPS[4], PORT)
    before = stage.east.run("nft", "list", "ruleset")
    stage.east.run("nft", "flush", "ruleset")
    flushed_s = time.monotonic()
    wait_for(
        "the rules",
        lambda: "weft-sctp" in stage.east.run("nft", "list", "tables"),
        timeout_s=10,
    )
    assert time.monotonic() - flushed_s < 2
    stage.expect({f"here {client.address(4)}"}, client, VIPS[4], PORT)
    assert sorted(stage.east.run("nft", "list", "ruleset").split()) == sorted(before.split())


@ONE_MODE
def test_the_service_is_listed_with_its_endpoints(stage: Stage) -> None:
    stage.put("here", "there")
    wait_for("listed", lambda: stage.east.weft("services", "amf").count(" done") >= 10)
    shown = stage.east.weft("services", "amf")
    assert f"{VIPS[4]}:{PORT}" in shown
    assert "SCTP" in shown
    assert "pending" not in shown
