"""Why a policy dropped a packet, in the names of its author."""

from dataclasses import dataclass

from weft.bpf.layout import Event, Reason
from weft.proxy.model.world import World
from weft.proxy.plan import policy_explain
from weft.proxy.plan.policy import set_policies
from weft.proxy.plan.policy_rules import Direction


@dataclass(frozen=True, slots=True)
class Verdict:
    """policies: those that isolate the pod, namespace/name; explanation: one sentence."""

    policies: tuple[str, ...] = ()
    explanation: str = ""


def explain(world: World, event: Event) -> Verdict:
    """What stands behind the rule set that judged `event`, a policy drop.

    The explanation is of now: where policies have moved since the drop, it says so.
    """
    packet = event.tuple
    ingress = event.reason == Reason.POLICY_INGRESS
    direction = Direction.INGRESS if ingress else Direction.EGRESS
    own, peer = (packet.dst, packet.src) if ingress else (packet.src, packet.dst)
    behind = tuple(str(ref) for ref in set_policies(world, event.set))
    for workload in world.workloads_at(own):
        answer = policy_explain.explain(
            world, direction, workload, peer, packet.proto, packet.dport
        )
        if answer.set_id == event.set and not answer.allowed:
            return Verdict(tuple(map(str, answer.isolating)), answer.reason)
    return Verdict(behind, "the rules have changed since")
