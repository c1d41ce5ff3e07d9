"""Owns the book: what policy has made of one World, in persistent maps.

Everything in it is a function of World alone. It exists so that the next World's book costs what
the change costs (policy_draft writes it). Never reads World.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from hashlib import blake2b

from immutables import Map

from weft.proxy.plan.policy_judge import Judged
from weft.proxy.plan.policy_prefix import MASKS, Prefix, PrefixSet, is_v4
from weft.proxy.plan.policy_universe import EMPTY, NO_ATOMS, Universe

WRAP = (1 << 64) - 1
_V4_BUCKET, _V6_BUCKET = 120, 64


@dataclass(frozen=True, slots=True)
class Population:
    """A class that some row has: its atoms, how many rows, the sum of the rows' hashes."""

    atoms: frozenset[int]
    count: int = 0
    sum: int = 0

    def moved(self, count: int, share: int) -> "Population":
        return Population(self.atoms, self.count + count, (self.sum + share) & WRAP)


@dataclass(frozen=True, slots=True)
class Book:
    """Addresses are numbers (policy_prefix.number).

    judged: workload key -> its rule sets. peers, blocks: the rows of these tables, class ids.
    gateways: a node's own address in its podCIDR -> node -> its InternalIP of that family or None.
    shadows: rows of peers that take more from a peer than they give -> the class of blocks there.
    sums: set -> the sum over the rows of every class that has a verdict row in it.
    """

    universe: Universe = EMPTY
    judged: Map[str, Judged] = field(default_factory=Map)
    peers: Map[int, int] = field(default_factory=Map)
    blocks: Map[Prefix, int] = field(default_factory=Map)
    near: Map[Prefix, Map[int, bool]] = field(default_factory=Map)
    gateways: Map[int, Map[str, int | None]] = field(default_factory=Map)
    cidrs: PrefixSet = field(default_factory=PrefixSet)
    shadows: Map[int, int] = field(default_factory=Map)
    populations: Map[int, Population] = field(default_factory=Map)
    sums: Map[int, int] = field(default_factory=Map)

    def atoms_at(self, address: int) -> frozenset[int]:
        """The atoms that the tables say of an address: its own row's, else its prefix's."""
        row = self.peers.get(address)
        if row is None:
            return self.range_atoms(address)
        return self.populations[row].atoms if row else NO_ATOMS

    def range_atoms(self, address: int) -> frozenset[int]:
        """The atoms of the longest prefix in `blocks`: ipBlocks, and in a podCIDR every pod's."""
        return atoms_within(self.universe, self.cidrs, Prefix(address, 128))


EMPTY_BOOK = Book()


def atoms_within(universe: Universe, cidrs: PrefixSet, prefix: Prefix) -> frozenset[int]:
    """What every address of `prefix` matches of which nothing longer is known."""
    atoms = universe.ranges.at(prefix.value, NO_ATOMS, prefix.length)
    return atoms | universe.universal if universe.universal and cidrs.covers(*prefix) else atoms


def share(class_: int, place: bytes) -> int:
    """What a row adds to its class's sum, 64 bits."""
    digest = blake2b(class_.to_bytes(8, "little") + place, digest_size=8)
    return int.from_bytes(digest.digest(), "little")


def address_place(address: int) -> bytes:
    return b"a" + address.to_bytes(16, "big")


def shadow_place(address: int) -> bytes:
    return b"s" + address.to_bytes(16, "big")


def prefix_place(prefix: Prefix) -> bytes:
    return b"p%d/" % prefix.length + prefix.value.to_bytes(16, "big")


def bucket_of(address: int) -> Prefix:
    """A coarse prefix under which known addresses are found again by range."""
    length = _V4_BUCKET if is_v4(address) else _V6_BUCKET
    return Prefix(address & MASKS[length], length)


def known_in(near: Map[Prefix, Map[int, bool]], prefix: Prefix) -> Iterator[int]:
    """The known addresses that `prefix` covers."""
    for bucket, addresses in near.items():
        if prefix.covers(*bucket):
            yield from addresses
        elif bucket.covers(*prefix):
            yield from (address for address in addresses if prefix.covers(address))
