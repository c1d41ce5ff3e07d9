"""Owns the universe: the rule sets in use on this node, and which of their atoms a peer matches.

A function of the rule sets alone; atoms of policies that judge no local workload do not exist here.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from weft.proxy.model.objects import Selector
from weft.proxy.plan.policy_atoms import (
    EVERYTHING,
    UNIVERSAL,
    Atom,
    BlockAtom,
    Labels,
    PodAtom,
    SelectorIndex,
)
from weft.proxy.plan.policy_prefix import Prefix, PrefixTable, nested
from weft.proxy.plan.policy_rules import RuleSet

NO_ATOMS: frozenset[int] = frozenset()
Ranges = PrefixTable[frozenset[int]]
"""Which block atoms an address matches, by longest prefix."""


class PodMatcher:
    """Pod atoms, arranged so that a namespace's share is found without trying each."""

    __slots__ = ("_across", "_everywhere", "_own")

    @property
    def across(self) -> bool:
        """Whether any atom selects namespaces by their labels."""
        return bool(self._across)

    @property
    def named(self) -> Iterable[str]:
        """The namespaces that atoms name."""
        return self._own

    def __init__(self, atoms: Mapping[int, Atom]) -> None:
        own: dict[str, list[tuple[Selector, int]]] = {}
        across: dict[Selector, list[tuple[Selector, int]]] = {}
        for name, atom in atoms.items():
            if isinstance(atom, PodAtom):
                entry = (atom.pods, name)
                if isinstance(atom.namespaces, str):
                    own.setdefault(atom.namespaces, []).append(entry)
                else:
                    across.setdefault(atom.namespaces, []).append(entry)
        self._own = own
        self._everywhere = across.get(EVERYTHING, [])
        self._across = SelectorIndex(across.items())

    def scope(self, namespace: str, labels: Labels | None) -> SelectorIndex[int]:
        """The pod selectors that apply in a namespace.

        labels: None for a namespace that is not known; only "all namespaces" selects that one.
        """
        return SelectorIndex([*self._own.get(namespace, ()), *self._reaching(labels)])

    def tells_apart(self, one: Labels | None, other: Labels | None) -> bool:
        """Whether a namespace with the labels `one` has other atoms than with `other`."""
        reaching = [{atom for _, atom in self._reaching(labels)} for labels in (one, other)]
        return reaching[0] != reaching[1]

    def _reaching(self, labels: Labels | None) -> Iterator[tuple[Selector, int]]:
        """The pod selectors of the atoms that select a namespace by its labels."""
        if labels is None:
            yield from self._everywhere
        else:
            for found in self._across.matching(labels):
                yield from found


@dataclass(frozen=True, slots=True)
class Universe:
    """`users`: atom -> the sets that name it. `universal`: the atom of all pods, where in use."""

    sets: Mapping[int, RuleSet]
    atoms: Mapping[int, Atom] = field(compare=False)
    users: Mapping[int, tuple[RuleSet, ...]] = field(compare=False)
    pods: PodMatcher = field(compare=False)
    ranges: Ranges = field(compare=False)
    universal: frozenset[int] = field(compare=False)

    def sets_that_tell(self, atoms: Iterable[int]) -> Iterator[RuleSet]:
        """The sets with a row for the class of these atoms."""
        near = {s.id: s for atom in atoms for s in self.users.get(atom, ())}
        return (s for s in near.values() if s.distinguishes(atoms))


def universe_of(sets: Mapping[int, RuleSet]) -> Universe:
    atoms: dict[int, Atom] = {}
    users: dict[int, tuple[RuleSet, ...]] = {}
    for _, one in sorted(sets.items()):
        atoms |= one.atoms
        for atom in one.atoms:
            users[atom] = (*users.get(atom, ()), one)
    universal = frozenset(atoms.keys() & {UNIVERSAL})
    return Universe(sets, atoms, users, PodMatcher(atoms), ranges_of(atoms), universal)


def changed_atoms(before: Universe, after: Universe) -> dict[int, Atom]:
    """The atoms that only one of the two knows."""
    names = before.atoms.keys() ^ after.atoms.keys()
    return {name: before.atoms.get(name) or after.atoms[name] for name in names}


def ranges_of(atoms: Mapping[int, Atom]) -> Ranges:
    """Every prefix and hole of the block atoms, with the atoms that match just inside it."""
    joins: dict[Prefix, set[int]] = {}
    leaves: dict[Prefix, set[int]] = {}
    for name, atom in atoms.items():
        if isinstance(atom, BlockAtom):
            joins.setdefault(atom.prefix, set()).add(name)
            for hole in atom.excepts:
                leaves.setdefault(hole, set()).add(name)
    rows: dict[Prefix, frozenset[int]] = {}
    for prefix, outer in nested(joins.keys() | leaves.keys()):
        inherited = NO_ATOMS if outer is None else rows[outer]
        rows[prefix] = (inherited | joins.get(prefix, NO_ATOMS)) - leaves.get(prefix, NO_ATOMS)
    return PrefixTable.of(rows)


EMPTY = universe_of({})
