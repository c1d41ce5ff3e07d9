"""NetworkPolicies and the local pods that the kernel judges by them."""

from collections.abc import AsyncIterator, Iterator, Mapping

from weft.proxy.api import weft_pb2 as pb
from weft.proxy.loop import View
from weft.proxy.model.objects import NetworkPolicy, Workload
from weft.proxy.model.world import World
from weft.proxy.observe import workloads
from weft.proxy.observe.reading import DONE, Reading, read
from weft.proxy.plan import policy as planned
from weft.proxy.plan.policy_atoms import selects
from weft.proxy.plan.policy_judge import pod_of


async def list_policies(view: View, request: pb.ListRequest) -> AsyncIterator[pb.Policy]:
    """Policies by name, those included that select no pod here."""
    reading = await read(view, ("workloads",), whole=True)
    judged = _judged(reading)
    problems = dict(planned.problems(reading.world))
    wanted = (
        policy
        for policy in reading.world.policies()
        if request.namespace in ("", policy.ref.namespace) and request.name in ("", policy.ref.name)
    )
    # At once: what policy says of a World is remembered for the latest few only.
    messages = [
        _policy(reading, p, judged.get(str(p.ref), ()), problems.get(p.ref, p.broken))
        for p in sorted(wanted, key=lambda policy: policy.ref)
    ]
    for message in messages:
        yield message


def _judged(reading: Reading) -> Mapping[str, tuple[str, ...]]:
    """Policy -> the local workloads that the kernel judges by it, both as namespace/name."""
    found: dict[str, tuple[str, ...]] = {}
    for workload in sorted(reading.world.workloads(), key=lambda workload: workload.ref):
        message = workloads.describe(reading, workload)
        for policy in sorted({*message.ingress.policies, *message.egress.policies}):
            found[policy] = (*found.get(policy, ()), str(workload.ref))
    return found


def _policy(
    reading: Reading, policy: NetworkPolicy, judged: tuple[str, ...], problem: str
) -> pb.Policy:
    return pb.Policy(
        namespace=policy.ref.namespace,
        name=policy.ref.name,
        ingress=policy.isolates_ingress,
        egress=policy.isolates_egress,
        workloads=judged,
        broken=problem,
        status=_status(reading, policy),
    )


def _status(reading: Reading, policy: NetworkPolicy) -> pb.RowStatus:
    """The first workload that is late with its row, of those that the policy selects."""
    late = (workloads.status(reading, w) for w in _selected(reading.world, policy))
    return next((status for status in late if status.state != pb.RowStatus.DONE), DONE)


def _selected(world: World, policy: NetworkPolicy) -> Iterator[Workload]:
    for workload in world.workloads_in(policy.ref.namespace):
        pod = pod_of(world, workload)
        if pod is not None and selects(policy.pods, pod.labels):
            yield workload
