"""Owns the writing of a book: from nothing, or from the last World's book and one change.

First the rule sets in force, then prefixes, then addresses; each place that the change can have
touched is settled once. Pure.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import cast

from immutables import Map

from weft.proxy.model.index import Index
from weft.proxy.model.objects import Address, Namespace, Node, Pod, Ref
from weft.proxy.model.world import World
from weft.proxy.plan.node import gateways
from weft.proxy.plan.policy_atoms import Atom, BlockAtom, class_id
from weft.proxy.plan.policy_book import (
    Book,
    address_place,
    atoms_within,
    bucket_of,
    known_in,
    prefix_place,
    shadow_place,
)
from weft.proxy.plan.policy_claims import Claims
from weft.proxy.plan.policy_judge import Judge
from weft.proxy.plan.policy_prefix import BITS, V4_ROOT, Prefix, number, prefix_of
from weft.proxy.plan.policy_rules import RuleSet
from weft.proxy.plan.policy_tally import Tally
from weft.proxy.plan.policy_universe import NO_ATOMS, PodMatcher, changed_atoms, universe_of


@dataclass(frozen=True, slots=True)
class Moves:
    """What differs between two books: the planner keys whose rows may."""

    addresses: frozenset[int] = frozenset()
    prefixes: frozenset[Prefix] = frozenset()
    classes: frozenset[int] = frozenset()
    sets: frozenset[int] = frozenset()
    workloads: frozenset[str] = frozenset()


class Draft:
    """The next book, being written. `world` is the World that it will be of."""

    def __init__(self, book: Book, world: World) -> None:
        self._book, self._world = book, world
        self._universe, self._cidrs = book.universe, book.cidrs
        self._judged = book.judged.mutate()
        self._peers = book.peers.mutate()
        self._blocks = book.blocks.mutate()
        self._shadows = book.shadows.mutate()
        self._near, self._gateways = book.near, book.gateways
        self._tally = Tally(book)
        self._judge = Judge(world)
        self._addresses: set[int] = set()
        self._prefixes: set[Prefix] = set()
        self._rejudged: set[str] = set()
        self._moved_addresses: set[int] = set()
        self._moved_prefixes: set[Prefix] = set()

    # What a change touches.
    def judge(self, key: str) -> None:
        """Judge a workload again, or forget it when it is gone."""
        workload = self._world.workload(key)
        judged = None if workload is None else self._judge.judge(workload)
        if judged == self._judged.get(key):
            return
        self._rejudged.add(key)
        if judged is None:
            del self._judged[key]
        else:
            self._judged[key] = judged

    def touch(self, addresses: Iterable[Address]) -> None:
        self._addresses.update(map(number, addresses))

    def touch_pods(self, pods: Iterable[Pod]) -> None:
        """Touch the addresses of `pods`, and those that links here and other nodes give them."""
        for pod in pods:
            self.touch(pod.addresses)
            self.touch(said.address for said in self._world.sightings_of(pod.ref))
            self.touch_links(pod.ref)

    def touch_links(self, pod: Ref) -> None:
        for workload in self._world.workloads_of(pod):
            self.touch(workload.addresses)

    def tells_apart(self, before: Namespace | None, after: Namespace | None) -> bool:
        """Whether an atom in force selects one of two versions of a namespace only."""
        labels = (None if one is None else one.labels for one in (before, after))
        return self._universe.pods.tells_apart(*labels)

    def place_node(self, before: Node | None, after: Node | None) -> None:
        """Move a node's podCIDRs and its own addresses in them."""
        if before and after and _place(before) == _place(after):
            return
        for node, step in ((before, -1), (after, 1)):
            for cidr in node.pod_cidrs if node else ():
                prefix = prefix_of(cidr)
                self._cidrs = self._cidrs.added(prefix, step)
                self._touch_cidr(prefix)
            for address, _ in gateways(node):
                self._place_gateway(address, node, step)

    def _place_gateway(self, address: Address, node: Node | None, step: int) -> None:
        """A node's own address in its podCIDR speaks for its InternalIP of that family."""
        at = number(address)
        hosts = self._gateways.get(at) or Map()
        if node is not None:
            same = (number(a) for a in node.addresses if a.version == address.version)
            name = node.ref.name
            hosts = hosts.set(name, next(same, None)) if step > 0 else hosts.delete(name)
        self._gateways = self._gateways.set(at, hosts) if hosts else self._gateways.delete(at)
        self._addresses.add(at)

    def _touch_cidr(self, cidr: Prefix) -> None:
        self._prefixes.add(cidr)
        self._prefixes.update(self._universe.ranges.inside(cidr))
        self._addresses.update(known_in(self._near, cidr))

    # Settling.
    def finish(self) -> tuple[Book, Moves]:
        """The book, and what of it differs from the one before."""
        switched = self._universe is not self._book.universe
        if not (switched or self._rejudged or self._prefixes or self._addresses):
            return self._book, Moves()
        judged = self._judged.finish()
        if self._rejudged:
            self.switch({s.id: s for one in judged.values() for s in one.sets()})
        for prefix in self._prefixes:
            self._settle_prefix(prefix)
        claims = Claims(self._world, self._universe, self._gateways)
        for address in self._addresses:
            self._settle_address(address, claims)
        tally = self._tally
        book = Book(
            self._universe, judged, self._peers.finish(), self._blocks.finish(), self._near,
            self._gateways, self._cidrs, self._shadows.finish(), tally.populations.finish(),
            tally.sums.finish(),
        )  # fmt: skip
        return book, self._moves(book)

    def _moves(self, book: Book) -> Moves:
        sets = self._tally.sets
        told = (
            key for key, judged in book.judged.items()
            if sets and not sets.isdisjoint(one.id for one in judged.sets())
        )  # fmt: skip
        return Moves(
            frozenset(self._moved_addresses),
            frozenset(self._moved_prefixes),
            frozenset(self._tally.classes),
            self._moved_sets(),
            frozenset(self._rejudged.union(told)),
        )

    def _moved_sets(self) -> frozenset[int]:
        before, after = self._book.universe, self._universe
        return frozenset() if before is after else frozenset(before.sets.keys() ^ after.sets.keys())

    def switch(self, sets: Mapping[int, RuleSet]) -> None:
        """Bring other rule sets in force; touch every place that their atoms tell apart."""
        if sets.keys() == self._universe.sets.keys():
            return
        before, self._universe = self._universe, universe_of(sets)
        self._tally.switch(self._universe)
        changed = changed_atoms(before, self._universe)
        self._touch_selected(changed)
        for atom in changed.values():
            if isinstance(atom, BlockAtom):
                self._prefixes.add(V4_ROOT)
                self._prefixes.update(before.ranges.inside(atom.prefix))
                self._touch_block(atom.prefix)
        if before.universal != self._universe.universal:
            for cidr in self._cidrs:
                self._touch_cidr(cidr)

    def _touch_selected(self, atoms: Mapping[int, Atom]) -> None:
        """Touch the pods that any of `atoms` selects."""
        matcher = PodMatcher(atoms)
        groups = self._world.indexes.get(Index.PODS_BY_NAMESPACE) or Map()
        everywhere = cast(Iterable[str], groups)
        for name in everywhere if matcher.across else matcher.named:
            known = self._world.namespace(name)
            scope = matcher.scope(name, known.labels if known else None)
            if scope:
                pods = self._world.pods_in(name).values()
                self.touch_pods(
                    pod for pod in pods if any(True for _ in scope.matching(pod.labels))
                )

    def _touch_block(self, block: Prefix) -> None:
        self._prefixes.update(self._universe.ranges.inside(block))
        self._prefixes.update(cidr for cidr in self._cidrs if block.covers(*cidr))
        self._addresses.update(known_in(self._near, block))
        for address, hosts in self._gateways.items():
            if any(host is not None and block.covers(host) for host in hosts.values()):
                self._addresses.add(address)

    def _settle_prefix(self, prefix: Prefix) -> None:
        atoms = self._prefix_atoms(prefix)
        held, wanted = self._blocks.get(prefix), None if atoms is None else class_id(atoms)
        if held == wanted:
            return
        self._moved_prefixes.add(prefix)
        place = prefix_place(prefix)
        if held is not None:
            self._tally.leave(held, place)
            del self._blocks[prefix]
        if wanted is not None and atoms is not None:
            self._tally.join(atoms, place)
            self._blocks[prefix] = wanted

    def _prefix_atoms(self, prefix: Prefix) -> frozenset[int] | None:
        """What a row of `prefix` must say; None where the next shorter one says it too."""
        ranges = self._universe.ranges
        podcidr = bool(self._universe.universal) and prefix in self._cidrs
        root = prefix == V4_ROOT and bool(ranges.ordered)
        if not (podcidr or root or prefix in ranges):
            return None
        return atoms_within(self._universe, self._cidrs, prefix)

    def _settle_address(self, address: int, claims: Claims) -> None:
        atoms = claims.at(address)
        self._know(address, atoms is not None)
        around = atoms_within(self._universe, self._cidrs, Prefix(address, BITS))
        if atoms == around:
            atoms = None
        self._settle_peer(address, atoms)
        self._settle_shadow(address, NO_ATOMS if atoms is None else around - atoms and around)

    def _settle_peer(self, address: int, atoms: frozenset[int] | None) -> None:
        held, wanted = self._peers.get(address), None if atoms is None else class_id(atoms)
        if held == wanted:
            return
        self._moved_addresses.add(address)
        place = address_place(address)
        if held is not None:
            self._tally.leave(held, place)
            del self._peers[address]
        if wanted is not None and atoms is not None:
            self._tally.join(atoms, place)
            self._peers[address] = wanted

    def _settle_shadow(self, address: int, atoms: frozenset[int]) -> None:
        """A row that hides a class with more rights counts there too: when it goes, they return."""
        held, wanted = self._shadows.get(address, 0), class_id(atoms)
        if held == wanted:
            return
        place = shadow_place(address)
        self._tally.leave(held, place)
        self._tally.join(atoms, place)
        if wanted:
            self._shadows[address] = wanted
        else:
            del self._shadows[address]

    def _know(self, address: int, known: bool) -> None:
        bucket = bucket_of(address)
        addresses = self._near.get(bucket) or Map()
        if known == (address in addresses):
            return
        addresses = addresses.set(address, True) if known else addresses.delete(address)
        self._near = self._near.set(bucket, addresses) if addresses else self._near.delete(bucket)


def _place(node: Node) -> tuple[object, ...]:
    return node.pod_cidrs, node.addresses
