"""Owns the choice of endpoints: kube-proxy's CategorizeEndpoints (pkg/proxy/topology.go, 1.36).

Two sets for one family of a service port: those that the whole cluster uses, and those on this
node; and one that kube-proxy does not know, of clients outside (docs/decisions/0025). Yields no
rows of its own.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from weft.bpf.layout import pack_u64
from weft.proxy.model.ids import content_id
from weft.proxy.model.objects import Address, EndpointSlice, ServicePort, SliceEndpoint


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One address and port behind one family of a service port, from all slices together."""

    id: int
    address: Address
    port: int
    ready: bool = True
    serving: bool = True
    terminating: bool = False
    node: str = ""
    for_zones: tuple[str, ...] = ()
    for_nodes: tuple[str, ...] = ()

    @property
    def drains(self) -> bool:
        """It still serves, on its way out: of use where nothing is ready."""
        return self.serving and self.terminating


class Standpoint(NamedTuple):
    """Where clients are: a node and its zone, "" where it has none."""

    node: str
    zone: str


class Hints(StrEnum):
    """The hints that narrow the choice; one endpoint that is ready without such voids them all."""

    NONE = ""
    ZONE = "zone"
    NODE = "node"


@dataclass(frozen=True, slots=True)
class Choice:
    """What clients of one family of a service port get.

    cluster, local: None where nobody asks for that set. anywhere: some endpoint could be used, here
    or elsewhere. outside: what clients outside are spread over, alike on every node: hints speak of
    the places of nodes, and a client may enter by any.
    """

    cluster: tuple[Endpoint, ...] | None
    local: tuple[Endpoint, ...] | None
    hints: Hints
    anywhere: bool
    outside: tuple[Endpoint, ...] = ()


def endpoints(
    service: int, port: ServicePort, version: int, slices: Iterable[EndpointSlice]
) -> tuple[Endpoint, ...]:
    """What `slices` say of one family of a service port, sorted by content.

    A slice's port belongs to the service port of its name and protocol, and slices may differ in
    the number behind a name. An address and port that two slices name is one endpoint.
    """
    found: dict[tuple[int, int], SliceEndpoint] = {}
    for piece in slices:
        numbers = [
            p.port for p in piece.ports if p.name == port.name and p.protocol is port.protocol
        ]
        for number in numbers:
            for said in piece.endpoints:
                if said.address.version == version:
                    place = int(said.address), number
                    held = found.get(place)
                    found[place] = said if held is None else max(held, said, key=_liveliness)
    built = (_endpoint(service, number, said) for (_, number), said in found.items())
    return tuple(sorted(built, key=_by_id))


def _liveliness(said: SliceEndpoint) -> tuple[object, ...]:
    """An address may be used again at once: the pod that is not terminating is the one there. What
    is left only makes the answer the same whatever the order of slices."""
    means = said.node, said.for_nodes, said.for_zones
    return not said.terminating, said.ready, said.serving, *means


def _by_id(endpoint: Endpoint) -> int:
    return endpoint.id


def backend_id(service: int, address: Address, port: int) -> int:
    """The id of an endpoint as a backend of `service`."""
    return content_id(pack_u64(service) + address.packed + port.to_bytes(2, "big"))


def _endpoint(service: int, number: int, said: SliceEndpoint) -> Endpoint:
    return Endpoint(
        backend_id(service, said.address, number),
        said.address,
        number,
        said.ready,
        said.serving,
        said.terminating,
        said.node,
        said.for_zones,
        said.for_nodes,
    )


def categorize(
    every: Iterable[Endpoint],
    at: Standpoint,
    *,
    uses_cluster: bool,
    uses_local: bool,
    uses_outside: bool = False,
) -> Choice:
    """The sets of those that new flows go to, seen from `at`.

    Ready ones; where a set would have none, those that drain, whatever hints say: the whole
    cluster's only if nothing is ready anywhere, this node's as soon as nothing on it is.
    """
    every = tuple(every)
    ready = tuple(e for e in every if e.ready)
    drains = tuple(e for e in every if e.drains)
    hints = narrowing(ready, at) if uses_cluster else Hints.NONE
    cluster = tuple(e for e in ready if is_meant_for(e, at, hints)) or drains
    # Of a nameless node nothing is local: an endpoint without a node would be.
    local = _local(ready, at) or _local(drains, at) if at.node else ()
    return Choice(
        cluster if uses_cluster else None,
        local if uses_local else None,
        hints,
        bool(cluster),
        (ready or drains) if uses_outside else (),
    )


def why_unused(endpoint: Endpoint, choice: Choice, at: Standpoint) -> str:
    """Why new flows from `at` do not go to `endpoint`, or not all of them, to a person."""
    if not endpoint.ready and not endpoint.drains:
        return "terminating, serves no more" if endpoint.terminating else "not ready"
    whys = []
    if choice.cluster is not None:
        why = _why_not_cluster(endpoint, choice.cluster, at, choice.hints)
        # Whatever is ready is for clients outside.
        whys.append(f"{why} and outside" if why and endpoint.ready and choice.outside else why)
    if choice.local is not None:
        whys.append(_why_not_local(endpoint, choice.local, at))
    return "; ".join(filter(None, whys))


def _why_not_cluster(
    endpoint: Endpoint, cluster: tuple[Endpoint, ...], at: Standpoint, hints: Hints
) -> str:
    if not endpoint.ready:
        return "terminating, others are ready" if cluster[0].ready else ""
    if is_meant_for(endpoint, at, hints):
        return ""
    if hints is Hints.NODE:
        return f"for clients on {', '.join(endpoint.for_nodes)}"
    return f"for clients in zone {', '.join(endpoint.for_zones)}"


def _why_not_local(endpoint: Endpoint, local: tuple[Endpoint, ...], at: Standpoint) -> str:
    if endpoint.node != at.node or not at.node:
        return "policy Local: not on this node"
    late = not endpoint.ready and local[0].ready
    return "policy Local: terminating, others here are ready" if late else ""


def _local(some: Iterable[Endpoint], at: Standpoint) -> tuple[Endpoint, ...]:
    return tuple(e for e in some if e.node == at.node)


def narrowing(ready: Iterable[Endpoint], at: Standpoint) -> Hints:
    """All or nothing: every ready endpoint has such a hint, and at least one names this place."""
    ready = tuple(ready)
    if all(e.for_nodes for e in ready) and any(at.node in e.for_nodes for e in ready):
        return Hints.NODE
    if all(e.for_zones for e in ready) and any(at.zone in e.for_zones for e in ready):
        return Hints.ZONE
    return Hints.NONE


def is_meant_for(endpoint: Endpoint, at: Standpoint, hints: Hints) -> bool:
    """Whether clients at `at` may use it as far as `hints` narrow the choice."""
    if hints is Hints.NODE:
        return at.node in endpoint.for_nodes
    return hints is not Hints.ZONE or at.zone in endpoint.for_zones
