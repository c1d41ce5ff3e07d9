"""The reference: what the API's text says of one connection, walked policy by policy.

Written from networking/v1 types.go and the website's words (S-lines of the specification), with no
knowledge of sets, classes or tables: it shares only records with the compiler. Slow on purpose.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from weft.proxy.model.objects import (
    Address,
    IPBlock,
    Namespace,
    Network,
    NetworkPolicy,
    Node,
    Operator,
    Peer,
    Pod,
    PolicyPort,
    Rule,
    Selector,
    Sighting,
    Workload,
)

PROTOCOLS = {6: "TCP", 17: "UDP", 132: "SCTP"}


class Verdict(NamedTuple):
    allowed: bool
    why: str


@dataclass(frozen=True)
class Cluster:
    """All that a verdict depends on. `links`: the node's own wiring; it knows addresses first."""

    policies: tuple[NetworkPolicy, ...] = ()
    namespaces: tuple[Namespace, ...] = ()
    pods: tuple[Pod, ...] = ()
    nodes: tuple[Node, ...] = ()
    links: tuple[Workload, ...] = ()
    sightings: tuple[Sighting, ...] = ()
    labels: Mapping[str, Mapping[str, str]] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "labels", {n.ref.name: n.labels for n in self.namespaces})


def verdict(
    cluster: Cluster, source: Address, destination: Address, protocol: int, port: int
) -> Verdict:
    """S3: a connection needs the source's egress and the destination's ingress.

    Judged for the ends that are links of this node; the others are judged elsewhere.
    """
    said = Verdict(True, "neither end is here")
    for own, direction, peer in ((source, "egress", destination), (destination, "ingress", source)):
        for link in cluster.links:
            if own in link.addresses:
                said = judge(cluster, link, direction, peer, protocol, port)
                if not said.allowed:
                    return said
    return said


def judge(
    cluster: Cluster, link: Workload, direction: str, peer: Address, protocol: int, port: int
) -> Verdict:
    """One direction of one pod. S23: closed until the pod is known; S1: open until isolated."""
    pod = pod_of_link(cluster, link)
    if pod is None:
        return Verdict(False, f"{link.ref} is not known yet")
    isolating = [p for p in cluster.policies if selects_pod(p, pod) and isolates(p, direction)]
    for policy in isolating:
        rules = policy.ingress if direction == "ingress" else policy.egress
        for number, rule in enumerate(rules):
            if allows(cluster, policy, rule, direction, pod, peer, protocol, port):
                return Verdict(True, f"{direction}[{number}] of {policy.ref}")
    if isolating:
        return Verdict(False, f"isolated by {', '.join(str(p.ref) for p in isolating)}")
    return Verdict(True, "not isolated")


def pod_of_link(cluster: Cluster, link: Workload) -> Pod | None:
    for pod in cluster.pods:
        if pod.ref == link.ref and (not link.uid or not pod.uid or link.uid == pod.uid):
            return pod
    return None


def selects_pod(policy: NetworkPolicy, pod: Pod) -> bool:
    """S1, S6: a policy speaks for pods of its own namespace."""
    return policy.ref.namespace == pod.ref.namespace and matches(policy.pods, pod.labels)


def isolates(policy: NetworkPolicy, direction: str) -> bool:
    return policy.isolates_ingress if direction == "ingress" else policy.isolates_egress


def allows(
    cluster: Cluster,
    policy: NetworkPolicy,
    rule: Rule,
    direction: str,
    pod: Pod,
    peer: Address,
    protocol: int,
    port: int,
) -> bool:
    """S5: no peers is all peers, no ports is all ports. Both must fit."""
    if rule.ports and not any(
        port_fits(p, pod if direction == "ingress" else None, protocol, port) for p in rule.ports
    ):
        return False
    return not rule.peers or any(
        peer_fits(cluster, policy.ref.namespace, one, peer) for one in rule.peers
    )


def port_fits(want: PolicyPort, target: Pod | None, protocol: int, port: int) -> bool:
    """S12, S13. `target`: the pod whose named ports count; None: not resolved, opens nothing."""
    if PROTOCOLS.get(protocol) != want.protocol:
        return False
    if want.port is None:
        return True
    if isinstance(want.port, int):
        last = want.port if want.end_port is None else want.end_port
        return want.port <= port <= last
    return target is not None and any(
        p.name == want.port and p.protocol == want.protocol and p.port == port
        for p in target.named_ports
    )


