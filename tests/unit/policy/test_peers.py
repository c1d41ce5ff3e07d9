"""Whom a peer term means (policy S6-S11, S18, S26), and addresses of which nothing is known yet."""

from ipaddress import ip_network

import pytest

from tests.unit.policy.lookup import planned
from tests.unit.policy.scenario import CLIENT, WEB, Manifest, Scenario
from weft.bpf.layout import PrefixKey, unpack_u64
from weft.proxy.model.objects import Kind
from weft.proxy.plan.policy_prefix import prefix_of

BLUE = {"matchLabels": {"team": "blue"}}


def allow_from(scene: Scenario, *peers: Manifest) -> None:
    scene.policy("a/p", podSelector=WEB, ingress=[{"from": list(peers)}])


def test_a_pod_selector_alone_means_the_policys_own_namespace(scene: Scenario) -> None:
    allow_from(scene, {"podSelector": CLIENT})
    assert scene.reaches("a/client", "a/web")
    assert not scene.reaches("b/client", "a/web")


def test_an_empty_pod_selector_means_every_pod_of_the_namespace_and_nobody_else(
    scene: Scenario,
) -> None:
    allow_from(scene, {"podSelector": {}})
    assert scene.reaches("a/client", "a/web")
    assert not scene.reaches("b/client", "a/web")
    assert not scene.reaches("n2", "a/web")


def test_a_namespace_selector_alone_means_every_pod_of_those_namespaces(scene: Scenario) -> None:
    allow_from(scene, {"namespaceSelector": BLUE})
    assert scene.reaches("b/web", "a/web")
    assert scene.reaches("b/far", "a/web")
    assert not scene.reaches("a/client", "a/web")


def test_both_selectors_in_one_element_must_fit_and_in_two_either(scene: Scenario) -> None:
    allow_from(scene, {"namespaceSelector": BLUE, "podSelector": CLIENT})
    assert scene.reaches("b/client", "a/web")
    assert not scene.reaches("b/web", "a/web")
    assert not scene.reaches("a/client", "a/web")
    allow_from(scene, {"namespaceSelector": BLUE}, {"podSelector": CLIENT})
    assert scene.reaches("b/web", "a/web")
    assert scene.reaches("a/client", "a/web")


def test_labels_of_a_pod_never_count_as_its_namespaces(scene: Scenario) -> None:
    """CVE-2023-39347."""
    scene.pod("a/client", app="client", team="blue")
    allow_from(scene, {"namespaceSelector": BLUE})
    assert not scene.reaches("a/client", "a/web")


@pytest.mark.parametrize(
    ("operator", "values", "client", "far"),
    [
        ("In", ["x"], True, False),
        ("NotIn", ["x"], False, True),
        ("Exists", None, True, False),
        ("DoesNotExist", None, False, True),
        ("NotIn", ["y"], True, True),
    ],
)
def test_expressions_with_and_without_the_key(
    scene: Scenario, operator: str, values: list[str] | None, client: bool, far: bool
) -> None:
    scene.pod("b/client", app="client", tier="x")
    term = {"key": "tier", "operator": operator} | ({"values": values} if values else {})
    allow_from(scene, {"namespaceSelector": BLUE, "podSelector": {"matchExpressions": [term]}})
    assert scene.reaches("b/client", "a/web") == client
    assert scene.reaches("b/far", "a/web") == far


def test_a_namespace_is_found_by_its_name_label(scene: Scenario) -> None:
    named = {"matchLabels": {"kubernetes.io/metadata.name": "b"}}
    allow_from(scene, {"namespaceSelector": named})
    assert scene.reaches("b/web", "a/web")
    assert not scene.reaches("a/client", "a/web")


def test_a_namespace_that_is_not_known_matches_no_selector_that_asks_for_labels(
    scene: Scenario,
) -> None:
    missing = {"matchExpressions": [{"key": "team", "operator": "DoesNotExist"}]}
    allow_from(scene, {"namespaceSelector": missing})
    scene.delete(Kind.NAMESPACE, "b")
    assert not scene.reaches("b/client", "a/web")
    allow_from(scene, {"namespaceSelector": {}})
    assert scene.reaches("b/client", "a/web")


def test_a_block_matches_outside_nodes_and_pods(scene: Scenario) -> None:
    allow_from(
        scene,
        scene.block("8.8.0.0/16", "2606::/16"),
        scene.block("192.0.2.2/32", "2001:db8::2/128"),
        scene.block("10.244.2.0/24", "fd00:2::/64"),
    )
    assert scene.reaches(scene.text("8.8.8.8", "2606::1"), "a/web")
    assert scene.reaches("n2", "a/web")
    assert scene.reaches("b/far", "a/web")
    assert not scene.reaches("b/client", "a/web")


def test_except_holds_within_its_element_only(scene: Scenario) -> None:
    outside, hole = (
        scene.text("203.0.113.9", "2001:db8:9::9"),
        ("203.0.113.0/28", "2001:db8:9::/64"),
    )
    wide = scene.block("203.0.113.0/24", "2001:db8:9::/48", hole)
    allow_from(scene, wide)
    assert not scene.reaches(outside, "a/web")
    assert scene.reaches(scene.text("203.0.113.99", "2001:db8:9:1::9"), "a/web")
    allow_from(scene, wide, scene.block(f"{outside}/32", f"{outside}/128"))
    assert scene.reaches(outside, "a/web")


def test_a_block_may_lie_inside_another_ones_hole(scene: Scenario) -> None:
    hole = ("10.244.0.0/16", "fd00::/16")
    allow_from(
        scene,
        scene.block("10.0.0.0/8", "fc00::/7", hole),
        scene.block("10.244.2.0/28", "fd00:2::/96"),
    )
    assert scene.reaches(scene.text("10.1.1.1", "fc00::1"), "a/web")
    assert scene.reaches(scene.text("10.244.2.3", "fd00:2::3"), "a/web")
    assert not scene.reaches(scene.text("10.244.2.200", "fd00:2:0:0:1::"), "a/web")


