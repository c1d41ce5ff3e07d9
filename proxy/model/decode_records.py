"""Owns the meaning of every kind but NetworkPolicy: a shape of the API becomes a record.

Never reads bytes. A ValueError says what of the object cannot be understood; the caller turns it
into Broken. The rules are kube-proxy's (reference: services 1.1) and networking/v1's.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from ipaddress import IPv4Network, IPv6Network
from itertools import chain
from sys import intern
from typing import Any

from weft.proxy.model.decode_policy import policy_record
from weft.proxy.model.objects import (
    Address,
    EndpointSlice,
    HostPort,
    Kind,
    Namespace,
    Need,
    Network,
    Node,
    Pod,
    Protocol,
    Record,
    Ref,
    Service,
    ServiceCIDR,
    ServicePort,
    SliceEndpoint,
    SlicePort,
)
from weft.proxy.model.parse import parse_address, parse_network, parse_time_ns, shared_labels
from weft.proxy.model.shapes import (
    Conditions,
    Container,
    EndpointPortShape,
    EndpointShape,
    HintShape,
    HintsShape,
    Meta,
    NamespaceShape,
    NodeShape,
    Object,
    PodShape,
    PodSpec,
    PolicyShape,
    ServiceCIDRShape,
    ServiceShape,
    ServiceSpecShape,
    ServiceStatusShape,
    SliceShape,
    TargetRef,
)

SERVICE_NAME = "kubernetes.io/service-name"
PROXY_NAME = "service.kubernetes.io/service-proxy-name"
HEADLESS = "service.kubernetes.io/headless"
TRIGGER_TIME = "endpoints.kubernetes.io/last-change-trigger-time"
NAMESPACE_NAME = "kubernetes.io/metadata.name"

NOBODY = (IPv4Network("255.255.255.255/32"), IPv6Network("::/128"))
"""Ranges that no client is in."""

BANDWIDTH = ("kubernetes.io/ingress-bandwidth", "kubernetes.io/egress-bandwidth")
# Each is put on the pod by the mesh itself; an empty value here: whatever stands there.
MESH_MARKS = (
    ("sidecar.istio.io/status", ""),
    ("ambient.istio.io/redirection", "enabled"),
    ("linkerd.io/proxy-version", ""),
)

_FAMILIES = {"IPv4": 4, "IPv6": 6}
_CLUSTER_KINDS = (Kind.NAMESPACE, Kind.NODE, Kind.SERVICE_CIDR)
_FINISHED = ("Succeeded", "Failed")
_NO_CONDITIONS = Conditions()
_NO_HINTS = HintsShape()
# core/v1 DefaultClientIPServiceAffinitySeconds.
_AFFINITY_S = 10800


def ref_of(kind: Kind, meta: Meta) -> Ref:
    """The object's name; a namespaced one without a namespace is in "default", as for kubectl."""
    if not meta.name:
        raise ValueError("metadata.name is empty")
    if kind in _CLUSTER_KINDS:
        return Ref("", meta.name)
    return Ref(intern(meta.namespace or "default"), meta.name)


# --- Services -----------------------------------------------------------------------------------
def _service(ref: Ref, shape: ServiceShape) -> Service:
    labels, spec = shape.metadata.labels or {}, shape.spec
    whys: list[str] = []
    return Service(
        ref=ref,
        type=intern(spec.type),
        cluster_ips=tuple(_cluster_ips(spec)),
        ports=tuple(
            ServicePort(intern(p.name), Protocol(p.protocol), _port_number(p.port), p.node_port)
            for p in spec.ports or ()
        ),
        proxied=PROXY_NAME not in labels,
        external_ips=tuple(_addresses("externalIPs", spec.external_ips or (), whys)),
        load_balancer_ips=tuple(
            _addresses("status.loadBalancer", _load_balancer_ips(shape.status), whys)
        ),
        source_ranges=tuple(_source_ranges(spec.load_balancer_source_ranges or (), whys)),
        internal_local=spec.internal_traffic_policy == "Local",
        external_local=spec.external_traffic_policy == "Local",
        affinity_s=_affinity_s(spec),
        health_check_node_port=spec.health_check_node_port,
        publishes_not_ready=spec.publish_not_ready_addresses,
        traffic_distribution=intern(spec.traffic_distribution or ""),
        broken="; ".join(whys),
        created_ns=parse_time_ns(shape.metadata.creation_timestamp or ""),
    )


def _addresses(field: str, texts: Iterable[str], whys: list[str]) -> Iterator[Address]:
    """As kube-proxy: what is no address is left out, the others stay. Why goes to `whys`."""
    for text in texts:
        try:
            yield parse_address(text)
        except ValueError as error:
            whys.append(f"{field}: {error}")


