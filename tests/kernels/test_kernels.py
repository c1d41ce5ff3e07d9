"""Every program loads and every hook attaches on Debian's kernels: `make test-kernels`."""

import shutil
from pathlib import Path

import pytest

from tests.kernels.guest import kernel_of, results, run_guest
from tests.kernels.inside import CHECKS

KERNELS = ("linux-image-cloud-amd64", "linux-image-6.12-cloud-amd64")


@pytest.fixture(scope="module", params=KERNELS, ids=("6.1", "6.12"))
def said(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, tuple[str, str]]:
    """What one guest said of each check."""
    if not shutil.which("qemu-system-x86_64"):
        pytest.skip("qemu is not installed: apt install qemu-system-x86")
    folder: Path = tmp_path_factory.mktemp("guest")
    console = run_guest(kernel_of(request.param), folder)
    shutil.rmtree(folder)
    assert "\nEND" in console, f"the guest broke off:\n{console[-4000:]}"
    return {check: (word, reason) for word, check, reason in results(console)}


@pytest.mark.parametrize("check", [check.__name__ for check in CHECKS])
def test_on_this_kernel(said: dict[str, tuple[str, str]], check: str) -> None:
    word, reason = said[check]
    assert word == "PASS", reason
