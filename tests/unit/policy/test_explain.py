"""Why a connection passes or not, in words that name policy and rule."""

from tests.unit.policy.scenario import CLIENT, WEB, Scenario
from weft.proxy.model.objects import Ref
from weft.proxy.plan.policy import problems
from weft.proxy.plan.policy_rules import Direction


def test_a_pod_that_no_policy_selects_says_so(scene: Scenario) -> None:
    said = scene.why(Direction.INGRESS, "a/web", "b/client")
    assert said.allowed
    assert said.reason == "no policy isolates a/web for ingress"


def test_the_rule_that_allows_is_named(scene: Scenario) -> None:
    rules = [{"from": [{"podSelector": WEB}]}, {"from": [{"podSelector": CLIENT}]}]
    scene.policy("a/deny", policyTypes=["Ingress"])
    scene.policy("a/p", ingress=rules)
    said = scene.why(Direction.INGRESS, "a/web", "a/client")
    assert (said.allowed, said.policy, said.rule) == (True, Ref("a", "p"), 1)
    assert said.reason == "isolated for ingress by a/deny, a/p; allowed by ingress[1] of a/p"


def test_a_default_deny_has_no_nearest_rule(scene: Scenario) -> None:
    scene.policy("a/deny", policyTypes=["Ingress"])
    said = scene.why(Direction.INGRESS, "a/web", "a/client")
    assert (said.allowed, said.policy) == (False, None)
    assert said.isolating == (Ref("a", "deny"),)
    assert said.reason == "isolated for ingress by a/deny; none has a rule for ingress"


def test_the_nearest_rule_says_where_it_fails(scene: Scenario) -> None:
    scene.policy(
        "a/p",
        ingress=[
            {"from": [{"podSelector": WEB}], "ports": [{"port": 80}]},
            {"from": [{"podSelector": CLIENT}], "ports": [{"port": 443}]},
        ],
    )
    said = scene.why(Direction.INGRESS, "a/web", "a/client")
    assert (said.allowed, said.policy, said.rule) == (False, Ref("a", "p"), 1)
    assert said.reason.endswith("ingress[1] of a/p, fails: TCP/80 is not among its ports")
    said = scene.why(Direction.INGRESS, "a/web", "b/far")
    peer = f"{scene.ip('b/far')} (b/far)"
    assert said.reason.endswith(f"ingress[0] of a/p, fails: none of its peers is {peer}")


def test_the_explanation_carries_what_a_drop_event_does(scene: Scenario) -> None:
    scene.policy("a/p", ingress=[{"from": [{"podSelector": CLIENT}], "ports": [{"port": 443}]}])
    said = scene.why(Direction.INGRESS, "a/web", "a/client", "TCP/443")
    assert said.set_id
    assert said.port_class == 1


def test_a_policy_that_is_not_understood_is_a_problem_of_the_node(scene: Scenario) -> None:
    scene.policy("a/p", ingress=[{"from": [{"ipBlock": {"cidr": "ten"}}]}])
    found = list(problems(scene.world))
    assert [str(ref) for ref, _ in found] == ["a/p"]
    assert "ten" in found[0][1]
