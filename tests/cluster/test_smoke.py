"""The first look at a real cluster: do pods, Services, names, probes and policies work in it?

Every wait has a limit and a condition. What is asked for is the API's promise, so the same tests
run on the reference network, but for policies and Weft's own daemon.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from ipaddress import ip_address

import pytest

from deploy.lab import host, spec, switch
from deploy.lab.node import CLUSTER_DNS4, CLUSTER_DNS6
from tests.cluster import daemon, policies
from tests.cluster.pods import (
    HTTP_PORT,
    UDP_PORT,
    Manifest,
    caller,
    find,
    pod_manifest,
    service_manifest,
)
from tests.cluster.scene import NAMESPACE, SERVICE, Scene

pytestmark = pytest.mark.usefixtures("central_law")
both_families = pytest.mark.parametrize("family", [4, 6])
both_protocols = pytest.mark.parametrize("protocol", ["http", "udp"])
PORTS = {"http": HTTP_PORT, "udp": UDP_PORT}
SERVICE_PORTS = {"http": 80, "udp": UDP_PORT}


@both_families
@both_protocols
@pytest.mark.parametrize(
    ("client", "server"), [("alpha", "beta"), ("alpha", "gamma"), ("gamma", "alpha")]
)
def test_pods_reach_each_other_and_see_the_others_own_address(
    scene: Scene, client: str, server: str, protocol: str, family: int
) -> None:
    near, far = getattr(scene, client), getattr(scene, server)
    target = (far.address(family), PORTS[protocol], protocol)
    assert near.ask(*target, "hostname") == [server]
    assert [caller(seen) for seen in near.ask(*target, "clientip")] == [near.address(family)]


@both_families
@both_protocols
def test_a_service_answers_from_all_its_endpoints(scene: Scene, protocol: str, family: int) -> None:
    port = SERVICE_PORTS[protocol]
    for client in (scene.alpha, scene.gamma):
        answers = client.ask(scene.vip(family), port, protocol, "hostname", tries=40)
        assert set(answers) == {"alpha", "beta", "gamma"}
        assert len(answers) == 40


@both_families
def test_a_service_with_nothing_behind_it_refuses_at_once(scene: Scene, family: int) -> None:
    scene.api.apply([service_manifest(NAMESPACE, "nobody", {"app": "nobody"})])
    vips = scene.api.get("service", f"--namespace={NAMESPACE}", "nobody")["spec"]["clusterIPs"]
    vip = next(ip for ip in map(ip_address, vips) if ip.version == family)

    def is_refused() -> bool:
        return scene.alpha.connect_error(vip, 80) == "REFUSED"

    _until(scene, "a connection to nobody is refused", is_refused)


@both_families
def test_a_node_reaches_pods_here_and_there_and_services(scene: Scene, family: int) -> None:
    targets = [(pod.address(family), HTTP_PORT) for pod in (scene.alpha, scene.gamma)]
    targets.append((scene.vip(family), 80))
    for node in scene.nodes.values():
        for address, port in targets:
            name = f"[{address}]" if family == 6 else str(address)
            url = f"http://{name}:{port}/hostname"
            assert node.run("curl", "-sS", "--max-time", "5", url) in ("alpha", "beta", "gamma")


@pytest.mark.parametrize("server", [CLUSTER_DNS4, CLUSTER_DNS6], ids=["ipv4", "ipv6"])
@pytest.mark.parametrize("transport", ["+notcp", "+tcp"])
def test_names_of_services_resolve_to_their_addresses(
    scene: Scene, server: object, transport: str
) -> None:
    name = f"{SERVICE}.{NAMESPACE}.svc.cluster.local"
    for pod in (scene.alpha, scene.gamma):
        for family, kind in ((4, "A"), (6, "AAAA")):
            answer = pod.run("dig", "+short", transport, f"@{server}", name, kind)
            assert answer.split() == [str(scene.vip(family))]


def test_a_pods_own_resolver_finds_services_and_the_outside(scene: Scene) -> None:
    for pod in (scene.alpha, scene.gamma):
        url = f"http://{SERVICE}/hostname"
        assert pod.run("curl", "-sS", "--max-time", "10", url) in ("alpha", "beta", "gamma")
        outside = pod.run("dig", "+short", spec.OUTSIDE_NAME, "A")
        assert outside.split() == [str(spec.OUTSIDE4)]


def test_a_pod_speaks_to_the_api_server_through_its_service(scene: Scene) -> None:
    account = "/var/run/secrets/kubernetes.io/serviceaccount"
    script = (
        f"curl -sS --max-time 10 --cacert {account}/ca.crt"
        f' -H "Authorization: Bearer $(cat {account}/token)" https://kubernetes.default/version'
    )
    for pod in (scene.alpha, scene.gamma):
        assert json.loads(pod.run("sh", "-c", script))["gitVersion"].startswith("v1.")


@both_families
@both_protocols
def test_what_a_pod_sends_outside_bears_its_nodes_address(
    scene: Scene, protocol: str, family: int
) -> None:
    outside = spec.OUTSIDE4 if family == 4 else spec.OUTSIDE6
    port = switch.OUTSIDE_PORT if protocol == "http" else switch.OUTSIDE_UDP_PORT
    for pod in (scene.alpha, scene.gamma):
        own = scene.nodes[pod.node].node.address
        seen = pod.ask(outside, port, protocol, "clientip")
        assert [caller(s) for s in seen] == [own.v4 if family == 4 else own.v6]


def test_no_probe_of_a_ready_pod_failed(scene: Scene) -> None:
    for pod in (scene.alpha, scene.beta, scene.gamma):
        status = scene.api.get("pod", f"--namespace={NAMESPACE}", pod.name)["status"]
        assert [c["ready"] for c in status["containerStatuses"]] == [True]
        assert [c["restartCount"] for c in status["containerStatuses"]] == [0]


@pytest.mark.usefixtures("weft")
@both_families
@pytest.mark.parametrize("protocol", ["tcp", "udp"])
def test_a_default_deny_cuts_and_an_allow_restores(
    scene: Scene, protocol: str, family: int
) -> None:
    port = HTTP_PORT if protocol == "tcp" else UDP_PORT
    target = (scene.gamma.address(family), port, protocol)
    assert scene.alpha.reaches(*target)
    with _policy(scene, policies.default_deny(NAMESPACE)):
        _until(scene, "gamma is closed to alpha", lambda: not scene.alpha.reaches(*target))
        assert not scene.beta.reaches(*target)
        with _policy(scene, policies.allow_from(NAMESPACE, to="gamma", peer="alpha")):
            _until(scene, "gamma is open to alpha", lambda: scene.alpha.reaches(*target))
            assert not scene.beta.reaches(*target)
        _until(scene, "gamma is closed again", lambda: not scene.alpha.reaches(*target))
    _until(scene, "gamma is open to all", lambda: scene.beta.reaches(*target))


@pytest.mark.usefixtures("weft")
def test_a_pod_that_nobody_may_reach_still_answers_its_own_nodes_probes(scene: Scene) -> None:
    with _policy(scene, policies.default_deny(NAMESPACE)):
        scene.api.apply([pod_manifest(NAMESPACE, "closed", scene.gamma.node, {"app": "closed"})])
        scene.api.wait(f"-n {NAMESPACE} pod/closed", "condition=Ready", timeout_s=60)
        closed = find(scene.api, NAMESPACE, "closed")
        for family in (4, 6):
            assert not scene.gamma.reaches(closed.address(family), HTTP_PORT)
    scene.api.run("delete", "pod", "closed", f"--namespace={NAMESPACE}", "--now")


@pytest.mark.usefixtures("weft")
def test_killing_the_daemon_fails_no_connection_and_opens_no_policy(scene: Scene) -> None:
    scene.api.apply([pod_manifest(NAMESPACE, "shut", scene.gamma.node, {"app": "shut"})])
    scene.api.wait(f"-n {NAMESPACE} pod/shut", "condition=Ready", timeout_s=60)
    shut = find(scene.api, NAMESPACE, "shut")
    with _policy(scene, policies.default_deny(NAMESPACE, pod="shut")):
        closed = (shut.address(4), HTTP_PORT)
        _until(scene, "shut is closed", lambda: not scene.alpha.reaches(*closed))
        traffic = daemon.Traffic.start(scene.alpha, scene.vip(4), scene.vip(6), closed[0])
        traffic.wait_moving()
        before = daemon.restarts(scene.api)
        assert set(before) == set(scene.nodes)
        for node in scene.nodes.values():
            daemon.kill(scene.api, node)
        daemon.wait_back(scene.api, before)
        traffic.wait_moving()
        result = traffic.stop()
    assert result.failures == ()
    assert result.opened == 0
    assert result.answered > 50
    scene.api.run("delete", "pod", "shut", f"--namespace={NAMESPACE}", "--now")


@contextmanager
def _policy(scene: Scene, manifest: Manifest) -> Iterator[None]:
    """The policy is in the API while the block runs."""
    scene.api.apply([manifest])
    try:
        yield
    finally:
        name = manifest["metadata"]["name"]
        scene.api.run("delete", "networkpolicy", name, f"--namespace={NAMESPACE}")


def _until(scene: Scene, what: str, holds: Callable[[], bool]) -> None:
    host.wait_until(what, holds, timeout_s=20, where=scene.api.cluster.state)
