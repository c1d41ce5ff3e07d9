"""Runs the upstream tests on the cluster that is up: `make test-cluster [PART=...] [FOCUS=...]`.

Owns on which images they run, and how; which of them is `specs` to say, what they say theirs.
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
from tests.cluster import report, specs

_REGISTRY = "lab.weft.invalid/e2e"
# All that these images are asked for is in the lab's own.
_LIKE_AGNHOST = (
    "agnhost", "busybox", "distroless-iptables", "glibc-dns-testing", "jessie-dnsutils", "nginx",
)  # fmt: skip
_STAND_INS = {
    **dict.fromkeys(_LIKE_AGNHOST, images.AGNHOST_IMAGE),
    "pause": node.PAUSE_IMAGE,
    "regression-issue-74839": images.INJECTOR_IMAGE,
}
_AT_ONCE = 4


def main() -> None:
    """One run; exits with the suite's own word, or 1 where a spec skipped itself unforeseen."""
    options = _options()
    cluster = spec.load(spec.default_name())
    tools = binaries.collect((*binaries.KUBERNETES, *binaries.SUITE))
    environment = _environment(cluster)
    for running in map(node.find, cluster.nodes()):
        _name_images(running, _wanted(tools["e2e.test"], environment))
    words = _words(cluster, tools, options)
    done = subprocess.run(words, env=environment, cwd=cluster.state)
    outcomes = report.read(_report(cluster))
    print("\n".join(report.summary(outcomes)))
    sys.exit(done.returncode or bool(report.unforeseen(outcomes)) or not outcomes)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.cluster.suite", description=__doc__)
    parser.add_argument("--part", type=specs.Part, default=specs.Part.ALL, choices=specs.Part)
    parser.add_argument("--focus", help="regular expression of specs to run, in place of a part")
    parser.add_argument("--skip", help="and of specs to leave out, in place of what is listed")
    parser.add_argument("--procs", type=int, default=_AT_ONCE)
    return parser.parse_args()


def _report(cluster: Cluster) -> Path:
    return cluster.state / "e2e" / "report.json"


def _environment(cluster: Cluster) -> Mapping[str, str]:
    """The suite's images come from a registry that is none: each node has them already."""
    names = cluster.state / "e2e-registries.yaml"
    keys = ("promoterE2eRegistry", "buildImageRegistry", "gcRegistry", "sigStorageRegistry")
    names.write_text("".join(f"{key}: {_REGISTRY}\n" for key in keys))
    return {**os.environ, "KUBE_TEST_REPO_LIST": str(names)}


def _wanted(suite: Path, environment: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """The suite's name of each image, and ours for it."""
    said = subprocess.run(
        [suite, "--list-images"], env=environment, check=True, capture_output=True, text=True
    )
    for image in said.stdout.split():
        name = image.rpartition(":")[0].rpartition("/")[2]
        if image.startswith(_REGISTRY) and name in _STAND_INS:
            yield image, _STAND_INS[name]


def _name_images(running: node.Running, wanted: Iterator[tuple[str, str]]) -> None:
    for image, own in wanted:
        words = ("ctr", "--namespace=k8s.io", "images", "tag", "--force")
        host.run(*running.words(), *words, own, image)


def _words(
    cluster: Cluster, tools: Mapping[str, Path], options: argparse.Namespace
) -> list[str | Path]:
    return [
        # Outside: what it dials itself is to come from an address that is no node's neighbour.
        *host.namespace_exec(cluster.switch_namespace),
        tools["ginkgo"],
        f"--procs={options.procs}",
        f"--focus={options.focus or specs.FOCUS[options.part]}",
        f"--skip={options.skip or specs.skip_regexp(options.part)}",
        "--timeout=60m",
        f"--output-dir={_report(cluster).parent}",
        f"--json-report={_report(cluster).name}",
        "--no-color",
        "--succinct",
        tools["e2e.test"],
        "--",
        "--provider=skeleton",
        f"--kubeconfig={cluster.kubeconfig}",
        f"--num-nodes={cluster.node_count}",
        "--disable-log-dump",
    ]


if __name__ == "__main__":
    main()
