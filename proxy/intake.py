"""Owns the way of events into the World: what changed, who has listed, what was not understood.

Never plans and never writes. Used by the loop's worker only; readers see whole Worlds.
"""

import logging
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from weft.proxy.apply.gate import Stage
from weft.proxy.model import sightings
from weft.proxy.model.lastknown import LastKnown
from weft.proxy.model.objects import Broken, Kind, Ref, Sighting
from weft.proxy.model.world import Change, Key, Record, World
from weft.proxy.watch.events import Event, Listed, Moved, kind_of

log = logging.getLogger(__name__)


class Step(NamedTuple):
    """One change with the World on both sides of it."""

    change: Change
    before: World
    after: World


class Intake:
    """The current World, and how far it can be trusted.

    expected: the kinds that must have listed before anything may be deleted.
    """

    def __init__(self, world: World, expected: frozenset[Kind]) -> None:
        self.world = world
        self.broken: dict[tuple[Kind, Key], str] = {}
        self.node_deleted = False
        """The own Node object was deleted; the World keeps what it said last."""
        self._own_node = Ref("", world.settings.node)
        self._expected = expected
        self._listed: set[Kind] = set()
        self._cached: set[Kind] = set()
        self._early_pods: list[Event] = []
        self._last_known = LastKnown()

    @property
    def stage(self) -> Stage:
        if self._expected <= self._listed:
            return Stage.LISTED
        if self._expected <= self._listed | self._cached:
            return Stage.CACHED
        return Stage.STARTING

    def waits_for(self) -> tuple[Kind, ...]:
        """The kinds that have not listed."""
        return tuple(sorted(self._expected - self._listed))

    def take(self, event: Event) -> Iterator[Step]:
        """Bring the World on by `event`; nothing for what changes nothing.

        Pods wait until policies have listed: of a pod without any it would follow that it is open,
        and a link made meanwhile has its rows written at once (apply.gate, EARLY_TABLES).
        """
        if kind_of(event) is Kind.POD and not self._knows_policies():
            self._early_pods.append(event)
            return
        yield from self._take(event)
        if self._early_pods and self._knows_policies():
            held, self._early_pods = self._early_pods, []
            for one in held:
                yield from self._take(one)

    def _knows_policies(self) -> bool:
        listed = self._listed | self._cached
        return Kind.POLICY in listed or Kind.POLICY not in self._expected

    def _take(self, event: Event) -> Iterator[Step]:
        if isinstance(event, Moved):
            self.broken.pop((event.kind, event.key), None)
            yield from self._move(event.kind, event.key, self._believed(event.record))
        elif isinstance(event, Listed):
            yield from self._list(event)
        else:
            self._refuse(event.broken)

    def _list(self, event: Listed) -> Iterator[Step]:
        if event.cached and event.kind in self._listed:
            return
        (self._cached if event.cached else self._listed).add(event.kind)
        for place in [place for place in self.broken if place[0] is event.kind]:
            del self.broken[place]
        for broken in event.broken:
            self._refuse(broken)
        yield from self._replace(event.kind, event.records, {b.ref for b in event.broken})

    def _replace(self, kind: Kind, records: Mapping[Key, Record], kept: set[Key]) -> Iterator[Step]:
        for key, record in records.items():
            yield from self._move(kind, key, record)
        gone = [key for key in self.world.table(kind) if key not in records and key not in kept]
        for key in gone:
            yield from self._move(kind, key, None)

    def _move(self, kind: Kind, key: Key, record: Record | None) -> Iterator[Step]:
        if kind is not Kind.SLICE:
            yield from self._put(kind, key, record)
            return
        had = len(self._last_known)
        for place, piece in self._last_known.moves(self.world, key, record):
            yield from self._put(kind, place, piece)
        if len(self._last_known) > had:
            said = {"slice": str(key)}
            log.warning(
                "no API server is an endpoint of its Service, the last known stay", extra=said
            )

    def _put(self, kind: Kind, key: Key, record: Record | None) -> Iterator[Step]:
        held = self.world.table(kind).get(key)
        if kind is Kind.NODE and key == self._own_node:
            self._note_own_node(deleted=record is None and held is not None)
            record = record or held
        if held == record:
            return
        change = Change(kind, key, held, record)
        before, self.world = self.world, self.world.with_change(change)
        yield Step(change, before, self.world)
        for gone in sightings.outdated(change, self.world):
            yield from self._put(Kind.SIGHTING, gone, None)

    def _believed(self, record: Record | None) -> Record | None:
        """Another node's word is taken as far as the API bears it out."""
        if isinstance(record, Sighting):
            return sightings.admitted(self.world, record)
        return record

    def _note_own_node(self, *, deleted: bool) -> None:
        """The own Node outlives its object: a kubelet that registers afresh deletes and makes it,
        and without it there would be no overlay and no route meanwhile.
        """
        if deleted and not self.node_deleted:
            said = {"node": self._own_node.name}
            log.warning("the own Node was deleted, what it said holds until a new one", extra=said)
        self.node_deleted = deleted

    def _refuse(self, broken: Broken) -> None:
        place = (broken.kind, broken.ref)
        if self.broken.get(place) != broken.why:
            said = {"kind": broken.kind, "object": str(broken.ref), "why": broken.why}
            log.warning("object not understood, its last good state stays", extra=said)
        self.broken[place] = broken.why
