"""Runs the upstream tests on the cluster that is up: `make test-cluster [FOCUS=...] [SKIP=...]`.

Owns which of them are run, on which images, and how; never what they say.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from deploy.lab import binaries, host, images, node, spec
from deploy.lab.spec import Cluster

# Upstream's names. What needs a NodePort besides is not among them.
_SPECS = (
    "Networking Granular Checks: Pods",
    "Networking should provide unchanging",
    "NoSNAT",
    r"\[Feature:IPv6DualStack\] should",
    *(
        f"{group} should {what}"
        for group in (
            "Networking Granular Checks: Services",
            r"\[Feature:IPv6DualStack\] Granular.*",
        )
        for what in ("be able to handle large requests", "update endpoints")
    ),
)
FOCUS = rf"\[sig-network\] ({'|'.join(_SPECS)})"
# SCTP sockets are missing from the lab's kernel.
SKIP = r"\[(Slow|Disruptive|Serial)\]|SCTPConnectivity"
_REGISTRY = "lab.weft.invalid/e2e"
# All that these images are asked for is in agnhost's.
_STAND_INS = ("agnhost", "busybox", "glibc-dns-testing", "jessie-dnsutils", "nginx")
_AT_ONCE = 4


def main() -> None:
    """One run; exits with the suite's own word."""
    parser = argparse.ArgumentParser(prog="python -m tests.cluster.suite", description=__doc__)
    parser.add_argument("--focus", default=FOCUS, help="regular expression of specs to run")
    parser.add_argument("--skip", default=SKIP, help="regular expression of specs to leave out")
    parser.add_argument("--procs", type=int, default=_AT_ONCE)
    options = parser.parse_args()
    cluster = spec.load(spec.default_name())
    tools = binaries.collect((*binaries.KUBERNETES, *binaries.SUITE))
    environment = _environment(cluster)
    for running in map(node.find, cluster.nodes()):
        _name_images(running, _wanted(tools["e2e.test"], environment))
    words = _words(cluster, tools, options)
    sys.exit(subprocess.run(words, env=environment, cwd=cluster.state).returncode)


def _environment(cluster: Cluster) -> Mapping[str, str]:
    """The suite's images come from a registry that is none: each node has them already."""
    names = cluster.state / "e2e-registries.yaml"
    keys = ("promoterE2eRegistry", "buildImageRegistry", "gcRegistry", "sigStorageRegistry")
    names.write_text("".join(f"{key}: {_REGISTRY}\n" for key in keys))
    return {**os.environ, "KUBE_TEST_REPO_LIST": str(names)}


def _wanted(suite: Path, environment: Mapping[str, str]) -> Iterator[str]:
    said = subprocess.run(
        [suite, "--list-images"], env=environment, check=True, capture_output=True, text=True
    )
    for image in said.stdout.split():
        name = image.rpartition(":")[0].rpartition("/")[2]
        if image.startswith(_REGISTRY) and name in _STAND_INS:
            yield image


def _name_images(running: node.Running, wanted: Iterator[str]) -> None:
    for image in wanted:
        words = ("ctr", "--namespace=k8s.io", "images", "tag", "--force")
        host.run(*running.words(), *words, images.AGNHOST_IMAGE, image)


def _words(
    cluster: Cluster, tools: Mapping[str, Path], options: argparse.Namespace
) -> list[str | Path]:
    return [
        *host.namespace_exec(cluster.control_namespace),
        tools["ginkgo"],
        f"--procs={options.procs}",
        f"--focus={options.focus}",
        f"--skip={options.skip}",
        "--timeout=60m",
        "--no-color",
        "--succinct",
        tools["e2e.test"],
        "--",
        "--provider=skeleton",
        f"--kubeconfig={cluster.kubeconfig}",
        f"--num-nodes={cluster.node_count}",
        f"--report-dir={cluster.state / 'e2e'}",
        "--disable-log-dump",
    ]


if __name__ == "__main__":
    main()
