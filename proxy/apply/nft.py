"""Owns Weft's own table of the kernel's nftables, `inet weft-sctp`: the plan's table `nft`.

Tables of others are never read as ours and never touched. What packets put into a set is no row.
"""

from collections.abc import Collection, Hashable, Iterator, Mapping
from itertools import count, groupby, islice
from operator import attrgetter
from typing import cast

from weft.proxy.apply import nfnetlink
from weft.proxy.apply.nfnetlink import (
    APPEND,
    CREATE,
    Attributes,
    Channel,
    Message,
    Order,
    attribute,
    attributes,
    listed,
    nest,
    number,
    text,
    value,
)
from weft.proxy.apply.nfrules import (
    member_read,
    member_told,
    read_rule,
    shape_read,
    shape_told,
    told,
    verdict_read,
    verdict_told,
)
from weft.proxy.apply.target import Errors
from weft.proxy.plan.nft import (
    Base,
    Chain,
    ChainKey,
    Hook,
    Member,
    Rule,
    Set,
    SetKey,
    Verdict,
)

NAME = "weft-sctp"
NEEDS = "nf_tables, nft_nat, nft_masq, nft_numgen, nft_ct, nft_reject_inet and nf_conntrack"
"""Of the kernel's options (CONFIG_NF_TABLES, CONFIG_NFT_NAT, ...)."""

_INET = 1
_MAP, _TIMEOUT, _DYNAMIC = 8, 16, 32
_VERDICTS = 0xFFFFFF00
_MEMBERS_AT_ONCE = 256
_TABLE = attribute(1, NAME)


class NftTarget:
    """The table `nft`."""

    def __init__(self) -> None:
        self._seen: int | None = None

    def moved(self) -> bool:
        """Whether any hand has altered any rule since this was asked last."""
        with nfnetlink.opened() as kernel:
            before, self._seen = self._seen, kernel.generation()
        return before != self._seen

    def dump(self) -> Iterator[tuple[Hashable, object]]:
        with nfnetlink.opened() as kernel:
            yield from _read(kernel) if kernel.generation() is not None else ()

    def write(self, upserts: Mapping[Hashable, object], deletes: Collection[Hashable]) -> Errors:
        with nfnetlink.opened() as kernel:
            if kernel.generation() is None:
                if not upserts:
                    return {}
                raise OSError(f"SCTP Services need {NEEDS}: this kernel has no nftables")
            try:
                _write(kernel, upserts, deletes, None)
            except OSError:
                # Something is not as the plan's history has it.
                try:
                    _write(kernel, upserts, deletes, dict(_read(kernel)))
                except OSError as error:
                    raise OSError(
                        error.errno, f"SCTP Services need {NEEDS}: {error.strerror}"
                    ) from error
            if any(isinstance(key, ChainKey) for key in deletes) and not any(_read(kernel)):
                kernel.transact(_INET, [Order(Message.DELETE_TABLE, _TABLE)])
        return {}


def _write(
    kernel: Channel,
    upserts: Mapping[Hashable, object],
    deletes: Collection[Hashable],
    have: Mapping[Hashable, object] | None,
) -> None:
    """have: what there is; None: what is altered is as it was, and what is deleted is there."""
    orders: list[Order] = []
    gone = [key for key in deletes if have is None or key in have]
    if have is not None:
        gone += [key for key, row in upserts.items() if have.get(key, row) != row and _blocks(key)]
    orders += _deleting(gone)
    if upserts:
        orders += _making(upserts)
    if orders:
        kernel.transact(_INET, orders)


def _blocks(key: Hashable) -> bool:
    """Whether the row cannot be altered in place. A chain that others jump to can."""
    return not isinstance(key, ChainKey) or key.name in _HOOKED


_HOOKED = frozenset(hook.name.lower() for hook in Hook)


# --- Told ---------------------------------------------------------------------------------------
def _making(rows: Mapping[Hashable, object]) -> Iterator[Order]:
    """Each after what it refers to."""
    numbers = count(1)
    yield Order(Message.NEW_TABLE, _TABLE, CREATE)
    for key, row in rows.items():
        if isinstance(key, SetKey):
            yield Order(Message.NEW_SET, _set(key.name, cast(Set, row), next(numbers)), CREATE)
    chains = {key.name: cast(Chain, row) for key, row in rows.items() if isinstance(key, ChainKey)}
    for name, chain in chains.items():
        yield Order(Message.NEW_CHAIN, _chain(name, chain.base), CREATE)
    for name, chain in chains.items():
        yield Order(Message.DELETE_RULE, _TABLE + attribute(2, name))
        for rule in chain.rules:
            body = _TABLE + attribute(2, name) + nest(4, told(rule))
            yield Order(Message.NEW_RULE, body, CREATE | APPEND)
    members = {key: row for key, row in rows.items() if isinstance(key, Member)}
    yield from _members(Message.NEW_ELEMENT, members, CREATE)


