"""Pods and the node itself as clients of Services at every kind of address, in both families, with
pods' sockets translated and without."""

import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from ipaddress import ip_interface
from typing import Any

import pytest

from deploy.netlab import Lab, LabNode, Pod, manifests
from deploy.netlab.manifests import Address
from deploy.netlab.shell import wait_for
from tests.netns.ask import Host, ask_echo
from tests.netns.conftest import assert_dump_equals_plan, lab_name

pytestmark = pytest.mark.long

PORT = 8080
NODE_PORT = 30080
VIPS = {4: "10.96.7.1", 6: "fd00:96::7:1"}
BALANCERS = {4: "198.51.100.1", 6: "2001:db8:100::1"}
EXTERNALS = {4: "203.0.113.1", 6: "2001:db8:113::1"}
LOOPBACKS = {4: "127.0.0.1", 6: "::1"}
RANGES = {4: "10.96.0.0/16", 6: "fd00:96::/108"}
OTHERS = {4: "10.96.7.99", 6: "fd00:96::7:99"}
NOBODYS = {4: "10.96.200.200", 6: "fd00:96::dead"}
LATER = {4: "172.30.0.77/24", 6: "fd00:30::77/64"}
TRIES = 20

# Asks PROTOCOL HOST PORT as often as said, by new sockets; prints each different answer once.
ASKING = """
import socket, sys
kind = {"tcp": socket.SOCK_STREAM, "udp": socket.SOCK_DGRAM}[sys.argv[1]]
family = socket.AF_INET6 if ":" in sys.argv[2] else socket.AF_INET
said = set()
for _ in range(int(sys.argv[4])):
    with socket.socket(family, kind) as s:
        s.settimeout(0.7)
        try:
            s.connect((sys.argv[2], int(sys.argv[3])))
            s.send(b"question\\n")
            said.add(s.recv(100).split()[0].decode())
        except TimeoutError:
            said.add("silence")
        except ConnectionRefusedError:
            said.add("refused")
        except PermissionError:
            said.add("denied")
print(*sorted(said))
"""


@dataclass(frozen=True, slots=True)
class Stage:
    """A client pod and a server `here` on east, a server `there` on west, one Service."""

    lab: Lab
    client: Pod
    servers: Mapping[str, Pod]

    @property
    def east(self) -> LabNode:
        return self.lab.nodes[0]

    def ask(self, who: str, protocol: str, host: str, port: int, tries: int = TRIES) -> set[str]:
        """What a client, `pod` or `node`, is answered by new sockets."""
        client: Pod | LabNode = self.client if who == "pod" else self.east
        argv = (sys.executable, "-c", ASKING, protocol, host, port, tries)
        return set(client.run(*map(str, argv)).split())

    def expect(
        self, answers: set[str], who: str, protocol: str, host: str, port: int, tries: int = TRIES
    ) -> None:
        """Soon, and no others."""
        said: set[str] = set()

        def is_so() -> bool:
            said.clear()
            said.update(self.ask(who, protocol, host, port, tries))
            return said == answers

        try:
            wait_for("", is_so, timeout_s=4)
        except TimeoutError:
            pytest.fail(f"{who} to {host} {port}/{protocol}: {said}, not {answers}")

    def places(self, version: int) -> list[tuple[str, int]]:
        """The external ones."""
        node = next(a for a in self.east.underlay if (":" in a) == (version == 6))
        own = str(ip_interface(node).ip)
        return [(own, NODE_PORT), (BALANCERS[version], 80), (EXTERNALS[version], 80)]

    def put(self, *endpoints: str, ready: bool = True, **spec: Any) -> None:
        """The Service with these of the servers behind it."""
        for version in (4, 6):
            self.lab.manifests.put(self._slice(version, endpoints, ready=ready))
        self.lab.manifests.put(service(spec))

    def _slice(self, version: int, endpoints: tuple[str, ...], *, ready: bool) -> dict[str, Any]:
        ports = [("tcp", "TCP", PORT), ("udp", "UDP", PORT)]
        manifest = dict(
            manifests.endpoint_slice(f"web-{version}", "default", "web", (), ports, version)
        )
        manifest["endpoints"] = [
            {
                "addresses": [str(self.servers[name].address(version))],
                "nodeName": {"here": "east", "there": "west"}[name],
                "conditions": {"ready": ready},
            }
            for name in endpoints
        ]
        return manifest


def service(spec: Mapping[str, Any]) -> dict[str, Any]:
    """A Service of every kind of address; `spec` says what else."""
    ports = [("tcp", "TCP", 80), ("udp", "UDP", 80)]
    manifest = dict(manifests.service("web", "default", list(VIPS.values()), ports))
    ingress = [{"ip": address} for address in BALANCERS.values()]
    exposed = {"type": "LoadBalancer", "externalIPs": list(EXTERNALS.values())}
    listed = [{**port, "nodePort": NODE_PORT} for port in manifest["spec"]["ports"]]
    manifest["spec"] = {**manifest["spec"], **exposed, "ports": listed, **spec}
    return manifest | {"status": {"loadBalancer": {"ingress": ingress}}}


