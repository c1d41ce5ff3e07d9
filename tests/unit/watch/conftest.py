"""Waiting for a condition with a limit."""

import time
from collections.abc import Callable

import pytest


@pytest.fixture
def eventually() -> Callable[[Callable[[], bool]], None]:
    """Return as soon as a condition holds; fail when it does not within 10 s."""

    def wait(condition: Callable[[], bool]) -> None:
        deadline_s = time.monotonic() + 10
        while not condition():
            assert time.monotonic() < deadline_s, "not within 10 s"
            time.sleep(0.005)

    return wait
