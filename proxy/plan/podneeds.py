"""Owns which pods are kept out of Weft's shortcuts, and why: annotations, and what others hung on
their links. Asked by the planners of workloads, hooks and sandboxes, and by those who explain.

Yields no rows of its own.
"""

from collections.abc import Iterable, Iterator

from weft.proxy.model.objects import Kind, Need, Pod, Workload
from weft.proxy.model.world import Change, World
from weft.proxy.plan.policy_judge import pod_of

_INGRESS_QDISCS = frozenset(("ingress", "clsact"))


def keeps_own_sockets(world: World, workload: Workload) -> bool:
    """Whether its sockets are left alone: a mesh that redirects in the pod must see the VIP."""
    needs = _needs(world, workload)
    return Need.NO_SOCKET_HOOK in needs or Need.MESH in needs


def stack_reasons(world: World, workload: Workload) -> tuple[str, ...]:
    """Why its packets take the node's stack, for people to read; (): they are redirected."""
    needs = [need for need in _needs(world, workload) if need in (Need.NO_REDIRECT, Need.SHAPED)]
    qdiscs = [f"qdisc {kind} on its link" for kind in _qdiscs(world, workload)]
    return (*needs, *qdiscs)


def hooks_stand_alone(world: World, workload: Workload) -> bool:
    """Whether its link's ingress qdisc is another's: ours then run beside it, not in a clsact."""
    return Need.SHAPED in _needs(world, workload) or not _INGRESS_QDISCS.isdisjoint(
        _qdiscs(world, workload)
    )


def need_keys(change: Change, before: World, after: World) -> Iterator[str]:
    """The keys of the workloads of which a change can alter any of this."""
    if change.kind in (Kind.ATTACHMENT, Kind.SHAPING):
        yield str(change.key)
    elif change.kind is Kind.POD and _of_pod(change.before) != _of_pod(change.after):
        for pod in (change.before, change.after):
            if isinstance(pod, Pod):
                yield from (workload.key for workload in after.workloads_of(pod.ref))


def _of_pod(record: object) -> object:
    return (record.uid, record.needs) if isinstance(record, Pod) else ("", ())


def _needs(world: World, workload: Workload) -> Iterable[Need]:
    pod = pod_of(world, workload)
    return pod.needs if pod is not None else ()


def _qdiscs(world: World, workload: Workload) -> Iterable[str]:
    shaping = world.shaping(workload.key)
    return shaping.qdiscs if shaping is not None else ()
