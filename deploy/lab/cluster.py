"""The lab's commands: bring a cluster up, take it down, speak to it, step into a node.

usage: python -m deploy.lab.cluster up|down|kubectl|exec|binaries (or `make cluster`, ...).
Owns the order of things; every step lives in the file of its noun.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from deploy.lab import api, binaries, controlplane, host, images, node, reference, spec, switch
from deploy.lab.api import Api
from deploy.lab.controlplane import ControlPlane
from deploy.lab.node import Running
from deploy.lab.spec import Cluster, Network, Shape

BUILD = spec.CHECKOUT / "build"
WEFT_IMAGE = BUILD / "weft-image.tar"
WEFT_MANIFEST = spec.CHECKOUT / "deploy" / "install.yaml"
COREDNS_MANIFEST = Path(__file__).with_name("coredns.yaml")


def up(cluster: Cluster) -> None:
    """Brings the cluster up, from its binaries to answering DNS; an old one of the name goes."""
    with _stage("binaries"):
        tools = binaries.collect()
        binaries.link(tools, BUILD / "lab" / "bin")
    with _stage("images"):
        archives = images.collect(tools)
    if cluster.network is Network.WEFT:
        archives.append(_weft_image())
    down(cluster.name)
    cluster.save()
    _write_wrapper(cluster, tools["kubectl"])
    with ThreadPoolExecutor() as pool:
        with _stage("control plane and nodes"):
            plane, nodes = _start_machines(cluster, tools)
            imports = [pool.submit(_import_all, n, archives) for n in nodes.values()]
            controlplane.wait_ready(cluster, tools["kubectl"])
            controlplane.start_controllers(cluster, plane, tools)
        _bring_network(cluster, plane, nodes, tools, imports)
    print(_how_to_use(cluster))


def down(name: str) -> None:
    """Ends and removes all that a cluster of this name ever made; finding nothing is fine."""
    try:
        cluster = spec.load(name)
    except FileNotFoundError:
        cluster = Cluster(name, 0, Shape.PLAIN, Network.NONE)
    host.destroy_cgroup(cluster.cgroup)
    for namespace in sorted(Path("/run/netns").glob(f"{name}-*")):
        if cluster.owns(namespace.name):
            host.run("ip", "netns", "delete", namespace.name)
    shutil.rmtree(cluster.state, ignore_errors=True)
    _wrapper(cluster).unlink(missing_ok=True)


def _start_machines(
    cluster: Cluster, tools: Mapping[str, Path]
) -> tuple[ControlPlane, dict[str, Running]]:
    for machine in ("sw", "cp"):
        host.create_cgroup(f"{cluster.cgroup}/{machine}")
    switch.create(cluster)
    plane = controlplane.start(cluster, tools)
    switch.start_outside(cluster, tools["agnhost"], tools["coredns"])
    return plane, {
        n.name: node.start(cluster, n, tools, plane.kubeconfigs[n.name]) for n in cluster.nodes()
    }


def _import_all(running: Running, archives: list[Path]) -> None:
    host.wait_until(
        f"containerd answers on {running.node.name}",
        lambda: host.succeeds(*running.words(), "ctr", "version"),
        timeout_s=60,
        where=running.node.state / "var/log/containerd.log",
    )
    for archive in archives:
        images.import_archive(running, archive)


def _bring_network(
    cluster: Cluster,
    plane: ControlPlane,
    nodes: Mapping[str, Running],
    tools: Mapping[str, Path],
    imports: list[Future[None]],
) -> None:
    cluster_api = Api(cluster, tools["kubectl"])
    with _stage("nodes register"):
        cluster_api.wait_registered()
    with _stage("images into nodes"):
        for done in imports:
            done.result()
    if cluster.network is Network.NONE:
        return
    with _stage(f"network {cluster.network}"):
        if cluster.network is Network.WEFT:
            cluster_api.apply(api.weft_manifests(WEFT_MANIFEST))
        else:
            prefixes = cluster_api.pod_prefixes()
            reference.install(cluster, nodes, prefixes, tools, plane.kubeconfigs["kube-proxy"])
        cluster_api.wait("node --all", "condition=Ready")
    with _stage("cluster DNS"):
        # Not before the nodes are Ready: its replicas would all go to the first one.
        cluster_api.apply(api.read_manifests(COREDNS_MANIFEST))
        cluster_api.wait("-n kube-system deployment/coredns", "condition=Available")


def _weft_image() -> Path:
    if not WEFT_IMAGE.exists():
        raise FileNotFoundError(f"{WEFT_IMAGE} is missing: run `make image` first")
    return WEFT_IMAGE


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
        f"  {sys.executable} -m deploy.lab.cluster exec n1 -- ip address"
    )


@contextmanager
def _stage(name: str) -> Iterator[None]:
    started = time.monotonic()
    yield
    print(f"{name:<26}{time.monotonic() - started:6.1f} s", file=sys.stderr, flush=True)


def _exec(argv: list[str]) -> None:
    sys.stdout.flush()
    os.execvp(argv[0], argv)


def _into_node(cluster: Cluster, name: str, command: list[str]) -> None:
    found = {n.name: n for n in cluster.nodes()}
    if name not in found:
        raise LookupError(f"cluster {cluster.name} has no node {name}: {', '.join(found)}")
    _exec([*node.find(found[name]).words(), *(command or ["/bin/bash"])])


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m deploy.lab.cluster", description=__doc__)
    parser.add_argument(
        "--name", default=spec.default_name(), help="default: $WEFT_CLUSTER or weft"
    )
    commands = parser.add_subparsers(dest="command", required=True)
    up_words = commands.add_parser("up", help="bring a cluster up")
    up_words.add_argument("--nodes", type=int, default=2)
    up_words.add_argument("--shape", type=Shape, choices=list(Shape), default=Shape.PLAIN)
    up_words.add_argument("--network", type=Network, choices=list(Network), default=Network.WEFT)
    commands.add_parser("down", help="remove it, also after a crash")
    commands.add_parser("binaries", help="build what is missing, link it into build/lab/bin")
    kubectl = commands.add_parser("kubectl", help="run kubectl on it as administrator")
    kubectl.add_argument("words", nargs=argparse.REMAINDER)
    inside = commands.add_parser("exec", help="run a command inside a node")
    inside.add_argument("node")
    inside.add_argument("words", nargs=argparse.REMAINDER)
    return parser


def main() -> None:
    """Runs one command; an error is one line that says what to do."""
    options = _parser().parse_args()
    try:
        _run(options)
    except (RuntimeError, LookupError, OSError) as error:
        sys.exit(f"lab: {error}")


def _run(options: argparse.Namespace) -> None:
    if options.command == "up":
        up(Cluster(options.name, options.nodes, options.shape, options.network))
    elif options.command == "down":
        down(options.name)
    elif options.command == "binaries":
        binaries.link(binaries.collect(), BUILD / "lab" / "bin")
    elif options.command == "kubectl":
        kubectl = binaries.collect(binaries.KUBERNETES)["kubectl"]
        _exec([*controlplane.kubectl_words(spec.load(options.name), kubectl), *options.words])
    else:
        _into_node(spec.load(options.name), options.node, options.words)


if __name__ == "__main__":
    main()
