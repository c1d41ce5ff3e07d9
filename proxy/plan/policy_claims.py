"""Owns who stands behind an address, and so which atoms it matches.

A link of this node outranks what the API and other nodes say of its address. Where several claim
one address (an address used again, policy S24) it matches only what all of them match. Pure.
"""

from collections.abc import Iterator, Mapping

from weft.proxy.model.objects import Address, Pod, Ref
from weft.proxy.model.sightings import pods_claiming
from weft.proxy.model.world import World
from weft.proxy.plan.policy_atoms import SelectorIndex
from weft.proxy.plan.policy_judge import pod_of
from weft.proxy.plan.policy_prefix import address_of
from weft.proxy.plan.policy_universe import NO_ATOMS, Universe

Gateways = Mapping[int, Mapping[str, int | None]]


class Claims:
    """Claims on the addresses of one World under one universe."""

    __slots__ = ("_gateways", "_matched", "_scopes", "_universe", "_world")

    def __init__(self, world: World, universe: Universe, gateways: Gateways) -> None:
        self._world, self._universe, self._gateways = world, universe, gateways
        self._scopes: dict[str, SelectorIndex[int]] = {}
        self._matched: dict[Ref, frozenset[int]] = {}

    def at(self, number: int) -> frozenset[int] | None:
        """The atoms that the owners of an address all match; None: nobody known owns it."""
        claims = [*self._pod_claims(number), *self._gateway_claims(number)]
        return frozenset.intersection(*claims) if claims else None

    def _pod_claims(self, number: int) -> Iterator[frozenset[int]]:
        blocks = self._universe.ranges.at(number, NO_ATOMS)
        for pod in pods_behind(self._world, address_of(number)):
            yield self._pod_atoms(pod) | blocks

    def _gateway_claims(self, number: int) -> Iterator[frozenset[int]]:
        """A node's own address in its podCIDR speaks for the node, as its InternalIP does."""
        for host in (self._gateways.get(number) or {}).values():
            yield NO_ATOMS if host is None else self._universe.ranges.at(host, NO_ATOMS)

    def _pod_atoms(self, pod: Pod) -> frozenset[int]:
        held = self._matched.get(pod.ref)
        if held is None:
            scope = self._scope(pod.ref.namespace)
            held = self._matched[pod.ref] = frozenset(scope.matching(pod.labels))
        return held

    def _scope(self, namespace: str) -> SelectorIndex[int]:
        held = self._scopes.get(namespace)
        if held is None:
            known = self._world.namespace(namespace)
            labels = None if known is None else known.labels
            held = self._scopes[namespace] = self._universe.pods.scope(namespace, labels)
        return held


def pods_behind(world: World, address: Address) -> list[Pod]:
    """The pods that selectors can find at an address: not on the host's network, not finished."""
    workloads = world.workloads_at(address)
    if workloads:
        found = [pod for w in workloads if (pod := pod_of(world, w)) is not None]
        return found if len(found) == len(workloads) else []
    return pods_claiming(world, address)
