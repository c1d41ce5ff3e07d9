"""What the kernel can do is found by trying, and said in words where it is missing."""

import os
import re
import time
from pathlib import Path

import pytest

from weft.bpf.features import Features, jiffies_hz, jiffies_now, netns_cookie, probe


def test_this_kernel_is_asked_and_supported() -> None:
    if os.geteuid() != 0:
        pytest.skip("loading the trial programs needs root")
    assert probe().supported


def test_a_missing_feature_says_what_follows() -> None:
    features = Features(tcx=False, netns_cookie=True, set_retval=True)
    assert features.supported
    assert features.missing == ("no tcx (needs 6.6): uplinks and the overlay use clsact",)


def test_a_kernel_without_the_helpers_is_not_supported() -> None:
    features = Features(tcx=True, netns_cookie=True, set_retval=False)
    assert not features.supported
    assert "bpf_set_retval" in features.missing[0]


def test_the_clocks_tick_is_one_that_kernels_are_built_with() -> None:
    assert jiffies_hz() in (100, 250, 300, 1000)


def test_jiffies_are_right_to_a_second() -> None:
    listing = Path("/proc/timer_list")
    if not os.access(listing, os.R_OK):
        pytest.skip("only root may read the kernel's own jiffies")
    found = re.search(r"jiffies: (\d+)", listing.read_text())
    assert found is not None
    assert abs(int(found[1]) - jiffies_now()) <= jiffies_hz()
    before = jiffies_now()
    end = time.monotonic() + 1
    while jiffies_now() == before:
        assert time.monotonic() < end


def test_the_namespace_has_a_cookie() -> None:
    assert netns_cookie() == netns_cookie() > 0
