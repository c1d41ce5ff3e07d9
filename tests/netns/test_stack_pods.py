"""Pods that need the node's stack: meshes that redirect inside, shaping, chained plugins, VMs."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from deploy.netlab import Lab, LabNode, Pod, manifests
from deploy.netlab.shell import run, stop, wait_for
from tests.netns.chained import BANDWIDTH, PORTMAP, TOOLS, Chain

pytestmark = pytest.mark.long

BULK, MESH = (Path(__file__).with_name(name) for name in ("bulk.py", "mesh.py"))
PORT, VIP_PORT, MESH_PORT, HOST_PORT = 8080, 80, 15001, 30080
VIPS = {4: "10.96.3.1", 6: "fd00:10:96::3:1"}
RATE_BITS, STREAM_BYTES = 10_000_000, 2_500_000
SHAPED = {"kubernetes.io/ingress-bandwidth": "10M", "kubernetes.io/egress-bandwidth": "10M"}
SHAPE = {
    "ingressRate": RATE_BITS, "ingressBurst": 1_000_000,
    "egressRate": RATE_BITS, "egressBurst": 1_000_000,
}  # fmt: skip
RUNTIME = {
    "portMappings": [{"hostPort": HOST_PORT, "containerPort": PORT, "protocol": "tcp"}],
    "bandwidth": SHAPE,
}
REDIRECT = f"""
table inet mesh {{
  chain output {{
    type nat hook output priority -100;
    ip daddr {VIPS[4]} tcp dport {VIP_PORT} redirect to :{MESH_PORT}
    ip6 daddr {VIPS[6]} tcp dport {VIP_PORT} redirect to :{MESH_PORT}
  }}
}}
"""

needs_plugins = pytest.mark.skipif(
    TOOLS is None, reason="no cnitool in the lab cache: `make lab-binaries` builds it"
)


@pytest.fixture(scope="module", params=["auto", "bridge"])
def mode(request: pytest.FixtureRequest) -> str:
    """Both ways in which a pod's link meets its node, and in which nodes reach each other."""
    return str(request.param)


@pytest.fixture(params=[4, 6], ids=["ipv4", "ipv6"])
def version(request: pytest.FixtureRequest) -> int:
    return int(request.param)


@dataclass
class Stage:
    lab: Lab
    stack: ExitStack
    pods: dict[str, Pod] = field(default_factory=dict)

    @property
    def east(self) -> LabNode:
        return self.lab.nodes[0]

    def start(self, pod: Pod, script: Path, port: int) -> None:
        ready = self.lab.folder / f"{pod.name}-{port}.ready"
        ready.unlink(missing_ok=True)
        process = subprocess.Popen(pod.command(sys.executable, script, "serve", str(port), ready))
        self.stack.callback(stop, process)
        wait_for(f"{pod.name} serves", ready.exists)

    def workload(self, name: str) -> dict[str, object]:
        said = json.loads(self.east.weft("workloads", "-o", "json"))["items"]
        return next(item for item in said if item["name"] == name)

    def reasons(self, name: str) -> list[str]:
        found = self.workload(name).get("stack", [])
        assert isinstance(found, list)
        return found

    def link(self, name: str) -> str:
        return str(self.workload(name)["link"])


@pytest.fixture(scope="module")
def stage(lab: Lab) -> Iterator[Stage]:
    with ExitStack() as stack:
        stage = Stage(lab, stack)
        stage.pods["here"] = lab.nodes[0].add_pod("here")
        stage.pods["there"] = lab.nodes[1].add_pod("there")
        for name, pod in stage.pods.items():
            lab.nodes[name == "there"].serve(pod, PORT + 1)
            stage.start(pod, BULK, PORT)
        publish(stage, "there")
        yield stage


