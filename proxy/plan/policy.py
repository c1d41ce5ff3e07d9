"""Owns policy's part of the plan: the tables sets, verdicts, ports, peers, blocks, and judgements.

Four planners (by rule set, by class, by address, by prefix) and what plan.workloads needs of a
workload. ARCHITECTURE.md, "Policy scheme", says how the tables work together. Pure.
"""

from collections.abc import Callable, Hashable, Iterable, Iterator
from dataclasses import dataclass
from typing import cast

from weft.bpf.layout import PrefixKey, Verdict, VerdictKey, pack_address, pack_u32, pack_u64
from weft.proxy.model.ids import content_id
from weft.proxy.model.objects import Address, Ref, Workload
from weft.proxy.model.world import Change, World
from weft.proxy.plan.policy_book import Book
from weft.proxy.plan.policy_draft import Draft, Moves
from weft.proxy.plan.policy_judge import UNKNOWN, Side, pod_of, policies_of
from weft.proxy.plan.policy_prefix import Prefix, address_of, number
from weft.proxy.plan.policy_rules import Direction, grants
from weft.proxy.plan.policy_world import advanced, book_afresh, book_of
from weft.proxy.plan.rows import Planner, Row

_WORD = (1 << 64) - 1


@dataclass(frozen=True, slots=True)
class Judgement:
    """What `struct workload` says of policy. Set 0: not isolated; its revision is 0 then."""

    ingress_set: int
    ingress_revision: int
    egress_set: int
    egress_revision: int


def judgement(world: World, workload: Workload) -> Judgement:
    """The sets that judge a link of this World, and their revisions."""
    book = book_of(world)
    judged = book.judged.get(workload.key, UNKNOWN)
    return Judgement(*_numbers(book, judged.ingress), *_numbers(book, judged.egress))


def _numbers(book: Book, side: Side) -> tuple[int, int]:
    if side.set is None:
        return 0, 0
    name = side.set.id
    return name, content_id("revision", name, book.sums.get(name, 0))


def workload_keys(change: Change, before: World, after: World) -> Iterable[str]:
    """The keys of the workloads whose judgement `change` may move, new and gone ones too."""
    return advanced(change, before, after).workloads


def set_policies(world: World, set_id: int) -> tuple[Ref, ...]:
    """The policies behind a rule set that judges here; () for one that nobody has (any more)."""
    found = {
        policy
        for judged in book_of(world).judged.values()
        for side in (judged.ingress, judged.egress)
        if side.set is not None and side.set.id == set_id
        for policy in side.policies
    }
    return tuple(sorted(found))


def problems(world: World) -> Iterable[tuple[Ref, str]]:
    """What of the policies that judge local workloads is not in force, by policy, and why.

    None of it opens anything: a part that is not understood or does not fit allows nothing.
    """
    found: dict[tuple[Ref, str], None] = {}
    for workload in world.workloads():
        pod = pod_of(world, workload)
        for policy in policies_of(world, pod) if pod else ():
            if policy.broken:
                found[policy.ref, policy.broken] = None
            for direction in Direction:
                for grant in grants(policy, direction):
                    if grant.problem:
                        found[policy.ref, grant.problem] = None
    for ref, why in _overflows(book_of(world)):
        found[ref, why] = None
    return sorted(found)


def _overflows(book: Book) -> Iterator[tuple[Ref, str]]:
    for judged in book.judged.values():
        for direction in Direction:
            side = judged.side(direction)
            if side.set is not None and side.set.classes.refused:
                why = (
                    f"{direction}: the port lists of {', '.join(map(str, side.policies))} cut the "
                    f"ports into {side.set.classes.refused} classes more than the 256 that a rule "
                    f"set can have; those ports stay closed: use fewer, larger ranges"
                )
                yield from ((policy, why) for policy in side.policies)


# --- Between two Worlds ---------------------------------------------------------------------------
def state(world: World) -> Book:
    """What policy has made of a World, for a later `transition` from it."""
    return book_of(world)


