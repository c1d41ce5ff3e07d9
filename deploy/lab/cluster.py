"""Brings a cluster up and takes it down: the order of things, each step in the file of its noun.

Owns what may happen at the same time and what must wait for what.
"""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from deploy.lab import api, binaries, controlplane, host, images, node, reference, spec, switch
from deploy.lab.api import Api
from deploy.lab.controlplane import ControlPlane
from deploy.lab.images import Archives
from deploy.lab.node import Running
from deploy.lab.spec import Cluster, Network, Shape

BUILD = spec.CHECKOUT / "build"
WEFT_IMAGE = BUILD / "weft-image.tar"
WEFT_MANIFEST = spec.CHECKOUT / "deploy" / "install.yaml"
COREDNS_MANIFEST = Path(__file__).with_name("coredns.yaml")


@dataclass(frozen=True, slots=True)
class Machines:
    """What runs once the machines are on: the control plane and the nodes, by name."""

    plane: ControlPlane
    nodes: Mapping[str, Running]


def up(cluster: Cluster) -> None:
    """Brings the cluster up, from its binaries to answering DNS; an old one of the name goes."""
    with _stage("binaries"):
        tools = binaries.collect()
        binaries.link(tools, BUILD / "lab" / "bin")
    with _stage("images"):
        archives = images.collect(tools)
        first = [archives.pause, *_network_images(cluster)]
    down(cluster.name)
    cluster.save()
    _write_wrapper(cluster, tools["kubectl"])
    with ThreadPoolExecutor() as pool:
        with _stage("control plane and nodes"):
            machines = _start_machines(cluster, tools)
            imports = _import(pool, machines.nodes, first)
            controlplane.wait_ready(cluster, tools["kubectl"])
            controlplane.start_controllers(cluster, machines.plane, tools)
        with _stage("nodes register"):
            cluster_api = Api(cluster, tools["kubectl"])
            cluster_api.wait_registered()
        with _stage("first images"):
            _finish(imports)
        _bring_network(cluster_api, machines, tools, archives, pool)
    print(_how_to_use(cluster))


def reload(cluster: Cluster, kubectl: Path) -> None:
    """Puts the image and the manifest as they are now into the running cluster."""
    nodes = {n.name: node.find(n) for n in cluster.nodes()}
    with ThreadPoolExecutor() as pool, _stage("image into nodes"):
        _finish(_import(pool, nodes, _network_images(cluster)))
    with _stage("new daemons"):
        cluster_api = Api(cluster, kubectl)
        cluster_api.apply(api.weft_manifests(WEFT_MANIFEST, cluster.settings))
        daemons = ("--namespace=kube-system", "daemonset/weft")
        cluster_api.run("rollout", "restart", *daemons)
        cluster_api.run("rollout", "status", *daemons, "--timeout=100s")


def down(name: str) -> None:
    """Ends and removes all that a cluster of this name ever made; finding nothing is fine."""
    # By its name alone: a half-made cluster has no record, or half of one.
    cluster = Cluster(name, 0, Shape.PLAIN, Network.NONE)
    host.destroy_cgroup(cluster.cgroup)
    for namespace in sorted(Path("/run/netns").glob(f"{name}-*")):
        if cluster.owns(namespace.name):
            host.run("ip", "netns", "delete", namespace.name)
    shutil.rmtree(cluster.state, ignore_errors=True)
    _wrapper(cluster).unlink(missing_ok=True)


def _start_machines(cluster: Cluster, tools: Mapping[str, Path]) -> Machines:
    for machine in ("sw", "cp"):
        host.create_cgroup(f"{cluster.cgroup}/{machine}")
    switch.create(cluster)
    plane = controlplane.start(cluster, tools)
    switch.start_outside(cluster, tools["agnhost"], tools["coredns"])
    nodes = {
        n.name: node.start(cluster, n, tools, plane.kubeconfigs[n.name]) for n in cluster.nodes()
    }
    return Machines(plane, nodes)