def _source_ranges(texts: Iterable[str], whys: list[str]) -> Iterator[Network]:
    """What cannot be read admits nobody. kube-proxy leaves it out, and of a list that has nothing
    else everybody would be admitted.
    """
    for text in texts:
        try:
            yield parse_network(text.strip())
        except ValueError as error:
            whys.append(f"loadBalancerSourceRanges: {error}")
            yield from NOBODY


def _load_balancer_ips(status: ServiceStatusShape | None) -> Iterator[str]:
    """Of mode Proxy the load balancer wants to see the traffic itself; a hostname is no address."""
    if status is not None and status.load_balancer is not None:
        for ingress in status.load_balancer.ingress or ():
            if ingress.ip and ingress.ip_mode in (None, "VIP"):
                yield ingress.ip


def _affinity_s(spec: ServiceSpecShape) -> int:
    if spec.session_affinity != "ClientIP":
        return 0
    said = spec.session_affinity_config
    by_client = said.client_ip if said is not None else None
    return (by_client.timeout_seconds if by_client is not None else None) or _AFFINITY_S


def _service_cidr(ref: Ref, shape: ServiceCIDRShape) -> ServiceCIDR:
    return ServiceCIDR(ref, tuple(parse_network(text) for text in shape.spec.cidrs or ()))


def _cluster_ips(spec: ServiceSpecShape) -> Iterator[Address]:
    """One address per family; none for headless and for ExternalName, even if it has one.

    kube-proxy takes clusterIPs[i] for ipFamilies[i], and clusterIP where no family is named.
    """
    if spec.type == "ExternalName" or spec.cluster_ip in ("", "None"):
        return
    if not spec.ip_families:
        yield parse_address(spec.cluster_ip)
        return
    written = spec.cluster_ips or [spec.cluster_ip]
    for family, text in zip(spec.ip_families, written, strict=False):
        if (address := parse_address(text)).version == _FAMILIES.get(family):
            yield address


def _slice(ref: Ref, shape: SliceShape) -> EndpointSlice:
    """A slice of names (FQDN) or of a headless Service belongs to no Service here."""
    labels, annotations = shape.metadata.labels or {}, shape.metadata.annotations or {}
    version = _FAMILIES.get(shape.address_type)
    ours = version is not None and HEADLESS not in labels
    return EndpointSlice(
        ref=ref,
        service=labels.get(SERVICE_NAME, "") if ours else "",
        ports=tuple(_slice_ports(shape.ports or ())),
        endpoints=tuple(_endpoints(ref, shape.endpoints or (), version)) if ours else (),
        triggered_ns=parse_time_ns(annotations.get(TRIGGER_TIME, "")),
    )


def _slice_ports(ports: Iterable[EndpointPortShape]) -> Iterator[SlicePort]:
    """kube-proxy passes over a port without a name ("" is one) or without a number."""
    for port in ports:
        if port.name is not None and port.port:
            protocol = Protocol(port.protocol or "TCP")
            yield SlicePort(intern(port.name), protocol, _port_number(port.port))


def _endpoints(
    ref: Ref, endpoints: Iterable[EndpointShape], version: int | None
) -> Iterator[SliceEndpoint]:
    """Only addresses[0] counts; one that is not of the slice's family is passed over."""
    for shape in endpoints:
        if not shape.addresses:
            continue
        address = parse_address(shape.addresses[0])
        if address.version == version:
            conditions, hints = shape.conditions or _NO_CONDITIONS, shape.hints or _NO_HINTS
            yield SliceEndpoint(
                address,
                ready=conditions.ready is not False,
                serving=conditions.serving is not False,
                terminating=conditions.terminating is True,
                node=intern(shape.node_name or ""),
                target=_target(ref, shape.target_ref),
                zone=intern(shape.zone or ""),
                for_zones=_names(hints.for_zones),
                for_nodes=_names(hints.for_nodes),
            )


def _names(hints: Iterable[HintShape] | None) -> tuple[str, ...]:
    return tuple(intern(hint.name) for hint in hints or ())


def _target(ref: Ref, target: TargetRef | None) -> Ref | None:
    if target is None or target.kind != "Pod":
        return None
    return Ref(intern(target.namespace or ref.namespace), target.name)


def _port_number(number: int) -> int:
    if not 0 < number < 65536:
        raise ValueError(f"port {number} is not within 1-65535")
    return number