def publish(stage: Stage, backend: str) -> None:
    """The VIPs lead to the pod that answers with its name."""
    ports = [("tcp", "TCP", VIP_PORT)]
    service = manifests.service("meshed", "default", list(VIPS.values()), ports)
    slices = [
        manifests.endpoint_slice(
            f"meshed-{version}", "default", "meshed", stage.pods[backend].addresses,
            [("tcp", "TCP", PORT + 1)], version,
        )
        for version in (4, 6)
    ]  # fmt: skip
    stage.lab.manifests.put(service, *slices)
    last = stage.pods["here"]
    wait_for("the service", lambda: ask(last, VIPS[6], VIP_PORT).startswith(backend))


def ask(pod: Pod, address: str, port: int) -> str:
    return pod.attempt(sys.executable, MESH, "ask", address, str(port)).stdout.strip()


def mesh(stage: Stage, pod: Pod) -> None:
    """A proxy in the pod, and netfilter that leads what goes to the VIPs to it."""
    stage.start(pod, MESH, MESH_PORT)
    rules = stage.lab.folder / "mesh.nft"
    rules.write_text(REDIRECT)
    pod.run("nft", "-f", rules)


# --- meshes -------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "mark",
    [("weft.dev/socket-hook", "off"), ("sidecar.istio.io/status", "{}"),
     ("ambient.istio.io/redirection", "enabled"), ("linkerd.io/proxy-version", "stable-2.14")],
    ids=lambda mark: mark[0].split("/")[0],
)  # fmt: skip
def test_a_mesh_in_the_pod_sees_the_vip_that_was_dialled(
    stage: Stage, mark: tuple[str, str]
) -> None:
    name = f"mesh-{mark[0].split('.')[0]}"
    pod = stage.east.add_pod(name, annotations=dict([mark]))
    assert ask(pod, VIPS[4], VIP_PORT).startswith("there")
    mesh(stage, pod)
    for vip in VIPS.values():
        assert ask(pod, vip, VIP_PORT) == f"{vip} {VIP_PORT}"
    stage.east.delete_pod(name)


def test_without_the_mark_the_socket_is_translated_and_with_it_at_once_no_more(
    stage: Stage, version: int
) -> None:
    name = f"plain{version}"
    pod = stage.east.add_pod(name)
    mesh(stage, pod)
    assert ask(pod, VIPS[version], VIP_PORT).startswith("there")
    put(stage, pod, {"weft.dev/socket-hook": "off"})
    wait_for(
        "the mesh to see the VIP",
        lambda: ask(pod, VIPS[version], VIP_PORT) == f"{VIPS[version]} {VIP_PORT}",
    )
    assert stage.workload(name)["ownSockets"] is True
    put(stage, pod, {})
    wait_for("the backend", lambda: ask(pod, VIPS[version], VIP_PORT).startswith("there"))


def put(stage: Stage, pod: Pod, annotations: Mapping[str, str]) -> None:
    """What the API says of a pod of the east node from now on."""
    words = (pod.name, "default", pod.uid, "east", pod.addresses)
    stage.lab.manifests.put(manifests.pod(*words, {"pod": pod.name}, annotations))


# --- shaping ------------------------------------------------------------------------------------
def rate_bits(sender: Pod, address: str, port: int = PORT) -> float:
    """What a stream of STREAM_BYTES gets through, in bits per second."""
    started_s = time.monotonic()
    said = sender.run(sys.executable, BULK, "tcp", address, str(port), str(STREAM_BYTES))
    assert said.startswith("ok "), said
    return STREAM_BYTES * 8 / (time.monotonic() - started_s)


def is_limited(rate: float) -> bool:
    """The burst and the start of the interpreter make the stream a little faster or slower."""
    return 0.4 * RATE_BITS < rate < 1.5 * RATE_BITS


@pytest.fixture(scope="module")
def chain(stage: Stage) -> Chain:
    return Chain(stage.east, PORTMAP, BANDWIDTH)


@pytest.fixture(scope="module")
def shaped(stage: Stage, chain: Chain) -> Iterator[Pod]:
    """A pod behind the bandwidth plugin with a port of its node."""
    pod = chain.add("shaped", RUNTIME, SHAPED)
    stage.start(pod, BULK, PORT)
    yield pod
    chain.delete(pod, RUNTIME)
    links = stage.east.run("ip", "-o", "link")
    assert "bwp" not in links
    assert not [item for item in json.loads(stage.east.weft("workloads", "-o", "json"))["items"]
                if item["name"] == "shaped"]  # fmt: skip


