"""Owns the shapes of the API's JSON, with only the fields that a record needs; never a meaning.

Names are the API's. Every list and map may be absent or null: Go writes an empty slice as either.
"""

from typing import Any

from msgspec import Raw, Struct, field

Strings = dict[str, str]


class Shape(Struct, gc=False, rename="camel"):
    """What every shape shares: no cycles, so the collector need not look at them."""


class Meta(Shape):
    """meta/v1 ObjectMeta."""

    name: str
    namespace: str = ""
    uid: str = ""
    resource_version: str = ""
    labels: Strings | None = None
    annotations: Strings | None = None
    creation_timestamp: str | None = None
    deletion_timestamp: str | None = None


class Object(Shape):
    """Any object: enough to name it."""

    metadata: Meta


# --- Services -----------------------------------------------------------------------------------
class ServicePortShape(Shape):
    port: int
    name: str = ""
    protocol: str = "TCP"
    node_port: int = 0


class ClientIPShape(Shape):
    timeout_seconds: int | None = None


class AffinityShape(Shape):
    client_ip: ClientIPShape | None = field(name="clientIP", default=None)


class ServiceSpecShape(Shape):
    type: str = "ClusterIP"
    cluster_ip: str = field(name="clusterIP", default="")
    cluster_ips: list[str] | None = field(name="clusterIPs", default=None)
    ip_families: list[str] | None = None
    ports: list[ServicePortShape] | None = None
    external_ips: list[str] | None = field(name="externalIPs", default=None)
    load_balancer_source_ranges: list[str] | None = None
    internal_traffic_policy: str | None = None
    external_traffic_policy: str | None = None
    session_affinity: str | None = None
    session_affinity_config: AffinityShape | None = None
    health_check_node_port: int = 0
    publish_not_ready_addresses: bool = False
    traffic_distribution: str | None = None


class IngressShape(Shape):
    ip: str = ""
    ip_mode: str | None = None


class LoadBalancerShape(Shape):
    ingress: list[IngressShape] | None = None


class ServiceStatusShape(Shape):
    load_balancer: LoadBalancerShape | None = None


class ServiceShape(Object):
    spec: ServiceSpecShape
    status: ServiceStatusShape | None = None


class ServiceCIDRSpecShape(Shape):
    cidrs: list[str] | None = None


class ServiceCIDRShape(Object):
    spec: ServiceCIDRSpecShape


class Conditions(Shape):
    ready: bool | None = None
    serving: bool | None = None
    terminating: bool | None = None


class TargetRef(Shape):
    kind: str = ""
    namespace: str = ""
    name: str = ""


class HintShape(Shape):
    name: str = ""


class HintsShape(Shape):
    for_zones: list[HintShape] | None = None
    for_nodes: list[HintShape] | None = None


class EndpointShape(Shape):
    addresses: list[str] | None = None
    conditions: Conditions | None = None
    node_name: str | None = None
    target_ref: TargetRef | None = None
    zone: str | None = None
    hints: HintsShape | None = None


class EndpointPortShape(Shape):
    name: str | None = None
    protocol: str | None = None
    port: int | None = None


class SliceShape(Object):
    address_type: str
    endpoints: list[EndpointShape] | None = None
    ports: list[EndpointPortShape] | None = None


# --- Pods, namespaces, nodes --------------------------------------------------------------------
class ContainerPort(Shape):
    container_port: int
    name: str = ""
    protocol: str = "TCP"
    host_port: int = 0
    host_ip: str = field(name="hostIP", default="")


class Container(Shape):
    ports: list[ContainerPort] | None = None
    restart_policy: str = ""


class PodSpec(Shape):
    node_name: str = ""
    host_network: bool = False
    containers: list[Container] | None = None
    init_containers: list[Container] | None = None


class PodIP(Shape):
    ip: str = ""


class PodStatus(Shape):
    phase: str = ""
    pod_ip: str = field(name="podIP", default="")
    pod_ips: list[PodIP] | None = field(name="podIPs", default=None)


class PodShape(Object):
    spec: PodSpec
    status: PodStatus = field(default_factory=PodStatus)


class NamespaceShape(Object):
    pass


class NodeAddress(Shape):
    type: str
    address: str


class Taint(Shape):
    key: str = ""


class NodeSpec(Shape):
    pod_cidr: str = field(name="podCIDR", default="")
    pod_cidrs: list[str] | None = field(name="podCIDRs", default=None)
    taints: list[Taint] | None = None


class NodeStatus(Shape):
    addresses: list[NodeAddress] | None = None


class NodeShape(Object):
    spec: NodeSpec = field(default_factory=NodeSpec)
    status: NodeStatus = field(default_factory=NodeStatus)


# --- NetworkPolicy: read part by part, so that a broken part does not take the rest with it -------
class PolicyShape(Object):
    spec: Any = None


class SelectorShape(Shape):
    match_labels: Strings | None = None
    match_expressions: list["RequirementShape"] | None = None


class RequirementShape(Shape):
    key: str
    operator: str
    values: list[str] | None = None


class BlockShape(Shape):
    cidr: str
    excepts: list[str] | None = field(name="except", default=None)


class PolicyPortShape(Shape):
    protocol: str | None = None
    port: int | str | None = None
    end_port: int | None = None


# --- Lists and watches --------------------------------------------------------------------------
class ListMeta(Shape):
    """meta/v1 ListMeta."""

    resource_version: str = ""
    next_page: str = field(name="continue", default="")


class ListShape(Shape):
    """Any list; its items are decoded one by one, so that a broken one costs only itself."""

    metadata: ListMeta
    items: list[Raw] | None = None


class EventShape(Shape):
    """meta/v1 WatchEvent."""

    type: str
    object: Raw


class Bookmark(Shape):
    metadata: ListMeta


class StatusShape(Shape):
    """meta/v1 Status."""

    code: int = 0
    message: str = ""
