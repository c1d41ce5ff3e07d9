"""Owns how a plan's words for netfilter are told to the kernel and read back: rules, sets, members.

Never decides and never speaks: bytes only. A rule of another's hand that says nothing we say reads
as UNKNOWN.
"""

import sys
from collections.abc import Iterator, Mapping
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import NamedTuple

from weft.proxy.apply.nfnetlink import attribute, attributes, listed, nest, number, text, value
from weft.proxy.model.objects import Address, Network
from weft.proxy.plan.nft import (
    Act,
    Field,
    In,
    Is,
    Mark,
    Masquerade,
    OneIn,
    Refuse,
    Remember,
    Rule,
    Shape,
    Step,
    Translate,
    Verdict,
    Within,
)

UNKNOWN: Rule = (Is(Field.PROTOCOL, -1),)

_LIST_ELEMENT, _NAME, _DATA, _VALUE, _VERDICT = 1, 1, 2, 1, 2
_META_MARK, _RANDOM, _UPDATE, _ICMPX, _PORT_UNREACHABLE = 3, 1, 1, 2, 1
# enum nft_verdicts and NF_DROP, NF_ACCEPT, as 32 bits.
_ACTS = {Act.DROP: 0, Act.ACCEPT: 1, Act.JUMP: -3 & 0xFFFFFFFF, Act.RETURN: -5 & 0xFFFFFFFF}
_FAMILIES = {4: 2, 6: 10}


class _Load(NamedTuple):
    """Where a field is: an expression, and what tells it from its others."""

    name: str
    where: tuple[tuple[int, int], ...]
    """Attributes and their numbers, as the kernel gives them back."""
    size: int


_LINK_BYTES = 16
_LOADS: Mapping[tuple[Field, int], _Load] = {
    (Field.PROTOCOL, 0): _Load("meta", ((2, 16),), 1),
    (Field.FAMILY, 0): _Load("meta", ((2, 15),), 1),
    (Field.IN_LINK, 0): _Load("meta", ((2, 6),), _LINK_BYTES),
    (Field.OUT_LINK, 0): _Load("meta", ((2, 7),), _LINK_BYTES),
    (Field.PORT, 0): _Load("payload", ((2, 2), (3, 2), (4, 2)), 2),
    (Field.SOURCE, 4): _Load("payload", ((2, 1), (3, 12), (4, 4)), 4),
    (Field.SOURCE, 6): _Load("payload", ((2, 1), (3, 8), (4, 16)), 16),
    (Field.DESTINATION, 4): _Load("payload", ((2, 1), (3, 16), (4, 4)), 4),
    (Field.DESTINATION, 6): _Load("payload", ((2, 1), (3, 24), (4, 16)), 16),
    (Field.DIALLING, 4): _Load("ct", ((2, 19), (3, 0)), 4),
    (Field.DIALLING, 6): _Load("ct", ((2, 21), (3, 0)), 16),
    (Field.DIALLED, 4): _Load("ct", ((2, 20), (3, 0)), 4),
    (Field.DIALLED, 6): _Load("ct", ((2, 22), (3, 0)), 16),
    (Field.DIALLED_PORT, 0): _Load("ct", ((2, 12), (3, 0)), 2),
}
_FIELDS = {(load.name, load.where): place for place, load in _LOADS.items()}
_ONE_BYTE = {("ct", 3)}
"""Attributes whose number is no 32 bits."""


def _load_of(field: Field, version: int) -> _Load:
    return _LOADS.get((field, 0)) or _LOADS[field, version]


def _field_bytes(field: Field, version: int) -> int:
    """As a part of a set's members: whole registers of 4 bytes."""
    return _load_of(field, version).size + 3 & ~3


# --- Told ---------------------------------------------------------------------------------------
def told(rule: Rule) -> bytes:
    """A rule's list of expressions."""
    return b"".join(expression for step in rule for expression in _expressions(step))


def _expressions(step: Step) -> Iterator[bytes]:
    match step:
        case Is(field, said):
            version = said.version if isinstance(said, IPv4Address | IPv6Address) else 4
            yield _loading(_load_of(field, version), 1)
            yield _compared(_value_bytes(field, said))
        case Within(network):
            yield from _within(network)
        case In(fields, name, is_map, version):
            register = 8
            for field in fields:
                yield _loading(_load_of(field, version), register)
                register += _field_bytes(field, version) // 4
            verdict = number(3, 0) if is_map else b""
            yield _expression("lookup", attribute(1, name) + number(2, _register(8)) + verdict)
        case OneIn(count):
            yield _expression("numgen", number(1, 1) + number(2, count) + number(3, _RANDOM))
            yield _compared(bytes(4))
        case Remember(name, version):
            yield _loading(_load_of(Field.SOURCE, version), 8)
            yield _expression("dynset", attribute(1, name) + number(3, _UPDATE) + number(4, 1))
        case _:
            yield from _acts(step)


