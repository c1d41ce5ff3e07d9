"""Multicast between pods of one bridge, as mDNS does it: heard by those whose policies allow it."""

import subprocess
import sys
from pathlib import Path

import pytest

from deploy.netlab import Lab, Pod
from deploy.netlab.shell import wait_for

GROUP = Path(__file__).with_name("group.py")
PORT = 5353
GROUPS = {4: "224.0.0.251", 6: "ff02::fb"}
LONG_S, SHORT_S = "10", "1"


@pytest.fixture(scope="module")
def mode() -> str:
    """Without a bridge nothing brings a group's packets from one pod to another."""
    return "bridge"


@pytest.fixture(params=[4, 6], ids=["ipv4", "ipv6"])
def version(request: pytest.FixtureRequest) -> int:
    return int(request.param)


@pytest.fixture(scope="module")
def pods(lab: Lab) -> tuple[Pod, Pod]:
    east = lab.nodes[0]
    return east.add_pod("speaker"), east.add_pod("listener", labels={"pod": "listener"})


def heard(lab: Lab, pods: tuple[Pod, Pod], version: int, limit_s: str) -> bool:
    """Whether the listener hears what the speaker says once."""
    speaker, listener = pods
    ready = lab.folder / "group.ready"
    ready.unlink(missing_ok=True)
    words = (sys.executable, GROUP, "hear", GROUPS[version], str(PORT), ready, limit_s)
    with subprocess.Popen(listener.command(*words), stdout=subprocess.PIPE, text=True) as process:
        wait_for("the listener", ready.exists)
        speaker.run(sys.executable, GROUP, "say", GROUPS[version], str(PORT))
        said, _ = process.communicate(timeout=30)
    return said.strip() != "nothing"


def policy(name: str, ingress: list[object]) -> dict[str, object]:
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {
            "podSelector": {"matchLabels": {"pod": "listener"}},
            "policyTypes": ["Ingress"],
            "ingress": ingress,
        },
    }


def test_a_group_is_heard_unless_policy_says_otherwise(
    lab: Lab, pods: tuple[Pod, Pod], version: int
) -> None:
    assert heard(lab, pods, version, LONG_S)
    lab.manifests.put(policy("silence", []))
    wait_for("silence", lambda: not heard(lab, pods, version, SHORT_S))
    words = {"protocol": "UDP", "port": PORT}
    lab.manifests.put(policy("silence", [{"ports": [words]}]))
    wait_for("the word", lambda: heard(lab, pods, version, SHORT_S))
    lab.manifests.remove("NetworkPolicy", "silence", "default")
    wait_for("no policy", lambda: heard(lab, pods, version, SHORT_S))
