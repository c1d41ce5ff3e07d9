"""A node that Weft leaves is as it was before."""

import sys
from collections.abc import Iterator

import pytest

from deploy.netlab import Lab, LabNode
from deploy.netlab.shell import stop, wait_for
from tests.netns.conftest import lab_name

pytestmark = pytest.mark.long

HOOKED = """
import socket
from weft.bpf.syscall import AttachType, query
for way in (AttachType.TCX_INGRESS, AttachType.TCX_EGRESS):
    print(len(query(socket.if_nametoindex("eth0"), way, "eth0")))
"""


def facts(node: LabNode) -> dict[str, str]:
    """What the kernel and the disk have."""
    return {
        "links": node.run("ip", "-br", "link"),
        "routes": node.run("ip", "route") + node.run("ip", "-6", "route"),
        "qdiscs": node.run("tc", "qdisc", "show"),
        "hooks": node.run(sys.executable, "-c", HOOKED),
        "pins": node.run("ls", node.folder / "bpf"),
        "conflists": node.run("ls", node.folder / "net.d"),
        "leases": node.run("ls", node.folder / "lib" / "cni") if _has_state(node) else "",
    }


def _has_state(node: LabNode) -> bool:
    return (node.folder / "lib" / "cni").exists()


def left(node: LabNode) -> tuple[int, str]:
    """Exit code and log of `weftd --cleanup` there."""
    done = node.attempt("env", f"PYTHONPATH={node.tree}", *node.daemon_argv(), "--cleanup")
    return done.returncode, done.stdout + done.stderr


@pytest.fixture(params=["vxlan", "bridge"])
def node(request: pytest.FixtureRequest) -> Iterator[LabNode]:
    with Lab(lab_name(), mode=request.param) as lab:
        yield lab.add_node("east")


def test_a_drained_node_is_as_before_and_nothing_goes_while_it_is_in_use(node: LabNode) -> None:
    wait_for("eth0 settles", lambda: "tentative" not in node.run("ip", "addr", "show", "eth0"))
    before = facts(node)
    node.start(timeout_s=120)
    node.add_pod("one")
    code, said = left(node)
    assert code == 1
    assert "1 pods still hang on Weft's links" in said
    node.delete_pod("one")
    code, said = left(node)
    assert code == 1
    assert "another daemon has" in said
    assert node.daemon
    stop(node.daemon)
    assert facts(node)["hooks"] != before["hooks"]
    code, said = left(node)
    assert code == 0, said
    assert facts(node) == before
    assert left(node)[0] == 0