# --- Pods, namespaces, nodes --------------------------------------------------------------------
def _pod(ref: Ref, shape: PodShape) -> Pod:
    """Once Succeeded or Failed a pod keeps status.podIP but owns it no more; the address of a pod
    on the host network is its node's.
    """
    finished = shape.status.phase in _FINISHED
    written = [one.ip for one in shape.status.pod_ips or ()] or [shape.status.pod_ip]
    owns = not finished and not shape.spec.host_network
    return Pod(
        ref=ref,
        uid=shape.metadata.uid,
        node=intern(shape.spec.node_name),
        labels=shared_labels(shape.metadata.labels),
        addresses=tuple(parse_address(text) for text in written if text) if owns else (),
        host_network=shape.spec.host_network,
        finished=finished,
        named_ports=_named_ports(_lasting(shape.spec)),
        needs=tuple(_needs(shape.metadata.annotations or {})),
        host_ports=tuple(_host_ports(_lasting(shape.spec))) if owns else (),
    )


def _lasting(spec: PodSpec) -> Iterator[Container]:
    """Containers, then sidecars: those that run as long as the pod."""
    yield from spec.containers or ()
    yield from (c for c in spec.init_containers or () if c.restart_policy == "Always")


def _host_ports(containers: Iterable[Container]) -> Iterator[HostPort]:
    """An unspecified hostIP is every address of the node, as for the runtime's portMappings."""
    for port in chain.from_iterable(c.ports or () for c in containers):
        if port.host_port:
            address = parse_address(port.host_ip) if port.host_ip else None
            number, target = _port_number(port.host_port), _port_number(port.container_port)
            every = address is None or address.is_unspecified
            yield HostPort(number, Protocol(port.protocol), target, None if every else address)


def _needs(annotations: Mapping[str, str]) -> Iterator[Need]:
    if annotations.get("weft.dev/socket-hook") == "off":
        yield Need.NO_SOCKET_HOOK
    if any(key in annotations and value in ("", annotations[key]) for key, value in MESH_MARKS):
        yield Need.MESH
    if annotations.get("weft.dev/redirect") == "off":
        yield Need.NO_REDIRECT
    if any(key in annotations for key in BANDWIDTH):
        yield Need.SHAPED


def _named_ports(containers: Iterable[Container]) -> tuple[ServicePort, ...]:
    """Kubernetes' FindPort: of two with one name the first counts."""
    found: dict[tuple[str, str], ServicePort] = {}
    for port in chain.from_iterable(c.ports or () for c in containers):
        if port.name:
            named = ServicePort(
                intern(port.name), Protocol(port.protocol), _port_number(port.container_port)
            )
            found.setdefault((port.name, port.protocol), named)
    return tuple(found.values())


def _namespace(ref: Ref, shape: NamespaceShape) -> Namespace:
    """The API server puts the name label on every namespace; a manifest may lack it."""
    return Namespace(ref, shared_labels((shape.metadata.labels or {}) | {NAMESPACE_NAME: ref.name}))


# cluster-autoscaler's mark before it removes a node (utils/taints, ToBeDeletedTaint).
_LEAVING_TAINT = "ToBeDeletedByClusterAutoscaler"


def _leaves(shape: NodeShape) -> bool:
    taints = {taint.key for taint in shape.spec.taints or ()}
    return bool(shape.metadata.deletion_timestamp) or _LEAVING_TAINT in taints


def _node(ref: Ref, shape: NodeShape) -> Node:
    written = shape.spec.pod_cidrs or [shape.spec.pod_cidr]
    return Node(
        ref=ref,
        addresses=tuple(
            parse_address(a.address) for a in shape.status.addresses or () if a.type == "InternalIP"
        ),
        pod_cidrs=tuple(parse_network(text) for text in written if text),
        labels=shared_labels(shape.metadata.labels),
        leaving=_leaves(shape),
    )


# Any: each function takes the shape that stands beside it, which a mapping's type cannot say.
RECORDS: Mapping[Kind, tuple[type[Object], Callable[[Ref, Any], Record]]] = {
    Kind.SERVICE: (ServiceShape, _service),
    Kind.SERVICE_CIDR: (ServiceCIDRShape, _service_cidr),
    Kind.SLICE: (SliceShape, _slice),
    Kind.POD: (PodShape, _pod),
    Kind.NAMESPACE: (NamespaceShape, _namespace),
    Kind.NODE: (NodeShape, _node),
    Kind.POLICY: (PolicyShape, lambda ref, shape: policy_record(ref, shape.spec)),
}


def record_of(kind: Kind, shape: Object) -> Record:
    """The record that `shape` (of RECORDS[kind]) says."""
    return RECORDS[kind][1](ref_of(kind, shape.metadata), shape)
