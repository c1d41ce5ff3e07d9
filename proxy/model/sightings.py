"""Owns what a sighting is worth: the owning node's word on who holds an address of its podCIDR.

The API says a pod's addresses late, so another node may be asked first (weft.proxy.watch.ask). Its
word counts for a pod that the API shows on that node, until the API says the pod's addresses; and
against pods of that node which by the API still have the address but had to leave it. Pure.
"""

from collections.abc import Iterable, Iterator
from dataclasses import replace

from weft.proxy.model.objects import Address, Kind, Node, Pod, Record, Sighting
from weft.proxy.model.owners import owner
from weft.proxy.model.world import Change, World


def unresolved(world: World, address: Address) -> Node | None:
    """The other node to ask whose `address` is; None: known, or no address of another's pods."""
    if world.workloads_at(address) or world.sighting(address) or _claims(world, address):
        return None
    node = owner(world, address)
    return None if node is None or node.ref.name == world.settings.node else node


def admitted(world: World, said: Sighting) -> Sighting | None:
    """What World may hold of an answer; None: nothing that is known bears it out.

    A node can vouch only for addresses of its podCIDR and for pods that the API puts on it.
    """
    former = (pod.uid for pod in _claims(world, said.address) if pod.node == said.node)
    found = replace(said, former=tuple(sorted({uid for uid in former if uid != said.uid})))
    return found if _is_owners(world, found) and _speaks(world, found) else None


def outdated(change: Change, world: World) -> tuple[str, ...]:
    """The keys of the sightings that are worth nothing in `world`, the one after `change`."""
    if change.kind is Kind.NODE:
        return tuple(s.key for s in world.sightings() if not _is_owners(world, s))
    if change.kind is Kind.POD:
        near = {s.key: s for s in _near(world, (change.before, change.after))}
        return tuple(key for key, s in near.items() if not _speaks(world, s))
    return ()


def pods_claiming(world: World, address: Address) -> list[Pod]:
    """The pods that have `address` by the API and by the node that was asked."""
    claims, said = _claims(world, address), world.sighting(address)
    if said is None:
        return claims
    sighted = sighted_pod(world, said)
    kept = [pod for pod in claims if not (pod.uid in said.former and pod.node == said.node)]
    return kept if sighted is None or sighted in kept else [*kept, sighted]


def sighted_pod(world: World, said: Sighting) -> Pod | None:
    """The pod that a sighting names, while it lives there and the API does not say otherwise."""
    pod = world.pod(said.ref)
    if pod is None or not said.uid or (pod.uid, pod.node) != (said.uid, said.node):
        return None
    if pod.host_network or pod.finished:
        return None
    return pod if not pod.addresses or said.address in pod.addresses else None


def _claims(world: World, address: Address) -> list[Pod]:
    return [pod for pod in world.pods_at(address) if not (pod.host_network or pod.finished)]


def _is_owners(world: World, said: Sighting) -> bool:
    """The own node's pods are known by their links."""
    node = owner(world, said.address)
    return node is not None and world.settings.node != node.ref.name == said.node


def _speaks(world: World, said: Sighting) -> bool:
    """Whether it says more than the API does: of a pod without addresses, or against another."""
    pod = sighted_pod(world, said)
    if pod is not None and not pod.addresses:
        return True
    return any(pod.uid in said.former for pod in _claims(world, said.address))


def _near(world: World, pods: Iterable[Record | None]) -> Iterator[Sighting]:
    for pod in pods:
        if isinstance(pod, Pod):
            yield from world.sightings_of(pod.ref)
            for address in pod.addresses:
                said = world.sighting(address)
                if said is not None:
                    yield said
