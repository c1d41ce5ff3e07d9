"""Who holds an address, as the upper bits of a workload's revisions say it."""

from dataclasses import replace
from ipaddress import ip_address

import pytest

from tests.unit.plan.law import change
from weft.bpf.layout import Workload as WorkloadRow
from weft.proxy.model.objects import Kind, Namespace, Pod, Ref, Workload
from weft.proxy.model.world import Settings, World
from weft.proxy.plan.workloads import PLANNER

POD = Workload(
    key="weft0123456789",
    ref=Ref("shop", "web-0"),
    uid="11111111-2222",
    addresses=(ip_address("10.1.1.10"),),
    ifindex=7,
    mac=bytes(6),
    host_mac=bytes(6),
)


def row_of(workload: Workload) -> WorkloadRow:
    """Where the API shows its pod, and no policy."""
    pod = Pod(workload.ref, workload.uid, "n1", {}, workload.addresses, False, False)
    namespace = Namespace(Ref("", pod.ref.namespace), {})
    world = World(Settings("n1"))
    for kind, key, record in (
        (Kind.NAMESPACE, namespace.ref, namespace),
        (Kind.POD, pod.ref, pod),
        (Kind.ATTACHMENT, workload.key, workload),
    ):
        world = world.with_change(change(world, kind, key, record))
    (row,) = PLANNER.rows(world, workload.key)
    assert isinstance(row.value, bytes)
    return WorkloadRow.unpack(row.value)


def holder_of(workload: Workload) -> int:
    row = row_of(workload)
    assert row.ingress_revision >> 40 == row.egress_revision >> 40
    return row.ingress_revision >> 40


def test_a_pod_that_nothing_isolates_is_named_all_the_same() -> None:
    row = row_of(POD)
    assert (row.ingress_set, row.egress_set) == (0, 0)
    assert holder_of(POD) != 0
    assert row.ingress_revision & (1 << 40) - 1 == 0


@pytest.mark.parametrize(
    "other",
    [
        replace(POD, key="weft9876543210"),
        replace(POD, uid="33333333-4444"),
        replace(POD, ref=Ref("shop", "web-1")),
    ],
    ids=["sandbox", "uid", "name"],
)
def test_another_pod_and_another_sandbox_of_it_are_told_apart(other: Workload) -> None:
    assert holder_of(other) != holder_of(POD)


def test_where_its_link_is_today_does_not_matter() -> None:
    moved = replace(POD, ifindex=9, netns_cookie=4711)
    assert holder_of(moved) == holder_of(POD)
