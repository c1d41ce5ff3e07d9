"""Owns the books of the Worlds at hand: one per World, each made from the one before it.

`advanced` is asked for every change and remembers its answer for the other planners; what is
remembered is a function of World, so forgetting costs time only. Pure otherwise.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from weft.proxy.model.objects import Kind, Namespace, NetworkPolicy, Pod, Sighting, Workload
from weft.proxy.model.world import Change, World
from weft.proxy.plan.policy_book import EMPTY_BOOK, Book
from weft.proxy.plan.policy_draft import Draft, Moves

_KEPT = 8
_NOTHING = Moves()


class _Entry(NamedTuple):
    world: World
    book: Book
    before: World | None
    moves: Moves
    afresh: bool


_entries: tuple[_Entry, ...] = ()


def book_of(world: World) -> Book:
    """The book of a World: remembered, else made from nothing."""
    for entry in _entries:
        if entry.world is world:
            return entry.book
    return book_afresh(world)


def book_afresh(world: World) -> Book:
    """The book of a World made from nothing, for full plans: it owes nothing to history."""
    for entry in _entries:
        if entry.world is world and entry.afresh:
            return entry.book
    book = build(world)
    _remember(_Entry(world, book, None, _NOTHING, afresh=True))
    return book


def advanced(change: Change, before: World, after: World) -> Moves:
    """What `change` moves on its way from one World to the next."""
    for entry in _entries:
        if entry.world is after and entry.before is before:
            return entry.moves
    book, moves = _advance(book_of(before), change, after)
    _remember(_Entry(after, book, before, moves, afresh=False))
    return moves


def forget() -> None:
    """Drop every remembered book."""
    global _entries
    _entries = ()


def _remember(entry: _Entry) -> None:
    global _entries
    _entries = (entry, *_entries[: _KEPT - 1])


def build(world: World) -> Book:
    draft = Draft(EMPTY_BOOK, world)
    for workload in world.workloads():
        draft.judge(workload.key)
        draft.touch(workload.addresses)
    for node in world.nodes():
        draft.place_node(None, node)
    for pod in world.pods():
        draft.touch(pod.addresses)
    draft.touch(said.address for said in world.sightings())
    return draft.finish()[0]


def _advance(book: Book, change: Change, after: World) -> tuple[Book, Moves]:
    touch = _TOUCHES.get(change.kind)
    if touch is None:
        return book, _NOTHING
    draft = Draft(book, after)
    touch(draft, after, change.before, change.after)
    return draft.finish()


def _touch_pod(draft: Draft, world: World, before: Pod | None, after: Pod | None) -> None:
    for pod in (before, after):
        if pod is not None:
            draft.touch_pods((pod,))
            for workload in world.workloads_of(pod.ref):
                draft.judge(workload.key)


def _touch_namespace(
    draft: Draft, world: World, before: Namespace | None, after: Namespace | None
) -> None:
    record = after or before
    if record is not None and draft.tells_apart(before, after):
        draft.touch_pods(world.pods_in(record.ref.name).values())


def _touch_policy(
    draft: Draft, world: World, before: NetworkPolicy | None, after: NetworkPolicy | None
) -> None:
    for policy in (before, after):
        if policy is not None:
            for workload in world.workloads_in(policy.ref.namespace):
                draft.judge(workload.key)


def _touch_workload(
    draft: Draft, world: World, before: Workload | None, after: Workload | None
) -> None:
    for workload in (before, after):
        if workload is not None:
            draft.touch(workload.addresses)
            draft.judge(workload.key)


def _touch_sighting(
    draft: Draft, world: World, before: Sighting | None, after: Sighting | None
) -> None:
    draft.touch(said.address for said in (before, after) if said is not None)


# Any: each takes its own kind's records, which a mapping's type cannot say.
_TOUCHES: Mapping[Kind, Callable[[Draft, World, Any, Any], None]] = {
    Kind.POD: _touch_pod,
    Kind.NAMESPACE: _touch_namespace,
    Kind.POLICY: _touch_policy,
    Kind.ATTACHMENT: _touch_workload,
    Kind.SIGHTING: _touch_sighting,
    Kind.NODE: lambda draft, _, before, after: draft.place_node(before, after),
}