def transition(before: Book, world: World) -> tuple[Row, ...]:
    """The rows that hold while workloads change from the sets of `before` to those of `world`.

    Under them every peer has a class that knows the atoms of the old sets and of the new, and both
    have verdicts for it: whichever of its sets a workload has at that moment answers exactly.
    () where no workload that stays gets another set.
    """
    book = book_of(world)
    retiring = {
        one.id: one
        for key, judged in before.judged.items()
        if key in book.judged and judged is not book.judged[key]
        for one in judged.sets()
        if one.id not in book.universe.sets
    }
    if not retiring:
        return ()
    draft = Draft(book, world)
    draft.switch({**book.universe.sets, **retiring})
    both, moves = draft.finish()
    return tuple(_book_rows(both, moves))


# --- Rows ---------------------------------------------------------------------------------------
def _book_rows(book: Book, moves: Moves) -> Iterator[Row]:
    """The rows behind some moves that concern peers."""
    for name in moves.classes:
        yield from _class_rows(book, name)
    for address in moves.addresses:
        yield from _peer_rows(book, address_of(address))
    for prefix in moves.prefixes:
        yield from _block_rows(book, prefix)


def _set_rows(book: Book, key: Hashable) -> Iterator[Row]:
    """The ports of a rule set, and its verdict for peers of no class."""
    rules = book.universe.sets.get(cast(int, key))
    if rules is None:
        return
    for port in rules.classes.rows:
        yield Row("ports", port.key(rules.id), pack_u32(port.port_class))
    if rules.default:
        yield _verdict(rules.id, 0, rules.default)


def _class_rows(book: Book, key: Hashable) -> Iterator[Row]:
    """The verdicts of every rule set that tells this class from the rest."""
    name = cast(int, key)
    population = book.populations.get(name)
    if population is not None:
        for rules in book.universe.sets_that_tell(population.atoms):
            yield _verdict(rules.id, name, rules.allow(population.atoms))


def _verdict(set_id: int, peer: int, allow: int) -> Row:
    words = tuple(allow >> shift & _WORD for shift in (0, 64, 128, 192))
    return Row("verdicts", VerdictKey(set_id, peer).pack(), Verdict(words).pack())


def _peer_rows(book: Book, key: Hashable) -> Iterator[Row]:
    address = cast(Address, key)
    name = book.peers.get(number(address))
    if name is not None:
        yield Row("peers", pack_address(address), pack_u64(name))


def _block_rows(book: Book, key: Hashable) -> Iterator[Row]:
    prefix = cast(Prefix, key)
    name = book.blocks.get(prefix)
    if name is not None:
        at = PrefixKey(prefix.length, address_of(prefix.value))
        yield Row("blocks", at.pack(), pack_u64(name))


def _planner(
    name: str,
    rows: Callable[[Book, Hashable], Iterable[Row]],
    moved: Callable[[Moves], Iterable[Hashable]],
    present: Callable[[Book], Iterable[Hashable]],
) -> Planner:
    """A planner whose keys are those that a step of the book names."""
    return Planner(
        name,
        keys=lambda change, before, after: moved(advanced(change, before, after)),
        rows=lambda world, key: rows(book_of(world), key),
        all_keys=lambda world: present(book_afresh(world)),
    )


SETS = _planner("sets", _set_rows, lambda m: m.sets, lambda b: b.universe.sets)
CLASSES = _planner("classes", _class_rows, lambda m: m.classes, lambda b: b.populations)
PEERS = _planner(
    "peers",
    _peer_rows,
    lambda m: map(address_of, m.addresses),
    lambda b: map(address_of, b.peers),
)
BLOCKS = _planner("blocks", _block_rows, lambda m: m.prefixes, lambda b: b.blocks)
PLANNERS = (SETS, CLASSES, PEERS, BLOCKS)
