"""Who is isolated, and how rules add up (policy S1-S5, S15, S17, S20, S23-S25)."""

from tests.unit.policy.lookup import planned
from tests.unit.policy.scenario import CLIENT, EVERYONE, WEB, Scenario
from weft.proxy.model.objects import Kind
from weft.proxy.plan.policy import judgement, set_policies
from weft.proxy.plan.policy_rules import CLOSED, Direction


def test_without_a_policy_everyone_reaches_everyone(scene: Scenario) -> None:
    assert scene.reaches("b/client", "a/web")
    assert scene.reaches("8.8.8.8" if scene.family == 4 else "2606::1", "a/web")


def test_a_default_deny_closes_its_namespace_and_no_other(scene: Scenario) -> None:
    scene.policy("a/deny", policyTypes=["Ingress"])
    assert not scene.reaches("a/client", "a/web")
    assert not scene.reaches("b/client", "a/web", "ICMP")
    assert scene.reaches("a/client", "b/web")


def test_an_egress_policy_leaves_ingress_open(scene: Scenario) -> None:
    scene.policy("a/deny", policyTypes=["Egress"])
    assert scene.reaches("b/client", "a/web")
    assert not scene.reaches("a/web", "b/client")


def test_a_policy_speaks_for_the_pods_that_it_selects(scene: Scenario) -> None:
    scene.policy("a/deny", podSelector=WEB)
    assert not scene.reaches("b/client", "a/web")
    assert scene.reaches("b/client", "a/client")


def test_unset_policy_types_mean_ingress_and_egress_where_it_has_rules(scene: Scenario) -> None:
    scene.policy("a/deny", ingress=[{}])
    assert scene.reaches("a/web", "b/web")
    scene.policy("a/deny", ingress=[{}], egress=[{"to": [{"podSelector": CLIENT}]}])
    assert not scene.reaches("a/web", "b/web")
    assert scene.reaches("a/web", "a/client")


def test_an_ingress_section_of_an_egress_policy_is_ignored(scene: Scenario) -> None:
    scene.policy("a/p", policyTypes=["Egress"], ingress=[], egress=[{}])
    assert scene.reaches("b/client", "a/web")


def test_rules_of_all_policies_add_up_whatever_their_order(scene: Scenario) -> None:
    scene.policy("a/z", ingress=[{"from": [{"podSelector": CLIENT}]}])
    scene.policy("a/deny", policyTypes=["Ingress"])
    scene.policy(
        "a/b", ingress=[{"from": [{"namespaceSelector": {"matchLabels": {"team": "blue"}}}]}]
    )
    assert scene.reaches("a/client", "a/web")
    assert scene.reaches("b/web", "a/web")
    assert not scene.reaches("n2", "a/web")


def test_a_connection_needs_both_the_sources_egress_and_the_destinations_ingress(
    scene: Scenario,
) -> None:
    scene.policy("b/egress", policyTypes=["Egress"], egress=[{"to": [{"podSelector": {}}]}])
    assert not scene.reaches("b/client", "a/web")
    scene.policy("b/egress", policyTypes=["Egress"], egress=[{"to": [{"namespaceSelector": {}}]}])
    assert scene.reaches("b/client", "a/web")
    scene.policy("a/deny", policyTypes=["Ingress"])
    assert not scene.reaches("b/client", "a/web")


def test_the_empty_rule_allows_everything_and_nothing_takes_it_away(scene: Scenario) -> None:
    scene.policy("a/all", ingress=[EVERYONE])
    scene.policy("a/deny", policyTypes=["Ingress"])
    scene.policy("a/some", ingress=[{"from": [{"podSelector": WEB}], "ports": [{"port": 1}]}])
    assert scene.reaches("n2", "a/web", "SCTP/7")
    assert scene.reaches("b/far", "a/web", "ICMP")


def test_empty_peers_are_everyone_even_outside(scene: Scenario) -> None:
    scene.policy("a/p", ingress=[{"from": [], "ports": [{"port": 80}]}])
    assert scene.reaches(scene.text("8.8.8.8", "2606::1"), "a/web")
    assert not scene.reaches(scene.text("8.8.8.8", "2606::1"), "a/web", "TCP/81")


def test_rules_for_sctp_or_udp_isolate_and_never_open_tcp(scene: Scenario) -> None:
    ports = [{"protocol": "SCTP", "port": 80}, {"protocol": "UDP"}]
    scene.policy("a/p", ingress=[{"ports": ports}])
    assert scene.reaches("b/client", "a/web", "SCTP/80")
    assert scene.reaches("b/client", "a/web", "UDP/9")
    assert not scene.reaches("b/client", "a/web", "TCP/80")


def test_icmp_passes_only_where_a_rule_has_no_ports(scene: Scenario) -> None:
    scene.policy("a/p", ingress=[{"ports": [{}, {"protocol": "UDP"}, {"protocol": "SCTP"}]}])
    assert not scene.reaches("b/client", "a/web", "ICMP")
    scene.policy("a/p", ingress=[{"from": [{"namespaceSelector": {}}]}])
    assert scene.reaches("b/client", "a/web", "ICMP")


