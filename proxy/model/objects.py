"""Owns the records of what the API and the node say: small, frozen, only what a planner reads.

Never decodes (weft.proxy.model.decode does), never holds a relation between records (World does).
Names of fields follow the Kubernetes API; "absent" and "empty" stay different where the API does.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import NamedTuple

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network


class Ref(NamedTuple):
    """Name of an object; `namespace` is "" for objects of the cluster."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}" if self.namespace else self.name


class Kind(StrEnum):
    """Kinds of record in World, and of the changes that make it."""

    SERVICE = "service"
    SLICE = "slice"
    POD = "pod"
    NAMESPACE = "namespace"
    NODE = "node"
    POLICY = "policy"
    SERVICE_CIDR = "servicecidr"
    ATTACHMENT = "attachment"
    LINK = "link"
    SHAPING = "shaping"
    SIGHTING = "sighting"
    PATH_MTU = "path mtu"


LISTED_KINDS = frozenset(Kind) - {Kind.SIGHTING, Kind.PATH_MTU}
"""The kinds that some source lists; the others are answers to questions."""


class Protocol(StrEnum):
    TCP = "TCP"
    UDP = "UDP"
    SCTP = "SCTP"


PROTOCOL_NUMBERS: Mapping[Protocol, int] = {Protocol.TCP: 6, Protocol.UDP: 17, Protocol.SCTP: 132}


# --- Services -----------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class ServicePort:
    """core/v1 ServicePort. `name` is "" where the API has none."""

    name: str
    protocol: Protocol
    port: int
    node_port: int = 0
    """0: none."""


@dataclass(frozen=True, slots=True)
class Service:
    """core/v1 Service. `cluster_ips`, one per family, is empty for headless and ExternalName.

    load_balancer_ips: of status, those that the nodes answer for (ipMode VIP). source_ranges: who
    may reach them; () and every family without one: everybody.
    """

    ref: Ref
    type: str
    cluster_ips: tuple[Address, ...]
    ports: tuple[ServicePort, ...]
    proxied: bool = True
    """False when another proxy is named (label service.kubernetes.io/service-proxy-name)."""
    external_ips: tuple[Address, ...] = ()
    load_balancer_ips: tuple[Address, ...] = ()
    source_ranges: tuple[Network, ...] = ()
    internal_local: bool = False
    """internalTrafficPolicy Local: clients in the cluster get this node's endpoints only."""
    external_local: bool = False
    """externalTrafficPolicy Local: clients outside get this node's endpoints only."""
    affinity_s: int = 0
    """sessionAffinity ClientIP: for how long after its last connection; 0: None."""
    health_check_node_port: int = 0
    publishes_not_ready: bool = False
    traffic_distribution: str = ""
    """The endpoint slice controller's to turn into hints; here for people to read."""
    broken: str = ""
    """Why some of its addresses or ranges could not be understood; the rest is served."""
    created_ns: int = 0
    """UNIX nanoseconds; 0 where a manifest does not say."""


@dataclass(frozen=True, slots=True)
class ServiceCIDR:
    """networking/v1 ServiceCIDR: the ranges that ClusterIPs are given from."""

    ref: Ref
    networks: tuple[Network, ...]


@dataclass(frozen=True, slots=True)
class SlicePort:
    """discovery/v1 EndpointPort that has a number."""

    name: str
    protocol: Protocol
    port: int


@dataclass(frozen=True, slots=True)
class SliceEndpoint:
    """discovery/v1 Endpoint: its first address; conditions with the API's defaults resolved."""

    address: Address
    ready: bool
    serving: bool
    terminating: bool
    node: str
    """"" when the API names none: never local."""
    target: Ref | None
    """The pod behind it (targetRef of kind Pod), for people to read."""
    zone: str = ""
    for_zones: tuple[str, ...] = ()
    for_nodes: tuple[str, ...] = ()
    """Hints: the zones and nodes whose clients it is meant for."""


@dataclass(frozen=True, slots=True)
class EndpointSlice:
    """discovery/v1 EndpointSlice of an IP address type."""

    ref: Ref
    service: str
    """Label kubernetes.io/service-name, in the slice's own namespace; "" when missing: ignored."""
    ports: tuple[SlicePort, ...]
    endpoints: tuple[SliceEndpoint, ...]
    triggered_ns: int = 0
    """Annotation endpoints.kubernetes.io/last-change-trigger-time in UNIX nanoseconds; 0: none."""


# --- Pods, namespaces, nodes --------------------------------------------------------------------
class Need(StrEnum):
    """What a pod's annotations ask of its network; the value says what asks, for people to read."""

    NO_SOCKET_HOOK = "annotation weft.dev/socket-hook"
    MESH = "service mesh"
    NO_REDIRECT = "annotation weft.dev/redirect"
    SHAPED = "bandwidth annotation"


class HostPort(NamedTuple):
    """core/v1 ContainerPort with a hostPort: where the node takes connections in for the pod."""

    number: int
    protocol: Protocol
    target: int
    """The container's port."""
    address: Address | None
    """hostIP; None: every address of the node."""


