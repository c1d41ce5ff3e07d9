"""Owns what others' nftables are asked: chains that drop what is forwarded, rules at their top.

Never decides which chain gets a rule.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from weft.proxy.apply import nfnetlink
from weft.proxy.apply.nfnetlink import (
    CREATE,
    Channel,
    Message,
    Order,
    attribute,
    nest,
    number,
    text,
)

_CHAIN_TABLE, _CHAIN_NAME, _CHAIN_HOOK, _CHAIN_POLICY = 1, 3, 4, 5
_HOOK_NUMBER, _FORWARD, _DROP, _ACCEPT = 1, 2, 0, 1
_RULE_TABLE, _RULE_CHAIN, _RULE_EXPRESSIONS, _RULE_USERDATA = 1, 2, 4, 7
# A comment in a rule's user data, as nft and iptables-nft write and show it (libnftnl/udata.h).
_COMMENT = 0
IN, OUT = 6, 7
"""What a rule looks at: the link that a packet came by or leaves by (NFT_META_IIFNAME, OIFNAME)."""
_FAMILIES = {1: "inet", 2: "ip", 10: "ip6"}


@dataclass(frozen=True, slots=True)
class Chain:
    """A chain by its place; family: the kernel's number of it (NFPROTO)."""

    family: int
    table: str
    name: str

    def __str__(self) -> str:
        return f"{_FAMILIES[self.family]} {self.table} {self.name}"


@dataclass(frozen=True, slots=True)
class Accept:
    """A rule that accepts what comes or goes by links whose names begin with `prefix`."""

    by: int
    prefix: str
    comment: str


@contextmanager
def opened() -> Iterator["Nftables"]:
    """A conversation with the nftables of this network namespace."""
    with nfnetlink.opened() as channel:
        yield Nftables(channel)


class Nftables:
    """What the kernel is asked and told. Every method raises OSError."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel

    def generation(self) -> int | None:
        """See Channel.generation."""
        return self._channel.generation()

    def dropping(self) -> list[Chain]:
        """Base chains that drop what is forwarded and no rule of theirs accepts."""
        return [
            Chain(family, text(found[_CHAIN_TABLE]), text(found[_CHAIN_NAME]))
            for family, found in self._channel.dump(Message.GET_CHAIN, 0, b"")
            if family in _FAMILIES and _drops_forwarded(found)
        ]

    def comments(self, chain: Chain) -> set[str]:
        """The comments of a chain's rules."""
        asked = attribute(_RULE_TABLE, chain.table) + attribute(_RULE_CHAIN, chain.name)
        rules = self._channel.dump(Message.GET_RULE, chain.family, asked)
        return {_comment(found.get(_RULE_USERDATA, b"")) for _, found in rules}

    def insert(self, chain: Chain, rules: Sequence[Accept]) -> None:
        """Put rules at the chain's top, all or none; the last one will stand first."""
        orders = [Order(Message.NEW_RULE, _rule(chain, rule), CREATE) for rule in rules]
        self._channel.transact(chain.family, orders)


def _drops_forwarded(found: Mapping[int, bytes]) -> bool:
    hook = nfnetlink.attributes(found.get(_CHAIN_HOOK, b""))
    number = int.from_bytes(hook.get(_HOOK_NUMBER, b""), "big")
    policy = int.from_bytes(found.get(_CHAIN_POLICY, b"\x01"), "big")
    return number == _FORWARD and policy == _DROP


def _rule(chain: Chain, rule: Accept) -> bytes:
    register, prefix = 1, rule.prefix.encode()
    # Comparing fewer bytes than a name has is how nft writes a trailing wildcard.
    expressions = b"".join((
        _expression("meta", number(1, register) + number(2, rule.by)),
        _expression("cmp", number(1, register) + number(2, 0) + nest(3, attribute(1, prefix))),
        _expression("counter", b""),
        _expression("immediate", number(1, 0) + nest(2, nest(2, number(1, _ACCEPT)))),
    ))  # fmt: skip
    words = rule.comment.encode() + b"\0"
    return b"".join((
        attribute(_RULE_TABLE, chain.table), attribute(_RULE_CHAIN, chain.name),
        nest(_RULE_EXPRESSIONS, expressions),
        attribute(_RULE_USERDATA, bytes((_COMMENT, len(words))) + words),
    ))  # fmt: skip


def _expression(name: str, data: bytes) -> bytes:
    return nest(1, attribute(1, name) + (nest(2, data) if data else b""))


def _comment(userdata: bytes) -> str:
    at = 0
    while at + 2 <= len(userdata):
        kind, size = userdata[at], userdata[at + 1]
        if kind == _COMMENT:
            return text(userdata[at + 2 : at + 2 + size])
        at += 2 + size
    return ""
