"""Nodes for the CNI tests, by how far they have been started."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.netns.cni_lab import Lab, lab


@pytest.fixture(params=["routed", "bridge"])
def node(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Lab]:
    """A served node of either mode."""
    with lab(tmp_path, request.param) as one, one.daemon():
        yield one


@pytest.fixture
def idle(tmp_path: Path) -> Iterator[Lab]:
    """A routed node whose daemon is not started."""
    with lab(tmp_path) as one:
        yield one


@pytest.fixture
def routed(idle: Lab) -> Iterator[Lab]:
    """A served node whose pods are routed."""
    with idle.daemon():
        yield idle
