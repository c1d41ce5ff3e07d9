"""Owns which policies judge a local workload, and with them its two rule sets.

Pure: World -> Judged. A pod that the API has not shown yet is closed both ways (policy S23).
"""

from collections.abc import Iterable
from dataclasses import dataclass

from weft.proxy.model.objects import NetworkPolicy, Pod, Ref, ServicePort, Workload
from weft.proxy.model.world import World
from weft.proxy.plan.policy_atoms import selects
from weft.proxy.plan.policy_rules import CLOSED, Direction, RuleSet, isolates, rule_set


@dataclass(frozen=True, slots=True)
class Side:
    """One direction of a workload: its set, None when not isolated, and the policies behind it."""

    set: RuleSet | None
    policies: tuple[Ref, ...]


@dataclass(frozen=True, slots=True)
class Judged:
    ingress: Side
    egress: Side

    def side(self, direction: Direction) -> Side:
        return self.ingress if direction is Direction.INGRESS else self.egress

    def sets(self) -> Iterable[RuleSet]:
        return (side.set for side in (self.ingress, self.egress) if side.set is not None)


UNKNOWN = Judged(Side(CLOSED[Direction.INGRESS], ()), Side(CLOSED[Direction.EGRESS], ()))


def pod_of(world: World, workload: Workload) -> Pod | None:
    """The pod behind a link; None until the API shows the one with its UID.

    A runtime that gives no UID (cnitool, Podman) and a manifest without one go by name alone.
    """
    pod = world.pod(workload.ref)
    if pod is None or (workload.uid and pod.uid and workload.uid != pod.uid):
        return None
    return pod


class Judge:
    """Judges workloads of one World; equal pods of a namespace are judged once."""

    __slots__ = ("_held", "_world")

    def __init__(self, world: World) -> None:
        self._world = world
        self._held: dict[tuple[str, frozenset[tuple[str, str]], tuple[ServicePort, ...]], Judged]
        self._held = {}

    def judge(self, workload: Workload) -> Judged:
        pod = pod_of(self._world, workload)
        if pod is None:
            return UNKNOWN
        likeness = (pod.ref.namespace, frozenset(pod.labels.items()), pod.named_ports)
        held = self._held.get(likeness)
        if held is None:
            held = self._held[likeness] = judged(self._world, pod)
        return held


def judged(world: World, pod: Pod) -> Judged:
    selecting = policies_of(world, pod)
    return Judged(*(_side(selecting, direction, pod) for direction in Direction))


def policies_of(world: World, pod: Pod) -> list[NetworkPolicy]:
    """The policies of the pod's namespace that select it (policy S1), by name."""
    policies = world.policies_in(pod.ref.namespace)
    return [p for _, p in sorted(policies.items()) if selects(p.pods, pod.labels)]


def _side(selecting: Iterable[NetworkPolicy], direction: Direction, pod: Pod) -> Side:
    isolating = [policy for policy in selecting if isolates(policy, direction)]
    if not isolating:
        return Side(None, ())
    rules = rule_set(isolating, direction, pod.named_ports)
    return Side(rules, tuple(policy.ref for policy in isolating))
