"""Multicast, as mDNS does it, and broadcast between pods of one bridge and with their node: heard
by those whose policies allow it. Without a bridge no pod hears a group.
"""

import pytest

from deploy.netlab import Lab, Pod
from deploy.netlab.shell import wait_for
from tests.netns.speech import PORT, hears

GROUPS = {"ipv4": "224.0.0.251", "ipv6": "ff02::fb", "broadcast": "255.255.255.255"}
LONG_S, SHORT_S = 10, 1
BRIDGE = "weft0"


@pytest.fixture(params=GROUPS)
def group(request: pytest.FixtureRequest) -> str:
    return GROUPS[request.param]


@pytest.fixture(scope="module")
def pods(lab: Lab) -> tuple[Pod, Pod]:
    east = lab.nodes[0]
    return east.add_pod("speaker"), east.add_pod("listener", labels={"pod": "listener"})


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


@pytest.mark.parametrize("mode", ["bridge"], scope="module")
def test_a_group_is_heard_unless_policy_says_otherwise(
    lab: Lab, pods: tuple[Pod, Pod], group: str
) -> None:
    assert hears(lab, *pods, group, LONG_S)
    lab.manifests.put(policy("silence", []))
    wait_for("silence", lambda: not hears(lab, *pods, group, SHORT_S))
    words = {"protocol": "UDP", "port": PORT}
    lab.manifests.put(policy("silence", [{"ports": [words]}]))
    wait_for("the word", lambda: hears(lab, *pods, group, SHORT_S))
    lab.manifests.remove("NetworkPolicy", "silence", "default")
    wait_for("no policy", lambda: hears(lab, *pods, group, SHORT_S))


@pytest.mark.parametrize("mode", ["bridge"], scope="module")
def test_a_node_and_its_pods_hear_each_other(lab: Lab, pods: tuple[Pod, Pod], group: str) -> None:
    node, (speaker, listener) = lab.nodes[0], pods
    assert hears(lab, node, listener, group, LONG_S, links=(BRIDGE, "eth0"))
    assert hears(lab, speaker, node, group, LONG_S, links=("eth0", BRIDGE))


@pytest.mark.long
@pytest.mark.parametrize("mode", ["vxlan", "direct", "auto"], scope="module")
def test_without_a_bridge_no_pod_hears_a_group(lab: Lab, pods: tuple[Pod, Pod], group: str) -> None:
    speaker, listener = pods
    assert not hears(lab, speaker, listener, group, SHORT_S)
    address = str(listener.address(6 if ":" in group else 4))
    assert hears(lab, speaker, listener, address, LONG_S), "what is said to it alone"
