"""The lab itself: whatever happened to a cluster, taking it down leaves nothing behind."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.lab import cluster, host, spec
from deploy.lab.spec import Cluster, Network, Shape

HALF = Cluster("wt-lab-half", 1, Shape.PLAIN, Network.NONE)


@pytest.fixture
def half_made() -> Iterator[Cluster]:
    """A cluster whose `up` was killed as soon as its node had a first process."""
    words = ["--name", HALF.name, "up", "--nodes=1", "--network=none"]
    making = subprocess.Popen([sys.executable, "-m", "deploy.lab", *words])
    try:
        started = HALF.state / "n1" / "init.pid"
        what = "the node has its first process"
        host.wait_until(what, started.exists, timeout_s=60, where=HALF.state)
        making.kill()
        making.wait(timeout=10)
        yield HALF
    finally:
        making.kill()
        cluster.down(HALF.name)


def test_a_half_made_cluster_goes_without_a_trace(half_made: Cluster) -> None:
    before = traces(half_made)
    assert len(before) > 5
    cluster.down(half_made.name)
    assert traces(half_made) == []
    cluster.down(half_made.name)


def traces(of: Cluster) -> list[str]:
    """Namespaces, cgroups, processes, mounts and folders that bear the cluster's name."""
    namespaces = [path.name for path in Path("/run/netns").glob(f"{of.name}-*")]
    cgroups = [str(folder) for folder in host.cgroup_folders(of.cgroup) if folder.exists()]
    processes = [f"process {pid}" for pid in host.members(of.cgroup)]
    mounts = [m for m in Path("/proc/mounts").read_text().splitlines() if f"/{of.name}/" in m]
    folders = [str(of.state)] if of.state.exists() else []
    return [*namespaces, *cgroups, *processes, *mounts, *folders]


def test_taking_down_what_never_was_is_fine() -> None:
    cluster.down("wt-lab-never")
    assert not spec.Cluster("wt-lab-never", 0, Shape.PLAIN, Network.NONE).state.exists()
