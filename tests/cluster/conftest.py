"""The cluster that the tests of this folder run on, and the pods that they share.

Owns no test. Takes the cluster that `make cluster` left up (WEFT_CLUSTER names it); where there is
none, brings one up for the run and takes it down after.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import ExitStack
from ipaddress import ip_address

import pytest

from deploy.lab import binaries, cluster, host, node, spec
from deploy.lab.api import Api
from deploy.lab.spec import Cluster, Network, Shape
from tests.cluster import daemon, pods
from tests.cluster.scene import NAMESPACE, SERVICE, Scene


@pytest.fixture(scope="session")
def lab() -> Iterator[Cluster]:
    """The running cluster, or one of the run's own."""
    with ExitStack() as stack:
        try:
            running = spec.load(spec.default_name())
        except FileNotFoundError:
            running = Cluster(spec.default_name(), 2, Shape.PLAIN, Network.WEFT)
            stack.callback(cluster.down, running.name)
            cluster.up(running)
        yield running


@pytest.fixture(scope="session")
def api(lab: Cluster) -> Api:
    return Api(lab, binaries.collect(binaries.KUBERNETES)["kubectl"])


@pytest.fixture
def weft(lab: Cluster) -> None:
    """For what only Weft does."""
    if lab.network is not Network.WEFT:
        pytest.skip(f"the {lab.network} network has neither NetworkPolicy nor a weft daemon")


@pytest.fixture
def central_law(lab: Cluster, api: Api) -> Iterator[None]:
    """After the test every node's tables in the kernel hold exactly what the plan says."""
    yield
    if lab.network is Network.WEFT:
        for running in map(node.find, lab.nodes()):
            what = f"`weft dump` has nothing to tell on {running.node.name}"
            holds = functools.partial(daemon.is_in_order, api, running)
            host.wait_until(what, holds, timeout_s=5, where=lab.state)


@pytest.fixture(scope="module")
def scene(lab: Cluster, api: Api) -> Iterator[Scene]:
    nodes = {n.name: node.find(n) for n in lab.nodes()}
    first, second = min(nodes), max(nodes)
    with ExitStack() as stack:
        stack.callback(_remove_namespace, api)
        _remove_namespace(api)
        api.apply([{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}])
        _wait_for_account(lab, api)
        places = {"alpha": first, "beta": first, "gamma": second}
        server = {"app": "server"}
        api.apply([pods.pod_manifest(NAMESPACE, n, at, server) for n, at in places.items()])
        api.apply([pods.service_manifest(NAMESPACE, SERVICE, server)])
        api.wait(f"-n {NAMESPACE} pod --all", "condition=Ready")
        found = {name: pods.find(api, NAMESPACE, name) for name in places}
        service = api.get("service", f"--namespace={NAMESPACE}", SERVICE)
        vips = tuple(ip_address(vip) for vip in service["spec"]["clusterIPs"])
        yield Scene(api, nodes, **found, service=vips)


def _remove_namespace(api: Api) -> None:
    words = ("namespace", NAMESPACE, "--ignore-not-found", "--timeout=60s")
    api.run("delete", *words, timeout_s=70)


def _wait_for_account(lab: Cluster, api: Api) -> None:
    """A pod made before its namespace's service account is refused."""
    words = api.words("get", "serviceaccount", "default", f"--namespace={NAMESPACE}")
    host.wait_until(
        f"namespace {NAMESPACE} has its service account",
        lambda: host.succeeds(*words),
        timeout_s=30,
        where=lab.state / "log" / "kube-controller-manager.log",
    )