def test_a_pod_that_the_api_has_not_shown_starts_closed(scene: Scenario) -> None:
    scene.link("a/new", "10.244.1.99", "fd00:1::99")
    link = scene.world.workload("a/new")
    assert link is not None
    assert judgement(scene.world, link).ingress_set == CLOSED[Direction.INGRESS].id
    assert not scene.reaches("a/client", scene.text("10.244.1.99", "fd00:1::99"))
    assert "closed until" in scene.why(Direction.INGRESS, "a/new", "a/client").reason


def test_a_link_of_an_earlier_pod_of_that_name_stays_closed(scene: Scenario) -> None:
    """A StatefulSet's new pod has the old one's name and another UID."""
    ips = [str(a) for a in scene.world.workload("a/web").addresses]  # type: ignore[union-attr]
    scene.link("a/web", *ips, uid="another")
    assert not scene.reaches("a/client", "a/web")


def test_a_label_that_changes_moves_the_pod_between_policies(scene: Scenario) -> None:
    scene.policy("a/p", podSelector=WEB, ingress=[{"from": [{"podSelector": CLIENT}]}])
    assert scene.reaches("a/client", "a/web")
    scene.pod("a/client", app="other")
    assert not scene.reaches("a/client", "a/web")
    scene.pod("a/web", app="other")
    assert scene.reaches("a/client", "a/web")


def test_a_namespace_that_is_relabelled_moves_its_pods(scene: Scenario) -> None:
    red = {"namespaceSelector": {"matchLabels": {"team": "red"}}}
    scene.policy("a/p", ingress=[{"from": [red]}])
    assert not scene.reaches("b/client", "a/web")
    scene.namespace("b", team="red")
    assert scene.reaches("b/client", "a/web")


def test_a_policy_that_is_deleted_opens_again(scene: Scenario) -> None:
    scene.policy("a/deny", policyTypes=["Ingress"])
    assert not scene.reaches("b/client", "a/web")
    scene.delete(Kind.POLICY, "a/deny")
    assert scene.reaches("b/client", "a/web")


def test_a_finished_pod_leaves_its_address_to_the_next(scene: Scenario) -> None:
    scene.policy("a/p", ingress=[{"from": [{"podSelector": CLIENT}]}])
    scene.pod("a/job", node="n2", app="client")
    address = str(scene.ip("a/job"))
    assert scene.reaches(address, "a/web")
    scene.pod("a/job", node="n2", phase="Succeeded", app="client")
    assert not scene.reaches(address, "a/web")


def test_an_address_that_two_pods_claim_has_what_both_may(scene: Scenario) -> None:
    """policy S24: the record of a pod that is gone may outlive its address."""
    scene.policy("a/p", ingress=[{"from": [{"podSelector": CLIENT}]}])
    scene.pod("a/old", node="n2", app="client")
    for app, expected in (("client", True), ("web", False)):
        scene.pod("a/new", node="n2", ips_of="a/old", app=app)
        assert scene.reaches("a/old", "a/web") == expected
    scene.delete(Kind.POD, "a/new")
    assert scene.reaches("a/old", "a/web")


def test_equal_pods_share_one_set_and_it_names_its_policies(scene: Scenario) -> None:
    scene.policy("a/p", ingress=[{"from": [{"podSelector": CLIENT}]}])
    scene.policy("a/q", policyTypes=["Ingress"])
    links = [scene.world.workload(name) for name in ("a/web", "a/client")]
    sets = {judgement(scene.world, link).ingress_set for link in links if link}
    assert len(sets) == 1
    assert [str(ref) for ref in set_policies(scene.world, sets.pop())] == ["a/p", "a/q"]
    assert set_policies(scene.world, 12345) == ()


def test_an_address_of_two_links_is_nobodys_while_one_of_their_pods_is_unknown(
    scene: Scenario,
) -> None:
    scene.policy("a/p", podSelector=WEB, ingress=[{"from": [{"podSelector": CLIENT}]}])
    client = str(scene.ip("a/client"))
    assert scene.reaches(client, "a/web")
    scene.link("a/ghost", client)
    assert not scene.why(Direction.INGRESS, "a/web", client).allowed
    assert scene.why(Direction.INGRESS, "a/web", "b/client").set_id


def test_a_rule_for_everyone_leaves_nothing_to_tell_apart(scene: Scenario) -> None:
    """Equal rules, however they are written, are one set; what adds nothing costs no rows."""
    rule = {"ports": [{"port": 80}]}
    narrower = {"from": [{"podSelector": CLIENT}], "ports": [{"port": 80, "endPort": 80}]}
    scene.policy("a/p", ingress=[rule, narrower])
    scene.policy("b/p", ingress=[rule])
    links = [scene.world.workload(name) for name in ("a/web", "b/web")]
    assert len({judgement(scene.world, link).ingress_set for link in links if link}) == 1
    assert sorted(table for table, _ in planned(scene.world)) == ["ports", "verdicts"]
