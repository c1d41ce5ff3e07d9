"""Owns the count of a book's rows by class, and per rule set the sum that its revision follows.

A set's sum covers every row whose class has a verdict row in the set, so it moves when the answer
for any peer may have moved. Mutable, lives for one draft.
"""

from weft.proxy.plan.policy_atoms import class_id
from weft.proxy.plan.policy_book import WRAP, Book, Population, share
from weft.proxy.plan.policy_rules import RuleSet
from weft.proxy.plan.policy_universe import Universe


class Tally:
    """`classes`, `sets`: what came, went or counts differently since the book."""

    def __init__(self, book: Book) -> None:
        self.populations = book.populations.mutate()
        self.sums = book.sums.mutate()
        self.classes: set[int] = set()
        self.sets: set[int] = set()
        self._universe, self._book = book.universe, book
        self._telling: dict[int, tuple[int, ...]] = {}

    def switch(self, universe: Universe) -> None:
        """Count for the sets of `universe` from now on; before any row moves."""
        before, after = self._universe.sets, universe.sets
        for gone in before.keys() - after.keys():
            del self.sums[gone]
            self._change(before[gone])
        for new in after.keys() - before.keys():
            self.sums[new] = self._change(after[new])
        self._universe = universe

    def _change(self, rules: RuleSet) -> int:
        """Mark the set and the classes that have rows in it; their sum."""
        self.sets.add(rules.id)
        total = 0
        for name, population in self._book.populations.items():
            if not population.atoms.isdisjoint(rules.bits) and rules.distinguishes(
                population.atoms
            ):
                self.classes.add(name)
                total += population.sum
        return total & WRAP

    def join(self, atoms: frozenset[int], place: bytes) -> None:
        """A row at `place` has the class of these atoms now."""
        name = class_id(atoms)
        if name:
            self._move(name, self.populations.get(name) or Population(atoms), 1, place)

    def leave(self, name: int, place: bytes) -> None:
        """The row at `place` has class `name` no more."""
        if name:
            self._move(name, self.populations[name], -1, place)

    def _move(self, name: int, held: Population, step: int, place: bytes) -> None:
        moved = held.moved(step, step * share(name, place))
        if moved.count:
            self.populations[name] = moved
        else:
            del self.populations[name]
        if not (held.count and moved.count):
            self.classes.add(name)
        for one in self._sets_that_tell(name, held.atoms):
            self.sums[one] = (self.sums[one] + step * share(name, place)) & WRAP
            self.sets.add(one)

    def _sets_that_tell(self, name: int, atoms: frozenset[int]) -> tuple[int, ...]:
        held = self._telling.get(name)
        if held is None:
            held = tuple(one.id for one in self._universe.sets_that_tell(atoms))
            self._telling[name] = held
        return held
