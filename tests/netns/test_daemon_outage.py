"""A daemon that is restarted while no API server answers: what runs goes on, new pods start."""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from deploy.netlab import Lab, LabNode
from deploy.netlab.shell import stop, wait_for
from tests.netns.conftest import assert_dump_equals_plan, lab_name

PORT = "18080"
SERVER = Path(__file__).parents[1] / "bench" / "apiserver.py"
SERVICES, ENDPOINTS = 3, 2


class Outage:
    """A node whose API server can be taken away and brought back."""

    def __init__(self, node: LabNode) -> None:
        self.node = node
        self._server: subprocess.Popen[bytes] | None = None

    def serve(self) -> None:
        argv = (sys.executable, SERVER, PORT, str(SERVICES), str(ENDPOINTS))
        self._server = subprocess.Popen(
            self.node.command(*argv),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        assert self._server.stdout is not None
        assert self._server.stdout.readline() == b"listening\n"

    def end(self) -> None:
        if self._server is not None:
            stop(self._server)

    def stage(self) -> str:
        said = self.node.weft("status", "-o", "json", check=False)
        return str(json.loads(said)["stage"]) if said else ""

    def slots(self) -> int:
        said = json.loads(self.node.weft("status", "-o", "json", check=False))
        return int(next(t["rows"] for t in said["tables"] if t["name"] == "slots"))

    def tables_that_differ(self) -> set[str]:
        said = json.loads(self.node.weft("dump", "-o", "json", check=False))
        return {str(row["table"]) for row in said["items"]}


@pytest.fixture
def outage() -> Iterator[Outage]:
    with ExitStack() as undo:
        lab = undo.enter_context(Lab(lab_name()))
        node = lab.add_node("east")
        node.flags = ("--source", "kube", "--api-servers", f"http://127.0.0.1:{PORT}")
        outage = Outage(node)
        undo.callback(outage.end)
        outage.serve()
        node.start()
        yield outage


def test_a_restart_without_an_api_server_plans_from_the_checkpoint(outage: Outage) -> None:
    node = outage.node
    checkpoint = node.folder / "lib" / "api.json"
    wait_for("the checkpoint", checkpoint.exists)
    node.kill()
    outage.end()
    node.start()
    wait_for("the checkpoint's stage", lambda: outage.stage() == "cached")
    assert outage.slots() == SERVICES * ENDPOINTS
    # Programs are replaced once every source has listed: until then an earlier daemon's run.
    assert outage.tables_that_differ() <= {"hooks"}
    pod = node.add_pod("fresh")
    assert pod.addresses
    outage.serve()
    wait_for("the API server's news", lambda: outage.stage() == "listed", timeout_s=60)
    assert_dump_equals_plan(node)


def test_without_checkpoint_and_api_server_the_kernels_rows_stay(outage: Outage) -> None:
    node = outage.node
    node.kill()
    outage.end()
    (node.folder / "lib" / "api.json").unlink(missing_ok=True)
    node.start()
    wait_for("the search for a checkpoint", lambda: "from the checkpoint" in node.log_tail())
    assert outage.stage() == "starting"
    outage.serve()
    wait_for("the API server's news", lambda: outage.stage() == "listed", timeout_s=60)
    deleted = node.run("curl", "-sf", "http://127.0.0.1:10249/metrics")
    assert 'weft_rows_deleted_total{table="slots"}' not in deleted
    assert_dump_equals_plan(node)
