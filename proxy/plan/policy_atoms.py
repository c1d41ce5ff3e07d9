"""Owns atoms: the single terms by which policies name peers, and whether labels match them.

An atom is what one peer of a rule says, resolved against the policy's namespace; equal terms of two
policies are one atom. Pure; knows no World.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Generic, TypeVar

from weft.proxy.model.ids import content_id
from weft.proxy.model.objects import Operator, Peer, Requirement, Selector
from weft.proxy.plan.policy_prefix import Prefix, prefix_of

Labels = Mapping[str, str]
T = TypeVar("T")
EVERYTHING = Selector()


@dataclass(frozen=True, slots=True)
class PodAtom:
    """Pods that `pods` selects, in one namespace (its name) or in those that a selector selects."""

    namespaces: str | Selector
    pods: Selector


@dataclass(frozen=True, slots=True)
class BlockAtom:
    """Addresses of a prefix without those of `excepts`, all of which lie inside it."""

    prefix: Prefix
    excepts: tuple[Prefix, ...]


Atom = PodAtom | BlockAtom


def atom_of(peer: Peer, namespace: str) -> Atom | None:
    """networking/v1 NetworkPolicyPeer of a policy in `namespace`; None: it can match nothing."""
    if peer.block is not None:
        prefix = prefix_of(peer.block.cidr)
        excepts = sorted({prefix_of(network) for network in peer.block.excepts})
        if any(hole.covers(*prefix) for hole in excepts):
            return None
        return BlockAtom(prefix, tuple(hole for hole in excepts if prefix.covers(*hole)))
    if peer.namespaces is not None:
        return PodAtom(_ordered(peer.namespaces), _ordered(peer.pods or EVERYTHING))
    return None if peer.pods is None else PodAtom(namespace, _ordered(peer.pods))


def _ordered(selector: Selector) -> Selector:
    """The one way to write this selector: equal meanings, equal atoms."""
    terms = {Requirement(t.key, t.operator, tuple(sorted(t.values))) for t in selector.expressions}
    return Selector(tuple(sorted(selector.labels)), tuple(sorted(terms, key=_term_order)))


def _term_order(term: Requirement) -> tuple[str, str, tuple[str, ...]]:
    return term.key, term.operator, term.values


@lru_cache(maxsize=65_536)
def atom_id(atom: Atom) -> int:
    if isinstance(atom, BlockAtom):
        return content_id("block", *atom.prefix, *(part for hole in atom.excepts for part in hole))
    return content_id("pods", *_selector_parts(atom.namespaces), *_selector_parts(atom.pods))


def _selector_parts(selector: Selector | str) -> Iterator[str | int]:
    if isinstance(selector, str):
        yield selector
        return
    yield len(selector.labels)
    for pair in selector.labels:
        yield pair[0]
        yield pair[1]
    yield len(selector.expressions)
    for term in selector.expressions:
        parts: tuple[str | int, ...] = (term.key, term.operator, len(term.values), *term.values)
        yield from parts


UNIVERSAL = atom_id(PodAtom(EVERYTHING, EVERYTHING))
"""The atom that every pod of every namespace matches, whatever its labels."""


@lru_cache(maxsize=65_536)
def class_id(atoms: frozenset[int]) -> int:
    """The peer class of addresses that match exactly these atoms; 0 for none."""
    return content_id("class", *sorted(atoms)) if atoms else 0


def selects(selector: Selector, labels: Labels) -> bool:
    """meta/v1 LabelSelector: all pairs and all requirements hold."""
    return all(labels.get(key) == value for key, value in selector.labels) and all(
        _holds(term, labels) for term in selector.expressions
    )


def _holds(term: Requirement, labels: Labels) -> bool:
    """NotIn and DoesNotExist hold where the key is missing (policy S8)."""
    value = labels.get(term.key)
    match term.operator:
        case Operator.IN:
            return value is not None and value in term.values
        case Operator.NOT_IN:
            return value is None or value not in term.values
        case Operator.EXISTS:
            return value is not None
        case Operator.DOES_NOT_EXIST:
            return value is None


class SelectorIndex(Generic[T]):
    """Values by selector; a look-up tries only selectors of which a first label pair fits."""

    __slots__ = ("_by_pair", "_others")

    def __init__(self, entries: Iterable[tuple[Selector, T]]) -> None:
        self._by_pair: dict[tuple[str, str], list[tuple[Selector, T]]] = {}
        self._others: list[tuple[Selector, T]] = []
        for selector, value in entries:
            pairs = selector.labels
            home = self._by_pair.setdefault(pairs[0], []) if pairs else self._others
            home.append((selector, value))

    def __bool__(self) -> bool:
        return bool(self._by_pair or self._others)

    def matching(self, labels: Labels) -> Iterator[T]:
        """The values of every selector that selects `labels`."""
        for selector, value in self._others:
            if selects(selector, labels):
                yield value
        if self._by_pair:
            for pair in labels.items():
                for selector, value in self._by_pair.get(pair, ()):
                    if selects(selector, labels):
                        yield value
