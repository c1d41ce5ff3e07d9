"""NetworkPolicy from JSON: what its fields mean, and that nothing misunderstood ever opens."""

from ipaddress import ip_network
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from weft.proxy.model.decode import decode, decode_manifest
from weft.proxy.model.objects import (
    Broken,
    IPBlock,
    Kind,
    NetworkPolicy,
    Operator,
    Peer,
    PolicyPort,
    Protocol,
    Ref,
    Requirement,
    Rule,
    Selector,
)

EVERYTHING = Selector()
WEB = {"podSelector": {"matchLabels": {"app": "web"}}}


def read(spec: object) -> NetworkPolicy:
    manifest = {"metadata": {"name": "p", "namespace": "shop"}, "spec": spec}
    record = decode(Kind.POLICY, msgspec.json.encode(manifest))
    assert isinstance(record, NetworkPolicy)
    return record


def only_rule(rule: object) -> Rule:
    policy = read({"ingress": [rule]})
    assert policy.broken == ""
    return policy.ingress[0]


# --- What it means ------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("spec", "ingress", "egress"),
    [
        ({}, True, False),
        ({"policyTypes": None}, True, False),
        ({"policyTypes": []}, True, False),
        ({"egress": []}, True, False),
        ({"egress": [{}]}, True, True),
        ({"policyTypes": ["Ingress"], "egress": [{}]}, True, False),
        ({"policyTypes": ["Egress"], "ingress": [{}]}, False, True),
        ({"policyTypes": ["Ingress", "Egress"]}, True, True),
    ],
)
def test_policy_types_default_to_ingress_and_egress_if_it_has_rules(
    spec: object, ingress: bool, egress: bool
) -> None:
    policy = read(spec)
    assert (policy.isolates_ingress, policy.isolates_egress) == (ingress, egress)
    assert policy.broken == ""


def test_the_section_of_a_type_that_is_not_named_is_ignored() -> None:
    policy = read({"policyTypes": ["Egress"], "ingress": [{}], "egress": [{}]})
    assert (policy.ingress, policy.egress) == ((), (Rule(),))


def test_an_absent_selector_of_the_policy_selects_every_pod_as_an_empty_one_does() -> None:
    assert read({}).pods == read({"podSelector": {}}).pods == EVERYTHING


def test_an_empty_rule_allows_everyone_and_no_rules_nobody() -> None:
    assert read({"ingress": [{}]}).ingress == (Rule(),)
    assert read({"ingress": [{"from": [], "ports": None}]}).ingress == (Rule(),)
    assert read({"ingress": []}).ingress == read({"ingress": None}).ingress == ()


def test_an_absent_selector_of_a_peer_is_not_an_empty_one() -> None:
    peers = only_rule({"from": [WEB, {"namespaceSelector": {}}, {"podSelector": {}, **WEB}]}).peers
    web = Selector(labels=(("app", "web"),))
    assert peers == (Peer(pods=web), Peer(namespaces=EVERYTHING), Peer(pods=web))


def test_a_selector_holds_its_labels_and_all_its_expressions() -> None:
    terms = [
        {"key": "tier", "operator": "In", "values": ["b", "a"]},
        {"key": "old", "operator": "DoesNotExist"},
    ]
    written = {"matchLabels": {"z": "1", "a": "2"}, "matchExpressions": terms}
    assert read({"podSelector": written}).pods == Selector(
        (("a", "2"), ("z", "1")),
        (
            Requirement("tier", Operator.IN, ("a", "b")),
            Requirement("old", Operator.DOES_NOT_EXIST, ()),
        ),
    )


@pytest.mark.parametrize(
    ("cidr", "means"),
    [
        ("10.0.0.7/8", "10.0.0.0/8"),
        ("010.0.0.0/08", "10.0.0.0/8"),
        ("::ffff:10.0.0.0/104", "10.0.0.0/8"),
        ("fd00::1/64", "fd00::/64"),
    ],
)
def test_a_block_is_read_as_sloppily_as_the_api_stored_it(cidr: str, means: str) -> None:
    rule = only_rule({"from": [{"ipBlock": {"cidr": cidr, "except": [cidr]}}]})
    assert rule.peers == (Peer(block=IPBlock(ip_network(means), (ip_network(means),))),)


@pytest.mark.parametrize(
    ("port", "means"),
    [
        ({}, PolicyPort(Protocol.TCP)),
        ({"protocol": None, "port": None}, PolicyPort(Protocol.TCP)),
        ({"protocol": "UDP"}, PolicyPort(Protocol.UDP)),
        ({"port": 80}, PolicyPort(Protocol.TCP, 80)),
        ({"port": 80, "endPort": 90}, PolicyPort(Protocol.TCP, 80, 90)),
        ({"port": "http", "protocol": "SCTP"}, PolicyPort(Protocol.SCTP, "http")),
    ],
)
def test_a_port_is_a_number_a_range_a_name_or_all_of_a_protocol(
    port: object, means: PolicyPort
) -> None:
    assert only_rule({"ports": [port]}).ports == (means,)


