"""Fixtures of the netns tests: labs that live for a module, and the law after every test."""

import os
from collections.abc import Iterator
from itertools import count

import pytest

from deploy.netlab import Lab, LabNode
from weft.cli.client import TIMEOUT_S, daemon, items
from weft.proxy.api import weft_pb2 as pb

_numbers = count()


def lab_name() -> str:
    return f"wt-{os.getpid()}-{next(_numbers)}"


@pytest.fixture(scope="module", params=["vxlan", "direct", "auto", "bridge"])
def mode(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def lab(mode: str) -> Iterator[Lab]:
    """Two started nodes of one mode."""
    with Lab(lab_name(), mode=mode) as made:
        for name in ("east", "west"):
            made.add_node(name)
        for node in made.nodes:
            node.start()
        yield made


@pytest.fixture(autouse=True)
def _dump_equals_plan(request: pytest.FixtureRequest) -> Iterator[None]:
    """The central law: after every test the kernel holds exactly the full plan."""
    lab = request.getfixturevalue("lab") if "lab" in request.fixturenames else None
    yield
    for node in lab.nodes if lab else ():
        assert_dump_equals_plan(node)


def assert_dump_equals_plan(node: LabNode) -> None:
    with daemon(str(node.api_socket)) as weft:
        rows = items(weft.CompareTables(pb.CompareTablesRequest(), timeout=TIMEOUT_S))
    assert not rows, f"{node.name}: {rows}"