def _acts(step: Step) -> Iterator[bytes]:
    match step:
        case Translate(address, port, source):
            yield _immediate(1, address.packed)
            ports = b""
            if port:
                yield _immediate(2, port.to_bytes(2, "big"))
                ports = number(5, 2) + number(6, 2)
            kind = number(1, 0 if source else 1) + number(2, _FAMILIES[address.version])
            yield _expression("nat", kind + number(3, 1) + number(4, 1) + ports)
        case Masquerade():
            yield _expression("masq", b"")
        case Refuse():
            yield _expression("reject", number(1, _ICMPX) + number(2, _PORT_UNREACHABLE, 1))
        case Mark(mark):
            yield _immediate(1, mark.to_bytes(4, sys.byteorder))
            yield _expression("meta", number(2, _META_MARK) + number(3, 1))
        case Verdict():
            yield _expression("immediate", number(1, 0) + nest(2, verdict_told(step)))


def verdict_told(verdict: Verdict) -> bytes:
    """A verdict as data: of a rule's end, or of a map's member."""
    chain = attribute(2, verdict.chain) if verdict.chain else b""
    return nest(_VERDICT, number(1, _ACTS[verdict.act]), chain)


def _within(network: Network) -> Iterator[bytes]:
    size = network.max_prefixlen // 8
    yield _loading(_load_of(Field.SOURCE, network.version), 8)
    mask, nothing = (nest(kind, attribute(_VALUE, data)) for kind, data in (
        (4, network.netmask.packed), (5, bytes(size)),
    ))  # fmt: skip
    yield _expression("bitwise", number(1, 1) + number(2, 1) + number(3, size) + mask + nothing)
    yield _compared(network.network_address.packed)


def _value_bytes(field: Field, said: int | str | Address) -> bytes:
    if isinstance(said, int):
        return said.to_bytes(_load_of(field, 4).size, "big")
    # Comparing fewer bytes than a name has is how nft writes a trailing wildcard.
    return said.encode() if isinstance(said, str) else said.packed


def _register(number_of_4: int) -> int:
    """Of registers of 4 bytes, which begin with 8, the first of 16 bytes has a name of its own."""
    return (number_of_4 - 8) // 4 + 1 if number_of_4 % 4 == 0 else number_of_4


def _loading(load: _Load, register: int) -> bytes:
    where = b"".join(
        number(kind, said, 1 if (load.name, kind) in _ONE_BYTE else 4) for kind, said in load.where
    )
    register = register if register < 8 else _register(register)
    return _expression(load.name, number(1, register) + where)


def _compared(data: bytes) -> bytes:
    return _expression("cmp", number(1, 1) + number(2, 0) + nest(3, attribute(_VALUE, data)))


def _immediate(register: int, data: bytes) -> bytes:
    return _expression("immediate", number(1, register) + nest(2, attribute(_VALUE, data)))


def _expression(name: str, data: bytes) -> bytes:
    return nest(_LIST_ELEMENT, attribute(_NAME, name) + (nest(_DATA, data) if data else b""))


