"""Why a policy dropped a packet, in the names of its author."""

from dataclasses import dataclass

from weft.bpf.layout import Event, Reason
from weft.proxy.model.objects import Address
from weft.proxy.model.world import World
from weft.proxy.observe.workloads import isolating
from weft.proxy.plan.policy_rules import Direction


@dataclass(frozen=True, slots=True)
class Verdict:
    """policies: those that isolate the pod, namespace/name; explanation: one sentence."""

    policies: tuple[str, ...] = ()
    explanation: str = ""


def explain(world: World, event: Event) -> Verdict:
    """What the rule set that judged `event` came from."""
    ingress = event.reason == Reason.POLICY_INGRESS
    direction = Direction.INGRESS if ingress else Direction.EGRESS
    judged = event.tuple.dst if ingress else event.tuple.src
    policies = _isolating(world, judged, direction)
    if not policies:
        return Verdict((), "isolated until its policies are known")
    rules = "no rule of them allows it" if len(policies) > 1 else "no rule of it allows it"
    return Verdict(policies, rules)


def _isolating(world: World, address: Address, direction: Direction) -> tuple[str, ...]:
    found = {
        str(policy.ref): None
        for workload in world.workloads_at(address)
        for policy in isolating(world, workload, direction)
    }
    return tuple(found)
