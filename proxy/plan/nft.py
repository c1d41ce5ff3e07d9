"""Owns the words that a plan for netfilter is written in: chains of rules, sets and their members.

Words only: what the kernel is told for them is apply/nfrules.py's. Yields no rows.
"""

from dataclasses import dataclass
from enum import Enum, IntEnum
from typing import TypeAlias

from weft.proxy.model.objects import Address, Network

TABLE = "nft"
"""The table of these rows: ChainKey -> Chain, SetKey -> Set, Member -> Verdict or True."""


class Field(Enum):
    """What a rule can look at. The dialled ones are of the association's first packet, as it came
    before any translation.
    """

    FAMILY = "family"
    PROTOCOL = "protocol"
    SOURCE = "source"
    DESTINATION = "destination"
    PORT = "port"
    IN_LINK = "in"
    OUT_LINK = "out"
    DIALLING = "dialling"
    DIALLED = "dialled"
    DIALLED_PORT = "dialled port"


class Act(Enum):
    """How a rule ends; JUMP: in another chain, whose end it is too."""

    JUMP = "jump"
    RETURN = "return"
    DROP = "drop"
    ACCEPT = "accept"


@dataclass(frozen=True, slots=True)
class Verdict:
    """The end of a rule, or what a map says for a member."""

    act: Act
    chain: str = ""


@dataclass(frozen=True, slots=True)
class Is:
    """Goes on where the field is `value`; a link's name need only begin with it."""

    field: Field
    value: int | str | Address


@dataclass(frozen=True, slots=True)
class Within:
    """Goes on where the source is within `network`."""

    network: Network


@dataclass(frozen=True, slots=True)
class In:
    """Goes on where the fields together are in a set; of a map, what that says happens."""

    fields: tuple[Field, ...]
    name: str
    is_map: bool = False
    version: int = 4


@dataclass(frozen=True, slots=True)
class OneIn:
    """Goes on one time in `count`, by chance."""

    count: int


@dataclass(frozen=True, slots=True)
class Remember:
    """Puts the source into a set, for the set's time from now on."""

    name: str
    version: int


@dataclass(frozen=True, slots=True)
class Translate:
    """Gives the association another destination, or with `source` another source."""

    address: Address
    port: int = 0
    source: bool = False


@dataclass(frozen=True, slots=True)
class Masquerade:
    """Gives the association the address of the link that it leaves by."""


@dataclass(frozen=True, slots=True)
class Refuse:
    """Answers with a port unreachable."""


@dataclass(frozen=True, slots=True)
class Mark:
    """Puts a mark on the packet, for whoever sees it next on this node."""

    value: int


Step: TypeAlias = (
    Is | Within | In | OneIn | Remember | Translate | Masquerade | Refuse | Mark | Verdict
)
Rule: TypeAlias = tuple[Step, ...]


class Hook(IntEnum):
    """Where netfilter asks (NF_INET_*)."""

    PREROUTING = 0
    OUTPUT = 3
    POSTROUTING = 4


@dataclass(frozen=True, slots=True)
class Base:
    """Where a chain is asked by netfilter itself. translates: of type nat, which sees the first
    packet of a connection only; priority: of several chains at one hook the lowest goes first.
    """

    hook: Hook
    priority: int
    translates: bool


@dataclass(frozen=True, slots=True)
class Chain:
    """Rules in their order; one that others jump to has no base."""

    rules: tuple[Rule, ...]
    base: Base | None = None


class Shape(Enum):
    """What a set's members are made of, all addresses of one family."""

    ADDRESS = "address"
    PLACE = "address and port"
    PAIR = "two addresses"


@dataclass(frozen=True, slots=True)
class Set:
    """A set, empty: members are rows of their own. is_map: each member has a verdict. timeout_s:
    packets put members in, which go after so long; those are no rows.
    """

    shape: Shape
    version: int
    is_map: bool = False
    timeout_s: int = 0


@dataclass(frozen=True, slots=True)
class ChainKey:
    name: str


@dataclass(frozen=True, slots=True)
class SetKey:
    name: str


@dataclass(frozen=True, slots=True)
class Member:
    """One member of a set, as its shape says."""

    of: str
    values: tuple[int | Address, ...]
