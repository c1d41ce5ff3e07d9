"""What is broken or hostile in a request, and what the runtime hears of it."""

import os
from pathlib import Path

import pytest

from tests.netns.cni_lab import Lab, details, lab, nothing_left

pytest_plugins = ["tests.netns.cni_fixtures"]


@pytest.mark.parametrize("kind", ["missing", "pipe", "file", "other namespace"])
def test_a_path_that_is_no_network_namespace_is_refused_at_once(
    routed: Lab, tmp_path: Path, kind: str
) -> None:
    path = tmp_path / "planted"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "file":
        path.touch()
    elif kind == "other namespace":
        path = Path("/proc/self/ns/uts")
    refused = routed.cni("ADD", "x", CNI_NETNS=str(path))
    assert refused.answer["code"] == 8
    assert str(path) in details(refused)
    assert nothing_left(routed)


def test_the_nodes_own_namespace_is_refused(routed: Lab) -> None:
    refused = routed.cni("ADD", routed.node)
    assert refused.answer["code"] == 8
    assert "own" in details(refused)


@pytest.mark.parametrize(
    ("config", "code"),
    [
        (b"{", 6),
        (b"", 6),
        (b'{"cniVersion":"1.0.0"}', 7),
        (b'{"cniVersion":"9.0.0","name":"a"}', 1),
    ],
)
def test_a_broken_configuration_gets_its_code(routed: Lab, config: bytes, code: int) -> None:
    assert routed.cni("ADD", routed.pod(), config=config).answer["code"] == code


def test_a_misplaced_plugin_says_that_it_must_be_first(routed: Lab) -> None:
    refused = routed.cni("ADD", routed.pod(), config={"prevResult": {"ips": []}})
    assert refused.answer["code"] == 7
    assert "first plugin" in details(refused)


@pytest.mark.parametrize(
    ("ranges", "words"),
    [([], "no range"), (["10.77.0.0/24", "10.77.0.0/25"], "overlap"), (["10.0.0.0/31"], "small")],
)
def test_missing_or_wrong_ranges_fail_adds_and_status_and_nothing_else(
    tmp_path: Path, ranges: list[str], words: str
) -> None:
    with lab(tmp_path) as node:
        with node.daemon():
            pod = node.pod()
            node.cni("ADD", pod)
        node.config["ranges"] = ranges
        with node.daemon():
            assert words in details(node.cni("ADD", node.pod(), "c2"))
            assert node.cni("STATUS").answer["code"] == 50
            assert node.cni("DEL", pod).code == 0
            assert nothing_left(node)