# --- Read back ----------------------------------------------------------------------------------
class _Reader:
    """Reads expressions in their order: loads and immediates wait for what uses them."""

    def __init__(self) -> None:
        self.steps: list[Step] = []
        self._loaded: list[tuple[Field, int]] = []
        self._data: list[bytes] = []
        self._count = 0
        self._mask = b""

    def take(self, name: str, said: dict[int, bytes]) -> bool:
        """False: no expression of ours, or not where we put it."""
        if place := _field_of(name, said):
            self._loaded.append(place)
            return True
        read = getattr(self, f"_{name}", None)
        return bool(read and read(said))

    def _fields(self) -> tuple[tuple[Field, ...], int]:
        fields = tuple(field for field, _ in self._loaded)
        version = max((version for _, version in self._loaded), default=0) or 4
        self._loaded = []
        return fields, version

    def _numgen(self, said: dict[int, bytes]) -> bool:
        self._count = value(said.get(2, b""))
        return value(said.get(3, b"")) == _RANDOM and not value(said.get(4, b""))

    def _bitwise(self, said: dict[int, bytes]) -> bool:
        self._mask = attributes(said.get(4, b"")).get(_VALUE, b"")
        return not value(attributes(said.get(5, b"")).get(_VALUE, b""))

    def _cmp(self, said: dict[int, bytes]) -> bool:
        data = attributes(said.get(3, b"")).get(_VALUE, b"")
        if value(said.get(2, b"")):
            return False
        if self._count:
            self.steps.append(OneIn(self._count))
            self._count = 0
            return not value(data)
        fields, _ = self._fields()
        if len(fields) != 1:
            return False
        if self._mask:
            self.steps.append(Within(_network(data, self._mask)))
            self._mask = b""
            return fields == (Field.SOURCE,)
        self.steps.append(Is(fields[0], _said(fields[0], data)))
        return True

    def _lookup(self, said: dict[int, bytes]) -> bool:
        fields, version = self._fields()
        self.steps.append(In(fields, text(said[1]), 3 in said, version))
        return bool(fields) and not value(said.get(5, b""))

    def _dynset(self, said: dict[int, bytes]) -> bool:
        fields, version = self._fields()
        self.steps.append(Remember(text(said[1]), version))
        return fields == (Field.SOURCE,) and value(said.get(3, b"")) == _UPDATE

    def _immediate(self, said: dict[int, bytes]) -> bool:
        data = attributes(said.get(2, b""))
        if _VERDICT in data:
            verdict = verdict_read(data[_VERDICT])
            self.steps.extend([verdict] if verdict else [])
            return verdict is not None
        self._data.append(data.get(_VALUE, b""))
        return True

    def _nat(self, said: dict[int, bytes]) -> bool:
        data, self._data = self._data, []
        if len(data) != (2 if 5 in said else 1):
            return False
        port = value(data[1][:2]) if 5 in said else 0
        address = ip_address(data[0])
        self.steps.append(Translate(address, port, source=not value(said.get(1, b""))))
        return value(said.get(2, b"")) == _FAMILIES[address.version]

    def _meta(self, said: dict[int, bytes]) -> bool:
        data, self._data = self._data, []
        if len(data) != 1 or 3 not in said or value(said.get(2, b"")) != _META_MARK:
            return False
        self.steps.append(Mark(int.from_bytes(data[0], sys.byteorder)))
        return True

    def _masq(self, said: dict[int, bytes]) -> bool:
        self.steps.append(Masquerade())
        return not any(map(value, said.values()))

    def _reject(self, said: dict[int, bytes]) -> bool:
        self.steps.append(Refuse())
        return (value(said.get(1, b"")), value(said.get(2, b""))) == (_ICMPX, _PORT_UNREACHABLE)

    @property
    def is_done(self) -> bool:
        return not (self._loaded or self._data or self._count or self._mask)


def read_rule(expressions: bytes) -> Rule:
    """The rule that `told` made so; UNKNOWN if none."""
    reader = _Reader()
    for _, one in listed(expressions):
        found = attributes(one)
        if not reader.take(text(found[_NAME]), attributes(found.get(_DATA, b""))):
            return UNKNOWN
    return tuple(reader.steps) if reader.is_done else UNKNOWN


def verdict_read(data: bytes) -> Verdict | None:
    """What verdict_told says; None: none of ours."""
    said = attributes(data)
    code = value(said.get(1, b""))
    chain = text(said[2]) if 2 in said else ""
    return next((Verdict(act, chain) for act, known in _ACTS.items() if known == code), None)


def _field_of(name: str, said: dict[int, bytes]) -> tuple[Field, int] | None:
    if 1 not in said:
        return None
    where = tuple((kind, value(data)) for kind, data in sorted(said.items()) if kind != 1)
    return _FIELDS.get((name, where))


def _said(field: Field, data: bytes) -> int | str | Address:
    if field in (Field.IN_LINK, Field.OUT_LINK):
        return text(data)
    return value(data) if len(data) < 4 else ip_address(data)


def _network(data: bytes, mask: bytes) -> Network:
    return ip_network((data, value(mask).bit_count()), strict=False)


# --- Members ------------------------------------------------------------------------------------
def member_told(values: tuple[int | Address, ...]) -> bytes:
    """A member's fields side by side, each filled up to whole registers."""
    return b"".join(
        v.to_bytes(2, "big") + bytes(2) if isinstance(v, int) else v.packed for v in values
    )


def member_read(shape: Shape, version: int, data: bytes) -> tuple[int | Address, ...]:
    """What member_told made so."""
    size = _ADDRESS_BYTES[version]
    first, rest = ip_address(data[:size]), data[size:]
    match shape:
        case Shape.PLACE:
            return first, value(rest[:2])
        case Shape.PAIR:
            return first, ip_address(rest)
    return (first,)


_ADDRESS_BYTES = {4: 4, 6: 16}
_ADDRESS_TYPES, _PORT_TYPE = {4: 7, 6: 8}, 13
"""What nft itself calls them, so that it can show members (nftables, datatype.h)."""


def shape_told(shape: Shape, version: int) -> tuple[int, int]:
    """The type and the size of a set's members."""
    address, size = _ADDRESS_TYPES[version], _ADDRESS_BYTES[version]
    match shape:
        case Shape.PLACE:
            return address << 6 | _PORT_TYPE, size + 4
        case Shape.PAIR:
            return address << 6 | address, 2 * size
    return address, size


def shape_read(kind: int) -> tuple[Shape, int] | None:
    """The shape and family of which shape_told makes this type; None: of none."""
    known = ((shape, version) for shape in Shape for version in (4, 6))
    return next((one for one in known if shape_told(*one)[0] == kind), None)