@pytest.fixture(scope="module", params=["all", "node"], ids=lambda hook: f"hook-{hook}")
def stage(request: pytest.FixtureRequest) -> Iterator[Stage]:
    with Lab(lab_name()) as lab:
        east, west = lab.add_node("east"), lab.add_node("west")
        ranges = [ip_interface(address).network for address in LATER.values()]
        prefixes = ",".join(map(str, ranges))
        east.flags = ("--socket-hook", request.param, "--node-port-addresses", prefixes)
        lab.manifests.put(
            {
                "apiVersion": "networking.k8s.io/v1",
                "kind": "ServiceCIDR",
                "metadata": {"name": "kubernetes"},
                "spec": {"cidrs": list(RANGES.values())},
            }
        )
        for node in lab.nodes:
            node.start()
        servers = {"here": east.add_pod("here"), "there": west.add_pod("there")}
        for node, name in ((east, "here"), (west, "there")):
            node.serve(servers[name], PORT)
        yield Stage(lab, east.add_pod("client"), servers)


@pytest.fixture(autouse=True)
def law(stage: Stage) -> Iterator[None]:
    """After every test the kernel holds exactly the full plan."""
    yield
    for node in stage.lab.nodes:
        assert_dump_equals_plan(node)


PROTOCOLS = pytest.mark.parametrize("protocol", ["tcp", "udp"])
FAMILIES = pytest.mark.parametrize("version", [4, 6], ids=["ipv4", "ipv6"])
CLIENTS = pytest.mark.parametrize("who", ["pod", "node"])
BOTH = {"here", "there"}


@CLIENTS
@PROTOCOLS
@FAMILIES
@pytest.mark.parametrize("policy", ["Cluster", "Local"])
def test_clients_inside_reach_all_endpoints_at_every_address(
    stage: Stage, who: str, protocol: str, version: int, policy: str
) -> None:
    """Also those of externalTrafficPolicy Local: the short circuit."""
    stage.put("here", "there", externalTrafficPolicy=policy)
    for place in ((VIPS[version], 80), *stage.places(version)):
        stage.expect(BOTH, who, protocol, *place)


@PROTOCOLS
@FAMILIES
def test_a_node_port_at_the_loopback_is_the_nodes(
    stage: Stage, protocol: str, version: int
) -> None:
    stage.put("here", "there")
    stage.expect(BOTH, "node", protocol, LOOPBACKS[version], NODE_PORT)
    stage.expect({"refused"}, "pod", protocol, LOOPBACKS[version], NODE_PORT, 1)


@CLIENTS
@PROTOCOLS
@FAMILIES
def test_internal_policy_local_is_the_cluster_ips_alone(
    stage: Stage, who: str, protocol: str, version: int
) -> None:
    stage.put("here", "there", internalTrafficPolicy="Local")
    stage.expect({"here"}, who, protocol, VIPS[version], 80)
    for place in stage.places(version):
        stage.expect(BOTH, who, protocol, *place)


@PROTOCOLS
@FAMILIES
def test_where_endpoints_are_elsewhere_only_internal_policy_local_is_silent(
    stage: Stage, protocol: str, version: int
) -> None:
    stage.put("there", internalTrafficPolicy="Local")
    stage.expect({"silence"}, "pod", protocol, VIPS[version], 80, 1)
    nodes = {"tcp": "silence", "udp": "denied"}[protocol]
    stage.expect({nodes}, "node", protocol, VIPS[version], 80, 1)


@CLIENTS
@PROTOCOLS
@FAMILIES
def test_without_any_endpoint_every_address_refuses(
    stage: Stage, who: str, protocol: str, version: int
) -> None:
    stage.put("here", "there", ready=False, internalTrafficPolicy="Local")
    for place in ((VIPS[version], 80), *stage.places(version)):
        stage.expect({"refused"}, who, protocol, *place)


@PROTOCOLS
@FAMILIES
def test_source_ranges_hold_for_pods_at_the_load_balancers_address_alone(
    stage: Stage, protocol: str, version: int
) -> None:
    client = stage.client.address(version)
    host = f"{client}/{client.max_prefixlen}"
    stage.put("here", loadBalancerSourceRanges=["192.0.2.0/24", "2001:db8:dead::/48"])
    node_port, balancer, external = stage.places(version)
    stage.expect({"silence"}, "pod", protocol, *balancer, tries=1)
    for place in ((VIPS[version], 80), node_port, external):
        stage.expect({"here"}, "pod", protocol, *place, tries=3)
    stage.put("here", loadBalancerSourceRanges=["192.0.2.0/24", "2001:db8:dead::/48", host])
    stage.expect({"here"}, "pod", protocol, *balancer, tries=3)