def peer_fits(cluster: Cluster, namespace: str, want: Peer, address: Address) -> bool:
    """Several who claim one address must all fit; a node's address in its podCIDR is the node."""
    claims: list[bool] = []
    for pod in owners(cluster, address):
        claims.append(pod_fits(cluster, namespace, want, pod, address))
    for node in gateways(cluster, address):
        hosts = [a for a in node.addresses if a.version == address.version][:1]
        claims.append(want.block is not None and any(in_block(want.block, a) for a in hosts))
    if claims:
        return all(claims)
    if want.block is not None:
        return in_block(want.block, address)
    return unresolved_fits(want) and any(inside(address, c) for c in pod_cidrs(cluster))


def owners(cluster: Cluster, address: Address) -> list[Pod]:
    """S7, S18, S24: pods that own an address, by the node's links first, then by their status.

    Another node's word adds a pod of its own that has no status yet, and takes away its pods that
    had left the address when it was given.
    """
    links = [link for link in cluster.links if address in link.addresses]
    if links:
        known = [pod_of_link(cluster, link) for link in links]
        return [pod for pod in known if pod] if all(known) else []
    said = next((one for one in cluster.sightings if one.address == address), None)
    return [
        pod
        for pod in cluster.pods
        if not pod.host_network
        and not pod.finished
        and (
            said is not None and is_sighted(pod, said)
            if address not in pod.addresses
            else said is None or said.node != pod.node or pod.uid not in said.former
        )
    ]


def is_sighted(pod: Pod, said: Sighting) -> bool:
    if (pod.ref, pod.uid, pod.node) != (said.ref, said.uid, said.node):
        return False
    return bool(said.uid) and not pod.addresses


def gateways(cluster: Cluster, address: Address) -> Iterator[Node]:
    for node in cluster.nodes:
        for version in (4, 6):
            cidrs = [cidr for cidr in node.pod_cidrs if cidr.version == version]
            if cidrs and cidrs[0].num_addresses >= 4 and address == cidrs[0][1]:
                yield node


def pod_cidrs(cluster: Cluster) -> Iterable[Network]:
    return [cidr for node in cluster.nodes for cidr in node.pod_cidrs]


def pod_fits(cluster: Cluster, namespace: str, want: Peer, pod: Pod, address: Address) -> bool:
    """S7: selectors AND each other; S10: an ipBlock matches pods too."""
    if want.block is not None:
        return in_block(want.block, address)
    if want.namespaces is None:
        if want.pods is None or pod.ref.namespace != namespace:
            return False
    else:
        labels = cluster.labels.get(pod.ref.namespace)
        if labels is None:
            if want.namespaces != Selector():
                return False
        elif not matches(want.namespaces, labels):
            return False
    return want.pods is None or matches(want.pods, pod.labels)


def unresolved_fits(want: Peer) -> bool:
    """An address of a podCIDR without a known pod: only who would let any pod in lets it in."""
    return want.namespaces == Selector() and want.pods in (None, Selector())


def in_block(block: IPBlock, address: Address) -> bool:
    """S10, S26: `except` holds within this element only; families never meet."""
    return inside(address, block.cidr) and not any(inside(address, e) for e in block.excepts)


def inside(address: Address, network: Network) -> bool:
    return address.version == network.version and address in network


def matches(selector: Selector, labels: Mapping[str, str]) -> bool:
    """S8."""
    for key, value in selector.labels:
        if key not in labels or labels[key] != value:
            return False
    for term in selector.expressions:
        if term.operator == Operator.IN:
            fits = key_in(labels, term.key, term.values)
        elif term.operator == Operator.NOT_IN:
            fits = not key_in(labels, term.key, term.values)
        elif term.operator == Operator.EXISTS:
            fits = term.key in labels
        else:
            fits = term.key not in labels
        if not fits:
            return False
    return True


def key_in(labels: Mapping[str, str], key: str, values: tuple[str, ...]) -> bool:
    return key in labels and labels[key] in values