def test_a_hole_as_large_as_its_block_leaves_nothing(scene: Scenario) -> None:
    allow_from(scene, scene.block("203.0.113.0/24", "2001:db8:9::/48",
                                  ("203.0.0.0/16", "2001:db8::/32")))  # fmt: skip
    assert not scene.reaches(scene.text("203.0.113.9", "2001:db8:9::9"), "a/web")


def test_sloppy_prefixes_mean_what_the_api_server_reads(scene: Scenario) -> None:
    allow_from(scene, {"ipBlock": {"cidr": scene.text("203.000.113.077/24", "2001:DB8:9::77/48")}})
    assert scene.reaches(scene.text("203.0.113.9", "2001:db8:9::9"), "a/web")


def test_a_mapped_prefix_is_an_ipv4_prefix() -> None:
    scene = Scenario(4)
    allow_from(scene, {"ipBlock": {"cidr": "::ffff:203.0.113.0/120"}})
    assert scene.reaches("203.0.113.9", "a/web")
    assert not scene.reaches("203.0.114.9", "a/web")


def test_everything_of_one_family_is_nothing_of_the_other() -> None:
    for family, cidr in ((4, "::/0"), (6, "0.0.0.0/0")):
        scene = Scenario(family)
        allow_from(scene, {"ipBlock": {"cidr": cidr}})
        assert not scene.reaches(scene.text("8.8.8.8", "2606::1"), "a/web")
        assert not scene.reaches("b/client", "a/web")


def test_no_prefix_covers_the_other_family() -> None:
    everything = [prefix_of(ip_network(text)) for text in ("::/0", "0.0.0.0/0", "10.0.0.0/8")]
    covers = [[outer.covers(*inner) for inner in everything] for outer in everything]
    assert covers == [[True, False, False], [False, True, True], [False, False, True]]


def test_the_root_of_ipv4_is_a_row_of_its_own_beside_an_ipv6_default() -> None:
    scene = Scenario(6)
    allow_from(scene, {"ipBlock": {"cidr": "::/0"}})
    blocks = {
        key: value for (table, key), value in planned(scene.world).items() if table == "blocks"
    }
    root = next(value for key, value in blocks.items() if PrefixKey.unpack(key).prefix_len == 96)
    assert unpack_u64(root) == 0


def test_a_pod_on_the_hosts_network_is_its_node(scene: Scenario) -> None:
    scene.host_pod("b/host", "n2", app="client")
    allow_from(scene, {"namespaceSelector": {}}, {"podSelector": CLIENT})
    assert not scene.reaches("n2", "a/web")
    allow_from(scene, scene.block("192.0.2.2/32", "2001:db8::2/128"))
    assert scene.reaches("n2", "a/web")


def test_a_nodes_address_in_its_pod_cidr_is_that_node(scene: Scenario) -> None:
    """Through the tunnel a node's own traffic comes from there."""
    gateway = scene.text("10.244.2.1", "fd00:2::1")
    allow_from(scene, {"namespaceSelector": {}}, scene.block("10.244.0.0/16", "fd00::/16"))
    assert not scene.reaches(gateway, "a/web")
    allow_from(scene, scene.block("192.0.2.2/32", "2001:db8::2/128"))
    assert scene.reaches(gateway, "a/web")
    scene.delete(Kind.NODE, "n2")
    assert not scene.reaches(gateway, "a/web")


def test_an_unknown_address_of_a_pod_cidr_passes_only_where_any_pod_would(scene: Scenario) -> None:
    fresh = scene.text("10.244.2.200", "fd00:2::abcd")
    allow_from(scene, {"namespaceSelector": {}})
    assert scene.reaches(fresh, "a/web")
    assert not scene.reaches(scene.text("10.244.9.9", "fd00:9::9"), "a/web")
    allow_from(scene, {"namespaceSelector": {}, "podSelector": CLIENT})
    assert not scene.reaches(fresh, "a/web")
    allow_from(scene, {"podSelector": {}})
    assert not scene.reaches(fresh, "a/web")


def test_a_block_inside_a_pod_cidr_keeps_its_unknown_pods(scene: Scenario) -> None:
    inside = scene.block("10.244.2.128/25", "fd00:2:0:0:8000::/65")
    scene.policy("a/other", policyTypes=["Egress"], egress=[{"to": [inside]}])
    allow_from(scene, {"namespaceSelector": {}})
    assert scene.reaches(scene.text("10.244.2.200", "fd00:2:0:0:8000::9"), "a/web")


def test_a_local_pod_is_known_by_its_link_before_kubelet_reports_its_address(
    scene: Scenario,
) -> None:
    allow_from(scene, {"podSelector": CLIENT})
    scene.pod("a/new", node="n2", phase="Pending", app="client")
    address = scene.text("10.244.1.99", "fd00:1::99")
    assert not scene.reaches(address, "a/web")
    scene.link("a/new", "10.244.1.99", "fd00:1::99", uid="uid a/new")
    assert scene.reaches(address, "a/web")


def test_what_a_peer_does_not_say_matches_nothing(scene: Scenario) -> None:
    scene.policy("a/p", podSelector=WEB, ingress=[{"from": [{"endpointSelector": {}}]}])
    assert not scene.reaches("a/client", "a/web")
    scene.policy("a/p", podSelector=WEB, ingress=[{"from": [{"ipBlock": {"cidr": "ten"}}]}])
    assert not scene.reaches("a/client", "a/web")
