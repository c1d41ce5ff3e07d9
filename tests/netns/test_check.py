"""CHECK of a pod under the daemon: what another hand took from the kernel's tables is said."""

from collections.abc import Iterator

import pytest

from deploy.netlab import Lab, LabNode, Pod
from deploy.netlab.shell import CommandFailed, wait_for
from tests.netns.conftest import lab_name
from weft.bpf import syscall
from weft.bpf.layout import TABLES, pack_address
from weft.bpf.table import KernelTable


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with Lab(lab_name()) as made:
        made.add_node("east").start()
        yield made


@pytest.fixture(scope="module")
def pod(lab: Lab) -> Pod:
    return lab.nodes[0].add_pod("web")


def problems(node: LabNode, pod: Pod) -> str:
    """What CHECK says; empty: all is well."""
    try:
        return node.cni("CHECK", pod)
    except CommandFailed as failed:
        return str(failed)


def take_row(node: LabNode, table: str, key: bytes) -> None:
    (pin,) = (node.folder / "bpf" / "weft" / "maps").glob(f"{table}-*")
    opened = KernelTable(TABLES[table], syscall.open_pin(pin))
    try:
        assert opened.lookup(key) is not None
        opened.delete([key])
    finally:
        opened.close()


@pytest.mark.parametrize("version", [4, 6], ids=["ipv4", "ipv6"])
def test_a_row_that_is_gone_is_said_and_comes_back(lab: Lab, pod: Pod, version: int) -> None:
    (node,) = lab.nodes
    assert problems(node, pod) == ""
    take_row(node, "workloads", pack_address(pod.address(version)))
    assert "workloads: not as planned" in problems(node, pod)
    wait_for("the row", lambda: problems(node, pod) == "")


def test_a_program_that_another_hand_took_comes_back(lab: Lab, pod: Pod) -> None:
    """Netlink tells of it at once: CHECK holds at the latest when it was mended."""
    (node,) = lab.nodes
    node.run("tc", "filter", "del", "block", str(0x57454649))
    wait_for("the filters", lambda: problems(node, pod) == "")
    assert "filter" in node.run("tc", "filter", "show", "block", str(0x57454649))