@needs_plugins
@pytest.mark.parametrize("peer", ["here", "there"])
def test_the_bandwidth_plugin_limits_both_directions(
    stage: Stage, shaped: Pod, version: int, peer: str
) -> None:
    other = stage.pods[peer]
    assert is_limited(rate_bits(other, str(shaped.address(version))))
    assert is_limited(rate_bits(shaped, str(other.address(version))))
    assert "bandwidth annotation" in stage.reasons("shaped")


@needs_plugins
def test_a_shaped_pod_reaches_services_and_obeys_policies(
    stage: Stage, shaped: Pod, version: int
) -> None:
    assert ask(shaped, VIPS[version], VIP_PORT).startswith("there")
    here = stage.pods["here"]
    target = str(shaped.address(version)), str(PORT), "100"
    isolate(stage, "shaped-in", shaped)
    wait_for("the isolation", lambda: "ok" not in bulk(here, *target))
    stage.lab.manifests.remove("NetworkPolicy", "shaped-in", "default")
    wait_for("the end of it", lambda: "ok" in bulk(here, *target))


def bulk(pod: Pod, *words: str) -> str:
    return pod.attempt(sys.executable, BULK, "tcp", *words).stdout


def isolate(stage: Stage, name: str, pod: Pod) -> None:
    """Nobody reaches the pod: a policy of no rule. Lab pods are told apart by a label."""
    put(stage, pod, SHAPED)
    policy = {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"podSelector": {"matchLabels": {"pod": pod.name}}, "policyTypes": ["Ingress"]},
    }
    stage.lab.manifests.put(policy)


@needs_plugins
def test_a_port_of_the_node_leads_to_the_pod_from_outside_and_from_other_pods(
    stage: Stage, shaped: Pod, version: int
) -> None:
    node = stage.east.underlay[version == 6].split("/")[0]
    for pod in stage.pods.values():
        assert bulk(pod, node, str(HOST_PORT), "1000") == f"ok {node}\n"
    enter = ["nsenter", f"--net=/run/netns/{stage.lab.switch}"]
    words = [sys.executable, str(BULK), "tcp", node, str(HOST_PORT), "1000"]
    done = subprocess.run([*enter, *words], capture_output=True, text=True, timeout=30)
    assert done.stdout == f"ok {node}\n"


@needs_plugins
def test_pods_keep_what_they_need_when_the_daemon_starts_again(stage: Stage, shaped: Pod) -> None:
    pod = stage.east.add_pod("meshed-still", annotations={"weft.dev/socket-hook": "off"})
    mesh(stage, pod)
    stage.east.kill()
    stage.east.start()
    wait_for("the daemon to know all", lambda: "bandwidth annotation" in stage.reasons("shaped"))
    wait_for("every row", lambda: not json.loads(stage.east.weft("dump", "-o", "json"))["items"])
    assert ask(pod, VIPS[4], VIP_PORT) == f"{VIPS[4]} {VIP_PORT}"
    assert is_limited(rate_bits(shaped, str(stage.pods["there"].address(4))))
    assert is_limited(rate_bits(stage.pods["there"], str(shaped.address(4))))
    stage.east.delete_pod(pod.name)


def test_a_shaper_that_comes_later_is_obeyed_while_it_is_there(stage: Stage) -> None:
    pod, other = stage.east.add_pod("late"), stage.pods["there"]
    stage.start(pod, BULK, PORT)
    link, address = stage.link("late"), str(pod.address(4))
    assert stage.reasons("late") == []
    stage.east.run("tc", "qdisc", "add", "dev", link, "root", "tbf", "rate", f"{RATE_BITS}bit",
                   "burst", "125kb", "latency", "50ms")  # fmt: skip
    wait_for("the reason", lambda: stage.reasons("late") == ["qdisc tbf on its link"])
    assert is_limited(rate_bits(other, address))
    stage.east.run("tc", "qdisc", "del", "dev", link, "root")
    wait_for("no reason", lambda: stage.reasons("late") == [])
    assert rate_bits(other, address) > 2 * RATE_BITS
    stage.east.delete_pod("late")