@PROTOCOLS
@FAMILIES
def test_source_ranges_hold_for_the_node_by_its_own_address(
    stage: Stage, protocol: str, version: int
) -> None:
    balancer = stage.places(version)[1]
    stage.put("here", loadBalancerSourceRanges=["192.0.2.0/24", "2001:db8:dead::/48"])
    nodes = {"tcp": "silence", "udp": "denied"}[protocol]
    stage.expect({nodes}, "node", protocol, *balancer, tries=1)
    stage.put("here", loadBalancerSourceRanges=list(map(network, stage.east.underlay)))
    stage.expect({"here"}, "node", protocol, *balancer, tries=3)


def network(interface: str) -> str:
    return str(ip_interface(interface).network)


@CLIENTS
@PROTOCOLS
@FAMILIES
def test_a_client_with_affinity_gets_one_endpoint_by_all_addresses(
    stage: Stage, who: str, protocol: str, version: int
) -> None:
    stage.put("here", "there", sessionAffinity="ClientIP")
    vip = VIPS[version], 80
    wait_for("affinity", lambda: len(stage.ask(who, protocol, *vip)) == 1)
    (first,) = stage.ask(who, protocol, *vip)
    for place in (vip, *stage.places(version)):
        assert stage.ask(who, protocol, *place) == {first}
    (other,) = BOTH - {first}
    stage.put(other, sessionAffinity="ClientIP")
    stage.expect({other}, who, protocol, *vip)


@CLIENTS
@FAMILIES
def test_a_node_port_is_served_at_an_address_within_a_second_of_its_coming(
    stage: Stage, who: str, version: int
) -> None:
    stage.put("here")
    host = str(ip_interface(LATER[version]).ip)
    nodad = ("nodad",) if version == 6 else ()
    stage.expect({"here"}, who, "tcp", *stage.places(version)[0], tries=1)
    stage.east.run("ip", "addr", "add", LATER[version], "dev", "eth0", *nodad)
    try:
        came_s = time.monotonic()
        stage.expect({"here"}, who, "tcp", host, NODE_PORT, tries=1)
        assert time.monotonic() - came_s < 1
    finally:
        stage.east.run("ip", "addr", "del", LATER[version], "dev", "eth0")


@CLIENTS
@PROTOCOLS
@FAMILIES
def test_an_address_of_the_service_range_without_service_is_dropped(
    stage: Stage, who: str, protocol: str, version: int
) -> None:
    before = dropped(stage.east)
    denied = who == "node" and protocol == "udp"
    stage.expect({"denied" if denied else "silence"}, who, protocol, NOBODYS[version], 80, 1)
    assert dropped(stage.east) > before


@FAMILIES
def test_the_nodes_echoes_and_what_its_socket_hooks_do_not_see_leave_for_no_service(
    stage: Stage, version: int
) -> None:
    stage.put("here")
    places = [place[version] for place in (VIPS, BALANCERS, EXTERNALS)]
    wait_for("the echo", lambda: ask_echo(stage.client, places[0]), timeout_s=6)
    for place in places:
        assert ask_echo(stage.client, place)
        assert ask_echo(stage.east, place)
    before = dropped(stage.east)
    assert not ask_echo(stage.east, NOBODYS[version])
    assert dropped(stage.east) > before
    # Outside of the cgroups that are hooked.
    unhooked = Host(stage.east.namespace, stage.lab.cgroup)
    unserved = ("-c", ASKING, "tcp", VIPS[version], "81", "1")
    assert unhooked.run(sys.executable, *unserved).split() == ["refused"]


@FAMILIES
@CLIENTS
def test_another_proxys_service_is_reached_by_its_rules(
    stage: Stage, who: str, version: int
) -> None:
    """Its label leaves it to them: here, netfilter translates it to a pod of this node."""
    vip = OTHERS[version]
    ports = [("tcp", "TCP", 80)]
    manifest = dict(manifests.service("others", "default", [vip], ports))
    labels = {"service.kubernetes.io/service-proxy-name": "another"}
    manifest["metadata"] = {**manifest["metadata"], "labels": labels}
    stage.lab.manifests.put(manifest)
    try:
        stage.expect({"silence"}, who, "tcp", vip, 80, 1)
        stage.east.run("nft", translating(vip, stage.servers["here"].address(version)))
        stage.expect({"here"}, who, "tcp", vip, 80, 2)
    finally:
        stage.east.attempt("nft", "delete table inet another")
        stage.lab.manifests.remove("Service", "others", "default")


def translating(vip: str, to: Address) -> str:
    family, place = ("ip", f"{to}:{PORT}") if to.version == 4 else ("ip6", f"[{to}]:{PORT}")
    rule = f"{family} daddr {vip} tcp dport 80 dnat {family} to {place}"
    chains = (
        f"chain {hook} {{ type nat hook {hook} priority -100;\n{rule}\n}}\n"
        for hook in ("prerouting", "output")
    )
    return f"table inet another {{ {' '.join(chains)} }}"


def dropped(node: LabNode) -> int:
    """Packets that were for no Service of the range."""
    lines = [line.split() for line in node.weft("drops").splitlines()]
    return sum(int(words[2].replace(",", "")) for words in lines if words[0] == "no-service")
