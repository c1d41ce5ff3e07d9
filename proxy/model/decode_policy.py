"""Owns NetworkPolicy's way from JSON to a record; what it cannot read never opens anything.

A part that cannot be understood allows nothing and is named in `broken`; a policy whose selector
cannot be read isolates every pod of its namespace and allows nothing: its rules were not meant for
all of them. It never resolves a selector.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from msgspec import ValidationError, convert

from weft.proxy.model.objects import (
    IPBlock,
    NetworkPolicy,
    Operator,
    Peer,
    PolicyPort,
    Protocol,
    Ref,
    Requirement,
    Rule,
    Selector,
)
from weft.proxy.model.parse import parse_network
from weft.proxy.model.shapes import (
    BlockShape,
    PolicyPortShape,
    SelectorShape,
)

EVERY_POD = Selector()
_NEEDS_VALUES = (Operator.IN, Operator.NOT_IN)
_DIRECTIONS = ("Ingress", "Egress")
_PORTS = range(1, 65536)
_T = TypeVar("_T")


def policy_record(ref: Ref, spec: Any) -> NetworkPolicy:
    """networking/v1 NetworkPolicy from its decoded `spec`, whatever that is."""
    return _Reader().policy(ref, spec)


@dataclass(slots=True)
class _Reader:
    """One policy being read: the reasons why parts of it are not understood pile up in `why`."""

    why: list[str] = field(default_factory=list)

    def policy(self, ref: Ref, spec: Any) -> NetworkPolicy:
        parts = self._mapping("spec", spec)
        named, unknown = self._types(parts)
        pods = self._selector("podSelector", parts.get("podSelector"))
        rules = named if pods is not None else set()
        readable = isinstance(spec, Mapping)
        return NetworkPolicy(
            ref=ref,
            pods=EVERY_POD if pods is None else pods,
            isolates_ingress="Ingress" in named or unknown or not readable,
            isolates_egress="Egress" in named or unknown or not readable,
            ingress=self._rules("ingress", "from", parts) if "Ingress" in rules else (),
            egress=self._rules("egress", "to", parts) if "Egress" in rules else (),
            broken="; ".join(self.why),
        )

    def _types(self, parts: Mapping[str, Any]) -> tuple[set[str], bool]:
        """The directions named, and whether something else stands there too.

        "If policyTypes is not specified, it defaults to Ingress, and Egress if there are any
        egress rules" (networking/v1 NetworkPolicySpec).
        """
        listed = parts.get("policyTypes")
        if not listed and (listed is None or isinstance(listed, list)):
            return {"Ingress", "Egress"} if parts.get("egress") else {"Ingress"}, False
        names = [name for _, name in self._items("policyTypes", listed)]
        strange = [name for name in names if name not in _DIRECTIONS]
        if strange:
            self.why.append(f"policyTypes: {strange[0]!r} is neither Ingress nor Egress")
        return {name for name in names if name in _DIRECTIONS}, bool(strange) or not names

    def _rules(self, section: str, side: str, parts: Mapping[str, Any]) -> tuple[Rule, ...]:
        rules = (
            self._rule(f"{section}[{i}]", side, rule)
            for i, rule in self._items(section, parts.get(section))
        )
        return tuple(rule for rule in rules if rule is not None)

    def _rule(self, path: str, side: str, rule: Any) -> Rule | None:
        """None where nothing of a list could be read: an empty list would mean everyone."""
        parts = self._mapping(path, rule)
        if not isinstance(rule, Mapping):
            return None
        peers = self._read_all(f"{path}.{side}", parts.get(side), self._peer)
        ports = self._read_all(f"{path}.ports", parts.get("ports"), self._port)
        if peers is None or ports is None:
            return None
        return Rule(peers, ports)

    def _read_all(
        self, path: str, items: Any, read: Callable[[str, Any], _T | None]
    ) -> tuple[_T, ...] | None:
        """What can be read of a list; () for an absent or empty one, None when nothing can."""
        if items is None or items == []:
            return ()
        found = [read(f"{path}[{i}]", item) for i, item in self._items(path, items)]
        return tuple(one for one in found if one is not None) or None

    def _peer(self, path: str, peer: Any) -> Peer | None:
        parts = self._mapping(path, peer)
        said = {name for name, value in parts.items() if value is not None}
        if said == {"ipBlock"}:
            block = self._block(f"{path}.ipBlock", parts["ipBlock"])
            return None if block is None else Peer(block=block)
        if not said or said - {"podSelector", "namespaceSelector"}:
            if isinstance(peer, Mapping):
                self.why.append(f"{path}: neither ipBlock alone nor selectors")
            return None
        return self._selecting_peer(path, parts)

    def _selecting_peer(self, path: str, parts: Mapping[str, Any]) -> Peer | None:
        read = {}
        for name in ("podSelector", "namespaceSelector"):
            if (written := parts.get(name)) is not None:
                read[name] = self._selector(f"{path}.{name}", written)
        if None in read.values():
            return None
        return Peer(pods=read.get("podSelector"), namespaces=read.get("namespaceSelector"))

    def _block(self, path: str, block: Any) -> IPBlock | None:
        """`except` takes away: one that cannot be read takes the whole block with it."""
        shape = self._convert(path, block, BlockShape)
        if shape is None:
            return None
        try:
            excepts = tuple(parse_network(text) for text in shape.excepts or ())
            return IPBlock(parse_network(shape.cidr), excepts)
        except ValueError as error:
            self.why.append(f"{path}: {error}")
            return None

    def _port(self, path: str, port: Any) -> PolicyPort | None:
        shape = self._convert(path, port, PolicyPortShape)
        if shape is None:
            return None
        fault = _port_fault(shape)
        if fault:
            self.why.append(f"{path}: {fault}")
            return None
        return PolicyPort(Protocol(shape.protocol or "TCP"), shape.port, shape.end_port)

    def _selector(self, path: str, selector: Any) -> Selector | None:
        """None when it cannot be read; absent is the empty selector here (podSelector of spec)."""
        if selector is None:
            return EVERY_POD
        shape = self._convert(path, selector, SelectorShape)
        if shape is None:
            return None
        try:
            terms = tuple(_requirement(e.key, e.operator, e.values or ())
                          for e in shape.match_expressions or ())  # fmt: skip
        except ValueError as error:
            self.why.append(f"{path}.matchExpressions: {error}")
            return None
        return Selector(tuple(sorted((shape.match_labels or {}).items())), terms)

    def _mapping(self, path: str, value: Any) -> Mapping[str, Any]:
        if isinstance(value, Mapping):
            return value
        self.why.append(f"{path}: a map is due here, not {value!r}")
        return {}

    def _items(self, path: str, value: Any) -> Iterator[tuple[int, Any]]:
        if isinstance(value, list):
            yield from enumerate(value)
        elif value is not None:
            self.why.append(f"{path}: a list is due here, not {value!r}")

    def _convert(self, path: str, value: Any, shape: type[_T]) -> _T | None:
        try:
            return convert(value, shape)
        except ValidationError as error:
            self.why.append(f"{path}: {error}")
            return None


def _requirement(key: str, operator: str, values: Iterable[str]) -> Requirement:
    """meta/v1 LabelSelectorRequirement: In and NotIn need values, the others must have none."""
    term = Requirement(key, Operator(operator), tuple(sorted(set(values))))
    if bool(term.values) != (term.operator in _NEEDS_VALUES):
        raise ValueError(f"{operator} of {key!r} with {len(term.values)} values")
    return term


def _port_fault(shape: PolicyPortShape) -> str:
    if shape.protocol is not None and shape.protocol not in set(Protocol):
        return f"protocol {shape.protocol!r} is none of {', '.join(Protocol)}"
    if isinstance(shape.port, int) and shape.port not in _PORTS:
        return f"port {shape.port} is not within 1-65535"
    if shape.end_port is None:
        return ""
    if not isinstance(shape.port, int):
        return "endPort needs a numeric port"
    if shape.end_port not in range(shape.port, _PORTS.stop):
        return f"endPort {shape.end_port} is not within {shape.port}-65535"
    return ""
