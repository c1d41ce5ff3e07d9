"""NetworkPolicies and the local pods that the kernel judges by them."""

from collections.abc import AsyncIterator, Iterator

from weft.proxy.api import weft_pb2 as pb
from weft.proxy.loop import View
from weft.proxy.model.objects import NetworkPolicy, Workload
from weft.proxy.observe import workloads
from weft.proxy.observe.reading import DONE, Reading, read
from weft.proxy.plan.policy_atoms import selects
from weft.proxy.plan.policy_rules import Direction, isolates


async def list_policies(view: View, request: pb.ListRequest) -> AsyncIterator[pb.Policy]:
    """Policies by name, those included that select no pod here."""
    reading = await read(view, ("workloads",), whole=True)
    wanted = (
        policy
        for policy in reading.world.policies()
        if request.namespace in ("", policy.ref.namespace) and request.name in ("", policy.ref.name)
    )
    for policy in sorted(wanted, key=lambda policy: policy.ref):
        yield _policy(reading, policy)


def _policy(reading: Reading, policy: NetworkPolicy) -> pb.Policy:
    selected = list(_selected(reading, policy))
    late = [w for w in selected if not _judged(reading, policy, w)]
    return pb.Policy(
        namespace=policy.ref.namespace,
        name=policy.ref.name,
        ingress=policy.isolates_ingress,
        egress=policy.isolates_egress,
        workloads=[str(workload.ref) for workload in selected if workload not in late],
        broken=policy.broken,
        status=_late_status(reading, late[0]) if late else DONE,
    )


def _selected(reading: Reading, policy: NetworkPolicy) -> Iterator[Workload]:
    here = reading.world.workloads_in(policy.ref.namespace)
    for workload in sorted(here, key=lambda workload: workload.ref):
        pod = reading.world.pod(workload.ref)
        if pod is not None and selects(policy.pods, pod.labels):
            yield workload


def _judged(reading: Reading, policy: NetworkPolicy, workload: Workload) -> bool:
    """Whether every row of the workload is isolated in every direction that the policy isolates."""
    directions = [d for d in Direction if isolates(policy, d)]
    return all(
        row is not None and all(workloads.judging(row, d)[0] for d in directions)
        for row in workloads.kernel_rows(reading, workload)
    )


def _late_status(reading: Reading, workload: Workload) -> pb.RowStatus:
    status = workloads.status(reading, workload)
    if status.state != pb.RowStatus.DONE:
        return status
    reason = f"{workload.ref} is not isolated by it in the kernel yet"
    return pb.RowStatus(state=pb.RowStatus.PENDING, reason=reason)