@dataclass(frozen=True, slots=True)
class Pod:
    """core/v1 Pod. `addresses` is empty while it owns none: no IP yet, Succeeded, Failed, or on
    the host network, where the address is its node's.
    """

    ref: Ref
    uid: str
    node: str
    labels: Mapping[str, str]
    addresses: tuple[Address, ...]
    host_network: bool
    finished: bool
    named_ports: tuple[ServicePort, ...] = ()
    needs: tuple[Need, ...] = ()
    host_ports: tuple[HostPort, ...] = ()
    """None of a pod on the host network: its ports are the node's own."""


@dataclass(frozen=True, slots=True)
class Namespace:
    ref: Ref
    labels: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Node:
    """core/v1 Node. `addresses`: its InternalIPs in the API's order."""

    ref: Ref
    addresses: tuple[Address, ...]
    pod_cidrs: tuple[Network, ...]
    labels: Mapping[str, str] = field(default_factory=dict)
    leaving: bool = False
    """Being deleted, or marked by the cluster autoscaler: load balancers turn away from it."""

    @property
    def zone(self) -> str:
        return self.labels.get("topology.kubernetes.io/zone", "")


# --- NetworkPolicy ------------------------------------------------------------------------------
class Operator(StrEnum):
    IN = "In"
    NOT_IN = "NotIn"
    EXISTS = "Exists"
    DOES_NOT_EXIST = "DoesNotExist"


@dataclass(frozen=True, slots=True)
class Requirement:
    key: str
    operator: Operator
    values: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Selector:
    """meta/v1 LabelSelector: matchLabels (sorted) AND all expressions. Empty matches everything."""

    labels: tuple[tuple[str, str], ...] = ()
    expressions: tuple[Requirement, ...] = ()


@dataclass(frozen=True, slots=True)
class IPBlock:
    cidr: Network
    excepts: tuple[Network, ...] = ()


@dataclass(frozen=True, slots=True)
class Peer:
    """networking/v1 NetworkPolicyPeer: `block` alone, or at least one selector; None: absent."""

    pods: Selector | None = None
    namespaces: Selector | None = None
    block: IPBlock | None = None


@dataclass(frozen=True, slots=True)
class PolicyPort:
    """networking/v1 NetworkPolicyPort. `port` None: all of the protocol; str: a named port."""

    protocol: Protocol
    port: int | str | None = None
    end_port: int | None = None


@dataclass(frozen=True, slots=True)
class Rule:
    """One ingress or egress rule. Empty `peers`: everyone. Empty `ports`: every port there is."""

    peers: tuple[Peer, ...] = ()
    ports: tuple[PolicyPort, ...] = ()


@dataclass(frozen=True, slots=True)
class NetworkPolicy:
    """networking/v1 NetworkPolicy with policyTypes resolved.

    `broken` says why parts of it could not be understood; those parts allow nothing, and the
    policy isolates all the same.
    """

    ref: Ref
    pods: Selector
    isolates_ingress: bool
    isolates_egress: bool
    ingress: tuple[Rule, ...]
    egress: tuple[Rule, ...]
    broken: str = ""


# --- The node's own side ------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class Workload:
    """A local pod's link as weft.cni wired it; `ref` is the pod's, `key` the link's name.

    Its key in World is `key`.
    """

    key: str
    ref: Ref
    uid: str
    addresses: tuple[Address, ...]
    ifindex: int
    mac: bytes
    host_mac: bytes
    netns_cookie: int = 0
    """What the kernel calls the pod's network namespace; 0: wired before this was recorded."""


@dataclass(frozen=True, slots=True)
class Shaping:
    """What others hung on a pod's link to queue or filter its traffic: kinds of qdisc.

    Its key in World is `link`.
    """

    link: str
    qdiscs: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Link:
    """A network device of the node, as netlink tells it; its key in World is `name`.

    addresses: in the order of preference as a packet's source. networks: those of its addresses,
    whose hosts it reaches without a router. has_ethernet: packets on it begin with its header.
    """

    name: str
    ifindex: int
    mtu_bytes: int
    addresses: tuple[Address, ...]
    default_route: bool = False
    networks: tuple[Network, ...] = ()
    has_ethernet: bool = True


@dataclass(frozen=True, slots=True)
class Sighting:
    """What the node that has an address in its podCIDR said of its pod there (model.sightings).

    former: uids of the pods that by the API had the address then. Its key in World is `key`.
    """

    address: Address
    ref: Ref
    uid: str
    node: str
    former: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        return str(self.address)


@dataclass(frozen=True, slots=True)
class PathMtu:
    """How large a packet reaches another node's tunnel end, where that is less than the node's
    link carries: a router on the way said so. Its key in World is `key`.
    """

    end: Address
    mtu_bytes: int

    @property
    def key(self) -> str:
        return str(self.end)


@dataclass(frozen=True, slots=True)
class Broken:
    """An API object that could not be understood: what, and why."""

    kind: Kind
    ref: Ref
    why: str


Record = (
    Service
    | ServiceCIDR
    | EndpointSlice
    | Pod
    | Namespace
    | Node
    | NetworkPolicy
    | Workload
    | Link
    | Shaping
    | Sighting
    | PathMtu
)
