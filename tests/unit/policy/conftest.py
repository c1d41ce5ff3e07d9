"""Fixtures of the policy tests."""

import pytest

from tests.unit.policy.scenario import Scenario


@pytest.fixture(params=[4, 6], ids=["IPv4", "IPv6"])
def scene(request: pytest.FixtureRequest) -> Scenario:
    """Every scenario, once per family."""
    return Scenario(request.param)