# --- by hand, and virtual machines --------------------------------------------------------------
def sent_packets(stage: Stage, link: str) -> int:
    """By the pod's host end: what is redirected passes by it."""
    said = json.loads(stage.east.run("ip", "-j", "-s", "link", "show", link))
    return int(said[0]["stats64"]["tx"]["packets"])


@pytest.mark.parametrize("redirect", ["off", "on"])
def test_packets_take_the_stack_of_a_pod_that_wants_it(
    stage: Stage, version: int, redirect: str
) -> None:
    name = f"redirect-{redirect}{version}"
    pod = stage.east.add_pod(name, annotations={"weft.dev/redirect": redirect})
    stage.start(pod, BULK, PORT)
    link = stage.link(name)
    before = sent_packets(stage, link)
    for other in stage.pods.values():
        assert bulk(other, str(pod.address(version)), str(PORT), "1000").startswith("ok")
    assert (sent_packets(stage, link) - before >= 6) is (redirect == "off")
    stage.east.delete_pod(name)


@contextmanager
def guest_of(pod: Pod) -> Iterator[list[str]]:
    """A guest that has the pod's addresses and MAC, tied to its link; how to run words in it."""
    guest = f"{pod.namespace}-guest"
    (link,) = json.loads(pod.run("ip", "-j", "link", "show", "eth0"))
    routes = [json.loads(pod.run("ip", "-j", f"-{v}", "route", "show", "default")) for v in (4, 6)]
    neighbours = json.loads(pod.run("ip", "-j", "neigh", "show", "nud", "permanent"))
    run("ip", "netns", "add", guest)
    try:
        pod.run("ip", "addr", "flush", "dev", "eth0", "scope", "global")
        pod.run("ip", "link", "add", "tap0", "type", "veth", "peer", "name", "eth0",
                "address", link["address"], "mtu", str(link["mtu"]), "netns", guest)  # fmt: skip
        pod.run("ip", "link", "set", "tap0", "mtu", str(link["mtu"]), "up")
        for one, other in (("eth0", "tap0"), ("tap0", "eth0")):
            pod.run("tc", "qdisc", "add", "dev", one, "ingress")
            words = "protocol all u32 match u32 0 0 action mirred egress redirect dev"
            where = ("dev", one, "parent", "ffff:")
            pod.run("tc", "filter", "add", *where, *words.split(), other)
        inside = ("ip", "-n", guest)
        run(*inside, "link", "set", "eth0", "up")
        for address, (route,) in zip(pod.addresses, routes, strict=True):
            run(*inside, "addr", "add", f"{address}/{address.max_prefixlen}", "dev", "eth0",
                "nodad")  # fmt: skip
            for one in neighbours:
                run(*inside, "neigh", "replace", one["dst"], "lladdr", one["lladdr"], "dev", "eth0")
            run(*inside, "route", "add", "default", "via", route["gateway"], "dev", "eth0",
                "onlink")  # fmt: skip
        yield ["nsenter", f"--net=/run/netns/{guest}"]
    finally:
        run("ip", "netns", "del", guest)


def test_a_virtual_machine_behind_the_pods_link_has_its_network(stage: Stage, version: int) -> None:
    """As Kata's tcfilter: the pod's link and the guest's are tied by mirred, one MAC for both."""
    pod = stage.east.add_pod(f"vm{version}")
    here = str(stage.pods["here"].address(version))
    with guest_of(pod) as enter:
        for address, port in ((here, PORT + 1), (VIPS[version], VIP_PORT)):
            words = [*enter, sys.executable, str(MESH), "ask", address, str(port)]
            done = subprocess.run(words, capture_output=True, text=True, timeout=30)
            assert done.stdout.startswith(("here", "there")), done
    assert stage.reasons(pod.name) == []
    stage.east.delete_pod(pod.name)