def _deleting(keys: Collection[Hashable]) -> Iterator[Order]:
    """Each before what it refers to."""
    members = {key: True for key in keys if isinstance(key, Member)}
    yield from _members(Message.DELETE_ELEMENT, members, 0)
    chains = [key.name for key in keys if isinstance(key, ChainKey)]
    for name in chains:
        yield Order(Message.DELETE_RULE, _TABLE + attribute(2, name))
    for name in chains:
        yield Order(Message.DELETE_CHAIN, _TABLE + attribute(3, name))
    for key in keys:
        if isinstance(key, SetKey):
            yield Order(Message.DELETE_SET, _TABLE + attribute(2, key.name))


def _members(message: Message, rows: Mapping[Member, object], flags: int) -> Iterator[Order]:
    for name, keys in groupby(sorted(rows, key=attrgetter("of")), attrgetter("of")):
        while some := list(islice(keys, _MEMBERS_AT_ONCE)):
            elements = b"".join(_member(key, rows[key]) for key in some)
            yield Order(message, _TABLE + attribute(2, name) + nest(3, elements), flags)


def _member(key: Member, row: object) -> bytes:
    data = nest(2, verdict_told(row)) if isinstance(row, Verdict) else b""
    return nest(1, nest(1, attribute(1, member_told(key.values))), data)


def _chain(name: str, base: Base | None) -> bytes:
    body = _TABLE + attribute(3, name)
    if base is None:
        return body
    hook = nest(4, number(1, base.hook), number(2, base.priority & 0xFFFFFFFF))
    return body + hook + number(5, 1) + attribute(7, "nat" if base.translates else "filter")


def _set(name: str, row: Set, number_of_it: int) -> bytes:
    flags = (_MAP if row.is_map else 0) | (_TIMEOUT | _DYNAMIC if row.timeout_s else 0)
    kind, size = shape_told(row.shape, row.version)
    return b"".join((
        _TABLE, attribute(2, name), number(3, flags), number(4, kind),
        number(5, size),
        number(6, _VERDICTS) if row.is_map else b"",
        number(10, number_of_it),
        number(11, row.timeout_s * 1000, 8) if row.timeout_s else b"",
        nest(9, number(1, _CLIENTS_MAX)) if row.timeout_s else b"",
    ))  # fmt: skip


_CLIENTS_MAX = 65535
"""Of one endpoint of a Service with affinity, as nft's own default; the next is not remembered."""


# --- Read back ----------------------------------------------------------------------------------
def _read(kernel: Channel) -> Iterator[tuple[Hashable, object]]:
    for found in _ours(kernel, Message.GET_CHAIN, b""):
        name = text(found[3])
        asked = _TABLE + attribute(2, name)
        rules = kernel.dump(Message.GET_RULE, _INET, asked)
        yield ChainKey(name), Chain(tuple(_rule(rule) for _, rule in rules), _base(found))
    for found in _ours(kernel, Message.GET_SET, b""):
        name, row = text(found[2]), _set_read(found)
        yield SetKey(name), row
        if isinstance(row, Set) and not row.timeout_s:
            for _, some in kernel.dump(Message.GET_ELEMENT, _INET, _TABLE + attribute(2, name)):
                yield from _members_read(name, row, some)


def _ours(kernel: Channel, what: Message, asked: bytes) -> Iterator[Attributes]:
    for _, found in kernel.dump(what, _INET, asked):
        if text(found[1]) == NAME:
            yield found


def _rule(found: Attributes) -> Rule:
    return read_rule(found.get(4, b""))


def _base(found: Attributes) -> Base | None:
    if 4 not in found:
        return None
    hook = attributes(found[4])
    priority = int.from_bytes(hook[2], "big", signed=True)
    try:
        return Base(Hook(value(hook[1])), priority, text(found[7]) == "nat")
    except ValueError:
        return Base(Hook.OUTPUT, priority, translates=False)


def _set_read(found: Attributes) -> Set | None:
    """None: of a shape that none of ours has."""
    flags, shape = value(found.get(3, b"")), shape_read(value(found.get(4, b"")))
    if shape is None:
        return None
    timeout_s = value(found.get(11, b"")) // 1000
    return Set(*shape, is_map=bool(flags & _MAP), timeout_s=timeout_s)


def _members_read(name: str, row: Set, some: Attributes) -> Iterator[tuple[Hashable, object]]:
    for _, one in listed(some.get(3, b"")):
        said = attributes(one)
        key = attributes(said[1])[1]
        verdict = attributes(said[2]).get(2) if 2 in said else None
        place = Member(name, member_read(row.shape, row.version, key))
        yield place, verdict_read(verdict) if verdict is not None else True