# --- What is not understood ---------------------------------------------------------------------
@pytest.mark.parametrize(
    "peer",
    [
        {},
        7,
        {"ipBlock": {"cidr": "10.0.0.0/8"}, "podSelector": {}},
        {"ipBlock": {"cidr": "10.0.0/8"}},
        {"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.0.0.1"]}},
        {"ipBlock": {"cidr": "10.0.0.0/8", "except": "10.0.0.0/9"}},
        {"ipBlock": {}},
        {"podSelector": {"matchLabels": ["a"]}},
        {"podSelector": {"matchExpressions": [{"key": "a", "operator": "Near"}]}},
        {"podSelector": {"matchExpressions": [{"key": "a", "operator": "In"}]}},
        {
            "podSelector": {
                "matchExpressions": [{"key": "a", "operator": "Exists", "values": ["b"]}]
            }
        },
        {"podSelector": {}, "namespaceSelector": 1},
        {"fqdn": "example.com"},
        {"podSelector": {}, "nodeSelector": {}},
    ],
)
def test_a_peer_that_is_not_understood_lets_nobody_in(peer: object) -> None:
    policy = read({"ingress": [{"from": [peer]}]})
    assert policy.ingress == ()
    assert "ingress[0].from[0]" in policy.broken
    beside = read({"ingress": [{"from": [peer, WEB]}]})
    assert beside.ingress == (Rule(peers=(Peer(pods=Selector((("app", "web"),))),)),)


@pytest.mark.parametrize(
    "port",
    [
        7,
        {"port": 0},
        {"port": 65536},
        {"port": True},
        {"port": 80.5},
        {"protocol": "ICMP"},
        {"endPort": 90},
        {"port": "http", "endPort": 90},
        {"port": 80, "endPort": 79},
    ],
)
def test_a_port_that_is_not_understood_opens_none(port: object) -> None:
    policy = read({"ingress": [{"ports": [port]}]})
    assert policy.ingress == ()
    assert "ingress[0].ports[0]" in policy.broken
    beside = read({"ingress": [{"ports": [port, {"port": 80}]}]})
    assert beside.ingress == (Rule(ports=(PolicyPort(Protocol.TCP, 80),)),)


@pytest.mark.parametrize("rules", [7, "all", [None], [[]], {"0": {}}])
def test_rules_that_are_not_understood_allow_nothing(rules: object) -> None:
    policy = read({"policyTypes": ["Ingress"], "ingress": rules})
    assert (policy.isolates_ingress, policy.ingress) == (True, ())
    assert "ingress" in policy.broken


@pytest.mark.parametrize("peers", [7, {"podSelector": {}}, "all"])
def test_peers_that_are_no_list_let_nobody_in(peers: object) -> None:
    assert read({"ingress": [{"from": peers}]}).ingress == ()


@pytest.mark.parametrize("selector", [7, [], {"matchLabels": {"a": 1}}])
def test_a_policy_whose_pods_cannot_be_told_isolates_all_and_allows_nothing(
    selector: object,
) -> None:
    policy = read({"podSelector": selector, "ingress": [{}], "egress": [{}]})
    assert policy.pods == EVERYTHING
    assert (policy.isolates_ingress, policy.isolates_egress) == (True, True)
    assert (policy.ingress, policy.egress) == ((), ())
    assert "podSelector" in policy.broken


@pytest.mark.parametrize("types", ["Ingress", 7, ["Ingress", "Sideways"], [None]])
def test_a_type_that_is_not_understood_isolates_both_ways(types: object) -> None:
    policy = read({"policyTypes": types})
    assert (policy.isolates_ingress, policy.isolates_egress) == (True, True)
    assert "policyTypes" in policy.broken


@pytest.mark.parametrize("spec", [None, 7, []])
def test_a_policy_without_a_readable_spec_isolates_every_pod_both_ways(spec: object) -> None:
    policy = read(spec)
    assert policy.pods == EVERYTHING
    assert (policy.isolates_ingress, policy.isolates_egress) == (True, True)
    assert (policy.ingress, policy.egress) == ((), ())
    assert policy.broken


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-1, 70000) | st.sampled_from(("a", "Ingress", "::/0")),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(
            st.sampled_from((
                "podSelector", "policyTypes", "ingress", "egress", "from", "to", "ports", "port",
                "ipBlock", "cidr", "except", "matchLabels", "matchExpressions", "key", "operator",
            )),
            inner,
            max_size=3,
        )
    ),
)  # fmt: skip


@given(spec=JSON)
def test_any_json_gives_a_policy_that_isolates(spec: Any) -> None:
    policy = read(spec)
    assert policy.isolates_ingress or policy.isolates_egress


def test_a_manifest_is_read_by_the_same_code() -> None:
    manifest = {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": "p", "namespace": "shop"},
        "spec": {"ingress": [{"from": [WEB]}]},
    }
    assert decode_manifest(manifest) == (Kind.POLICY, read(manifest["spec"]))


def test_a_policy_without_a_name_is_broken() -> None:
    broken = decode(Kind.POLICY, b'{"metadata":{},"spec":{}}')
    assert isinstance(broken, Broken)
    assert broken.ref == Ref("", "")
