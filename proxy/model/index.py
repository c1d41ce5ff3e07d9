"""Owns the relations between records that planners ask for, and how a change moves them.

An index files records of one kind under groups (a slice under its Service). Never decides anything.
"""

from collections.abc import Callable, Hashable, Iterable, Mapping
from enum import StrEnum
from typing import Any

from immutables import Map, MapMutation

from weft.proxy.model.objects import (
    EndpointSlice,
    Kind,
    NetworkPolicy,
    Node,
    Pod,
    Record,
    Ref,
    Service,
    Sighting,
    Workload,
)

Key = Ref | str
Groups = Map[Hashable, Map[Key, Record]]
Move = tuple[Key, Record | None, Record | None]


class Index(StrEnum):
    """What is found by what."""

    SLICES_BY_SERVICE = "slices by service"
    SERVICES_BY_ADDRESS = "services by address"
    SERVICES_BY_EXPOSED = "services by exposed address"
    SERVICES_BY_NODE_PORT = "services by node port"
    PODS_BY_NAMESPACE = "pods by namespace"
    PODS_BY_ADDRESS = "pods by address"
    POLICIES_BY_NAMESPACE = "policies by namespace"
    WORKLOADS_BY_POD = "workloads by pod"
    WORKLOADS_BY_NAMESPACE = "workloads by namespace"
    WORKLOADS_BY_ADDRESS = "workloads by address"
    SIGHTINGS_BY_POD = "sightings by pod"
    NODES_BY_POD_CIDR = "nodes by podCIDR"
    NODES_BY_ADDRESS = "nodes by address"


def service_of(record: EndpointSlice) -> tuple[Ref, ...]:
    """The Service that a slice belongs to; none when it is to be ignored."""
    return (Ref(record.ref.namespace, record.service),) if record.service else ()


def _cluster_ips(record: Service) -> Iterable[Hashable]:
    return record.cluster_ips


def _exposed(record: Service) -> Iterable[Hashable]:
    return (*record.load_balancer_ips, *record.external_ips)


def _node_ports(record: Service) -> Iterable[Hashable]:
    return tuple((port.protocol, port.node_port) for port in record.ports if port.node_port)


def _namespace(record: Pod | NetworkPolicy | Workload) -> Iterable[Hashable]:
    return (record.ref.namespace,)


def _addresses(record: Pod | Workload | Node) -> Iterable[Hashable]:
    return record.addresses


def _pod(record: Workload | Sighting) -> Iterable[Hashable]:
    return (record.ref,)


def _pod_cidrs(record: Node) -> Iterable[Hashable]:
    return record.pod_cidrs


# Any: a function takes its own kind's record, which a mapping's type cannot say.
GroupsOf = Callable[[Any], Iterable[Hashable]]
INDEXES: Mapping[Kind, Mapping[Index, GroupsOf]] = {
    Kind.SERVICE: {
        Index.SERVICES_BY_ADDRESS: _cluster_ips,
        Index.SERVICES_BY_EXPOSED: _exposed,
        Index.SERVICES_BY_NODE_PORT: _node_ports,
    },
    Kind.SLICE: {Index.SLICES_BY_SERVICE: service_of},
    Kind.POD: {Index.PODS_BY_NAMESPACE: _namespace, Index.PODS_BY_ADDRESS: _addresses},
    Kind.POLICY: {Index.POLICIES_BY_NAMESPACE: _namespace},
    Kind.ATTACHMENT: {
        Index.WORKLOADS_BY_POD: _pod,
        Index.WORKLOADS_BY_NAMESPACE: _namespace,
        Index.WORKLOADS_BY_ADDRESS: _addresses,
    },
    Kind.SIGHTING: {Index.SIGHTINGS_BY_POD: _pod},
    Kind.NODE: {Index.NODES_BY_POD_CIDR: _pod_cidrs, Index.NODES_BY_ADDRESS: _addresses},
}


def regroup(groups: Groups, groups_of: GroupsOf, moves: Iterable[Move]) -> Groups:
    """`groups` after `moves`; a group that lost its last record is gone."""
    drafts: dict[Hashable, MapMutation[Key, Record]] = {}
    for key, before, after in moves:
        old = groups_of(before) if before is not None else ()
        new = groups_of(after) if after is not None else ()
        for group in old:
            if group not in new:
                _draft(groups, drafts, group).pop(key, None)
        if after is not None:
            for group in new:
                _draft(groups, drafts, group)[key] = after
    return _finished(groups, drafts)


def _draft(
    groups: Groups, drafts: dict[Hashable, MapMutation[Key, Record]], group: Hashable
) -> MapMutation[Key, Record]:
    draft = drafts.get(group)
    if draft is None:
        draft = drafts[group] = (groups.get(group) or Map()).mutate()
    return draft


def _finished(groups: Groups, drafts: Mapping[Hashable, MapMutation[Key, Record]]) -> Groups:
    outer = groups.mutate()
    for group, draft in drafts.items():
        members = draft.finish()
        if members:
            outer[group] = members
        else:
            outer.pop(group, None)
    return outer.finish()