def _bring_network(
    cluster_api: Api,
    machines: Machines,
    tools: Mapping[str, Path],
    archives: Archives,
    pool: Executor,
) -> None:
    """The network, and beside it what its pods will need; then the cluster's DNS."""
    network = cluster_api.cluster.network
    others = [archives.coredns, archives.agnhost, archives.injector]
    imports = _import(pool, machines.nodes, others)
    switch.route_pods(cluster_api.cluster, cluster_api.pod_prefixes())
    if network is not Network.NONE:
        with _stage(f"network {network}"):
            _install_network(cluster_api, machines, tools)
            cluster_api.wait("node --all", "condition=Ready")
    with _stage("other images"):
        _finish(imports)
    if network is not Network.NONE:
        with _stage("cluster DNS"):
            # Not before the nodes are Ready: its replicas would all go to the first one.
            cluster_api.apply(api.read_manifests(COREDNS_MANIFEST))
            cluster_api.wait("-n kube-system deployment/coredns", "condition=Available")
        _start_balancer(cluster_api)


def _start_balancer(cluster_api: Api) -> None:
    """In the switch's namespace, where nodes are asked how they are; routes it sets by name."""
    cluster = cluster_api.cluster
    words = (sys.executable, "-m", "deploy.lab.balancer", cluster.name, str(cluster_api.kubectl))
    host.spawn(
        [*host.namespace_exec(cluster.switch_namespace), *words],
        log=cluster.state / "log" / "balancer.log",
        cgroup=f"{cluster.cgroup}/sw",
    )


def _install_network(cluster_api: Api, machines: Machines, tools: Mapping[str, Path]) -> None:
    if cluster_api.cluster.network is Network.WEFT:
        cluster_api.apply(api.weft_manifests(WEFT_MANIFEST, cluster_api.cluster.settings))
        return
    prefixes = cluster_api.pod_prefixes()
    kubeconfig = machines.plane.kubeconfigs["kube-proxy"]
    reference.install(machines.nodes, prefixes, tools, kubeconfig)


def _network_images(cluster: Cluster) -> list[Path]:
    """What the network's own pods run, which nothing else can start before."""
    if cluster.network is not Network.WEFT:
        return []
    if not WEFT_IMAGE.exists():
        raise FileNotFoundError(f"{WEFT_IMAGE} is missing: run `make image` first")
    return [WEFT_IMAGE]


def _import(
    pool: Executor, nodes: Mapping[str, Running], archives: Sequence[Path]
) -> list[Future[None]]:
    """Puts the archives into every node, in their order, the nodes beside each other."""

    def work(running: Running) -> None:
        _wait_for_containerd(running)
        for archive in archives:
            images.import_archive(running, archive)

    return [pool.submit(work, running) for running in nodes.values()]


def _finish(work: Sequence[Future[None]]) -> None:
    for part in work:
        part.result()


def _wait_for_containerd(running: Running) -> None:
    host.wait_until(
        f"containerd answers on {running.node.name}",
        lambda: host.succeeds(*running.words(), "ctr", "version"),
        timeout_s=60,
        where=running.node.state / "var/log/containerd.log",
    )


def _wrapper(cluster: Cluster) -> Path:
    suffix = "" if cluster.name == "weft" else f"-{cluster.name}"
    return BUILD / "lab" / f"kubectl{suffix}"


def _write_wrapper(cluster: Cluster, kubectl: Path) -> None:
    words = " ".join(controlplane.kubectl_words(cluster, kubectl))
    _wrapper(cluster).write_text(f'#!/bin/sh\nexec {words} "$@"\n')
    _wrapper(cluster).chmod(0o755)


def _how_to_use(cluster: Cluster) -> str:
    script = _wrapper(cluster).relative_to(spec.CHECKOUT)
    return (
        f"cluster {cluster.name}: {cluster.node_count} nodes, shape {cluster.shape}, "
        f"network {cluster.network}\n"
        f"  {script} get pods -A -o wide      (or make kubectl ARGS='get nodes')\n"
        f"  kubeconfig {cluster.kubeconfig}, inside: ip netns exec {cluster.control_namespace}\n"
        f"  {sys.executable} -m deploy.lab exec n1 -- ip address"
    )


@contextmanager
def _stage(name: str) -> Iterator[None]:
    started = time.monotonic()
    yield
    print(f"{name:<26}{time.monotonic() - started:6.1f} s", file=sys.stderr, flush=True)
