"""Owns the answer to "why": who allows a connection, or what comes nearest and where it fails.

Asks the same compiled sets that the kernel's rows are made of. Pure.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from weft.proxy.model.objects import PROTOCOL_NUMBERS, Address, NetworkPolicy, Pod, Ref, Workload
from weft.proxy.model.world import World
from weft.proxy.plan.policy_claims import pods_behind
from weft.proxy.plan.policy_judge import UNKNOWN, Side, pod_of
from weft.proxy.plan.policy_prefix import number
from weft.proxy.plan.policy_rules import Direction, Grant, grants
from weft.proxy.plan.policy_world import book_of

_NAMES = {number: name.value for name, number in PROTOCOL_NUMBERS.items()}


@dataclass(frozen=True, slots=True)
class Explanation:
    """`isolating`: the policies that isolate the workload in this direction.

    policy, rule: the rule that allows, or the nearest one that does not; None: there is none.
    set_id, port_class: what the kernel's tables say of it; set 0: not isolated.
    """

    allowed: bool
    reason: str
    isolating: tuple[Ref, ...] = ()
    policy: Ref | None = None
    rule: int | None = None
    set_id: int = 0
    port_class: int = 0


@dataclass(frozen=True, slots=True)
class _Tried:
    policy: Ref
    grant: Grant
    peer_fits: bool
    port_fits: bool

    @property
    def fit(self) -> int:
        """How near the rule comes; a peer that fits says more than a port that does."""
        return 2 * self.peer_fits + self.port_fits


def explain(
    world: World,
    direction: Direction,
    workload: Workload,
    peer: Address,
    protocol: int,
    port: int,
) -> Explanation:
    """Whether policy lets `workload` have this connection with `peer`, and why.

    protocol: IPPROTO_*; port: the destination's, after translation; 0 where there is none.
    The workload's own node is allowed whatever this says (policy S17): the datapath knows it.
    """
    book = book_of(world)
    side = book.judged.get(workload.key, UNKNOWN).side(direction)
    if side.set is None:
        return Explanation(True, f"no policy isolates {workload.ref} for {direction}")
    pod = pod_of(world, workload)
    if pod is None:
        reason = f"{workload.ref} is closed until the API server has shown this pod"
        return Explanation(False, reason, set_id=side.set.id)
    atoms, port_class = book.atoms_at(number(peer)), side.set.classes.class_of(protocol, port)
    allowed = bool(side.set.allow(atoms) >> port_class & 1)
    tried = list(_tried(world, side, direction, pod, atoms, protocol, port))
    best = max(tried, key=lambda one: one.fit, default=None)
    wanted = f"{_NAMES.get(protocol, f'protocol {protocol}')}/{port}"
    return Explanation(
        allowed,
        _reason(side, direction, best, allowed, _named(world, peer), wanted),
        side.policies,
        best.policy if best else None,
        best.grant.rule if best else None,
        side.set.id,
        port_class,
    )


def _tried(
    world: World,
    side: Side,
    direction: Direction,
    pod: Pod,
    atoms: frozenset[int],
    protocol: int,
    port: int,
) -> Iterator[_Tried]:
    policies = (world.policy(ref) for ref in side.policies)
    for policy in (p for p in policies if isinstance(p, NetworkPolicy)):
        for grant in grants(policy, direction):
            yield _Tried(
                policy.ref,
                grant,
                grant.atoms is None or not atoms.isdisjoint(grant.atoms),
                grant.ports_for(pod.named_ports).allows(protocol, port),
            )


def _reason(
    side: Side, direction: Direction, best: _Tried | None, allowed: bool, peer: str, wanted: str
) -> str:
    isolated = f"isolated for {direction} by {', '.join(map(str, side.policies))}"
    if best is None:
        return f"{isolated}; none has a rule for {direction}"
    rule = f"{direction}[{best.grant.rule}] of {best.policy}"
    if allowed:
        return f"{isolated}; allowed by {rule}"
    return f"{isolated}; the nearest rule, {rule}, fails: {_failing(best, peer, wanted)}"


def _failing(best: _Tried, peer: str, wanted: str) -> str:
    faults = []
    if not best.peer_fits:
        faults.append(f"none of its peers is {peer}")
    if not best.port_fits:
        faults.append(best.grant.problem or f"{wanted} is not among its ports")
    return " and ".join(faults) or "its ports do not fit into the rule set's 256 port classes"


def _named(world: World, peer: Address) -> str:
    pods = [str(pod.ref) for pod in pods_behind(world, peer)]
    nodes = [f"node {node.ref}" for node in world.nodes_at(peer)]
    owners = ", ".join(pods or nodes)
    return f"{peer} ({owners})" if owners else str(peer)
