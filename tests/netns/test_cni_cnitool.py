"""The project's own driver, cnitool with libcni, in every version, with the daemon and without."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.netns.cni_lab import (
    ROOT,
    SHIM,
    Lab,
    Outcome,
    addresses,
    lab,
    nothing_left,
    pings,
    run,
)
from weft.cni.spec import VERSIONS

CACHE = Path(os.environ.get("WEFT_CACHE", Path.home() / ".cache/weft"))
TOOLS = next(CACHE.glob("lab/*/bin/cnitool"), None)

pytestmark = pytest.mark.skipif(
    TOOLS is None, reason="no cnitool in the lab cache: `make lab-binaries` builds it"
)


@dataclass
class Tool:
    """cnitool on one node. Its own cache lies in the node's folder, not in this machine's."""

    lab: Lab
    in_process: bool

    def write(self, version: str, *chained: dict[str, object]) -> None:
        plugin = dict(self.lab.config)
        for key in ("cniVersion", "name"):
            plugin.pop(key)
        plugin["type"] = "weft-local" if self.in_process else "weft-cni"
        listed = {"cniVersion": version, "name": "weft", "plugins": [plugin, *chained]}
        (self.lab.folder / "net.d").mkdir(exist_ok=True)
        (self.lab.folder / "net.d/05-weft.conflist").write_text(json.dumps(listed))
        local = self.lab.folder / "bin/weft-local"
        local.parent.mkdir(exist_ok=True)
        local.write_text(f"#!/bin/sh\nexec {sys.executable} -m weft.cni\n")
        local.chmod(0o755)

    def __call__(self, verb: str, pod: str, **env: str) -> Outcome:
        assert TOOLS is not None
        state = self.lab.folder / "var-lib"
        state.mkdir(exist_ok=True)
        inside = f'mount --bind {state} /var/lib && exec nsenter --net="$NODE" "$@"'
        variables = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(ROOT / "build/tree"),
            "NODE": f"/run/netns/{self.lab.node}",
            "NETCONFPATH": str(self.lab.folder / "net.d"),
            "CNI_PATH": f"{self.lab.folder / 'bin'}:{SHIM.parent}:{TOOLS.parent}",
            "WEFT_CNI_SOCKET": str(self.lab.folder / "cni.sock"),
            "WEFT_CNI_DELETIONS": str(self.lab.folder / "deletions"),
            **env,
        }
        done = subprocess.run(
            ["unshare", "-m", "sh", "-c", inside, "sh", str(TOOLS), verb, "weft",
             f"/run/netns/{pod}"],
            env=variables, capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        answer = json.loads(done.stdout) if done.stdout.strip().startswith("{") else None
        return Outcome(done.returncode, answer, done.stdout + done.stderr)


@pytest.fixture(params=["daemon", "in-process"])
def tool(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Tool]:
    with lab(tmp_path) as one:
        if request.param == "in-process":
            yield Tool(one, in_process=True)
        else:
            with one.daemon():
                yield Tool(one, in_process=False)


def is_clean(tool: Tool) -> bool:
    if not tool.in_process:
        return nothing_left(tool.lab)
    return not tool.lab.links()


@pytest.mark.parametrize("version", VERSIONS)
def test_a_pod_comes_is_checked_and_goes_in_every_version(tool: Tool, version: str) -> None:
    tool.write(version)
    pod = tool.lab.pod()
    added = tool("add", pod)
    assert added.code == 0, added
    assert pings(tool.lab.node, "10.77.0.2")
    assert pings(tool.lab.node, "fd77::2")
    if version >= "0.4.0":
        checked = tool("check", pod)
        assert checked.code == 0, checked
    for _ in range(2):
        deleted = tool("del", pod)
        assert deleted.code == 0, deleted
    assert is_clean(tool)


def test_check_by_cnitool_notices_what_was_broken(tool: Tool) -> None:
    tool.write("1.1.0")
    pod = tool.lab.pod()
    assert tool("add", pod).code == 0
    run("ip", "-n", pod, "link", "set", "eth0", "down")
    broken = tool("check", pod)
    assert broken.code == 1
    assert "eth0 is down" in broken.stderr


def test_gc_by_cnitool_sends_a_del_for_what_it_knows_and_names_no_valid_ones(tool: Tool) -> None:
    """libcni deletes what its cache holds, then sends GC without a list: nothing more is freed."""
    tool.write("1.1.0")
    known, forgotten = tool.lab.pod(), tool.lab.pod()
    assert tool("add", known).code == 0
    added = tool("add", forgotten)
    assert added.code == 0
    for entry in (tool.lab.folder / "var-lib/cni/results").iterdir():
        if forgotten in entry.read_text():
            entry.unlink()
    collected = tool("gc", known)
    assert collected.code == 0, collected
    assert len(tool.lab.links()) == 1
    assert pings(tool.lab.node, addresses(added)[0])


def test_status_by_cnitool_is_silent_where_pods_can_be_served(tool: Tool) -> None:
    tool.write("1.1.0")
    assert tool("status", "") == Outcome(0, None, "")


def test_status_by_cnitool_says_why_pods_cannot_be_served(tmp_path: Path) -> None:
    with lab(tmp_path) as one:
        one.config["ranges"] = []
        tool = Tool(one, in_process=True)
        tool.write("1.1.0")
        status = tool("status", "")
        assert status.code == 1
        assert "no range of pod addresses" in status.stderr


def test_the_stock_bandwidth_and_portmap_plugins_work_behind_ours(tool: Tool) -> None:
    shaped = {"type": "bandwidth", "ingressRate": 10**8, "ingressBurst": 10**7,
              "egressRate": 10**8, "egressBurst": 10**7}  # fmt: skip
    tool.write("1.0.0", {"type": "portmap", "capabilities": {"portMappings": True}}, shaped)
    pod = tool.lab.pod()
    added = tool("add", pod)
    assert added.code == 0, added
    assert pings(tool.lab.node, "10.77.0.2")
    assert tool("check", pod).code == 0
    assert tool("del", pod).code == 0
    assert is_clean(tool)
