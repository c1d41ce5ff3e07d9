"""Owns rule sets: all that the policies selecting one pod allow it in one direction.

A rule set is named by the hash of its content, so pods with equal rules share rows. Pure; knows no
other pods. What cannot be compiled allows nothing and stands in `Grant.problem`.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import lru_cache
from typing import NamedTuple

from weft.proxy.model.ids import content_id
from weft.proxy.model.objects import PROTOCOL_NUMBERS, NetworkPolicy, PolicyPort, Rule, ServicePort
from weft.proxy.plan.policy_atoms import Atom, atom_id, atom_of
from weft.proxy.plan.policy_ports import (
    EVERY_PORT,
    NO_PORT,
    PORT_LAST,
    PortClasses,
    PortRange,
    Ports,
    partition,
    ports_of,
)


class Direction(StrEnum):
    """Of a connection, seen from the pod that is judged."""

    INGRESS = "ingress"
    EGRESS = "egress"


class NamedPort(NamedTuple):
    name: str
    protocol: str


@dataclass(frozen=True, slots=True)
class Grant:
    """One rule, read: `rule` counts from 0; `atoms` None is everyone; `named` needs a pod."""

    rule: int
    atoms: Mapping[int, Atom] | None
    ports: Ports
    named: tuple[NamedPort, ...] = ()
    problem: str = ""

    def ports_for(self, pod: Iterable[ServicePort]) -> Ports:
        """What it allows to a pod that has these named ports (policy S13: name and protocol)."""
        if not self.named:
            return self.ports
        found = (
            PortRange(PROTOCOL_NUMBERS[p.protocol], p.port, p.port)
            for p in pod
            if (p.name, p.protocol) in self.named
        )
        return self.ports | ports_of(found)


def isolates(policy: NetworkPolicy, direction: Direction) -> bool:
    if direction is Direction.INGRESS:
        return policy.isolates_ingress
    return policy.isolates_egress


def rules_of(policy: NetworkPolicy, direction: Direction) -> tuple[Rule, ...]:
    return policy.ingress if direction is Direction.INGRESS else policy.egress


@lru_cache(maxsize=8192)
def grants(policy: NetworkPolicy, direction: Direction) -> tuple[Grant, ...]:
    """The rules of one policy in one direction; none where it does not isolate."""
    if not isolates(policy, direction):
        return ()
    namespace = policy.ref.namespace
    return tuple(
        _grant(number, rule, namespace, direction)
        for number, rule in enumerate(rules_of(policy, direction))
    )


def _grant(number: int, rule: Rule, namespace: str, direction: Direction) -> Grant:
    atoms = _atoms(rule, namespace) if rule.peers else None
    if not rule.ports:
        return Grant(number, atoms, EVERY_PORT)
    ports = ports_of(r for port in rule.ports for r in _ranges(port))
    named = tuple(NamedPort(p.port, p.protocol) for p in rule.ports if isinstance(p.port, str))
    if named and direction is Direction.EGRESS:
        names = ", ".join(n.name for n in named)
        problem = f"egress[{number}]: ports named {names} are not resolved and allow nothing"
        return Grant(number, atoms, ports, problem=problem)
    return Grant(number, atoms, ports, named)


def _atoms(rule: Rule, namespace: str) -> dict[int, Atom]:
    found = (atom_of(peer, namespace) for peer in rule.peers)
    return {atom_id(atom): atom for atom in found if atom is not None}


def _ranges(port: PolicyPort) -> Iterator[PortRange]:
    """networking/v1 NetworkPolicyPort: no port is all of the protocol's; endPort is inclusive."""
    protocol = PROTOCOL_NUMBERS[port.protocol]
    if port.port is None:
        yield PortRange(protocol, 0, PORT_LAST)
    elif isinstance(port.port, int):
        last = port.port if port.end_port is None else port.end_port
        if port.port <= last:
            yield PortRange(protocol, port.port, last)


@dataclass(frozen=True, slots=True)
class RuleSet:
    """One function (peer's atoms, port class) -> verdict. Equal `id`: equal in everything.

    default: allow bits of a peer that matches none of `bits`' atoms; bits: what each atom adds.
    """

    id: int
    default: int = field(compare=False)
    bits: Mapping[int, int] = field(compare=False)
    atoms: Mapping[int, Atom] = field(compare=False)
    classes: PortClasses = field(compare=False)

    def allow(self, atoms: Iterable[int]) -> int:
        """The allow bits, one per port class, of a peer that matches `atoms`."""
        allowed = self.default
        for atom in atoms:
            allowed |= self.bits.get(atom, 0)
        return allowed

    def distinguishes(self, atoms: Iterable[int]) -> bool:
        """Whether a class of these atoms needs a row of its own."""
        return self.allow(atoms) != self.default


def rule_set(
    policies: Iterable[NetworkPolicy], direction: Direction, named_ports: tuple[ServicePort, ...]
) -> RuleSet:
    """The union of what `policies`, all of which isolate, allow a pod with these named ports.

    For egress `named_ports` are not consulted: an egress rule's named port is its peers'.
    """
    everyone, by_atom, atoms = NO_PORT, dict[int, Ports](), dict[int, Atom]()
    for policy in policies:
        for grant in grants(policy, direction):
            ports = grant.ports_for(named_ports)
            if grant.atoms is None:
                everyone |= ports
                continue
            atoms |= grant.atoms
            for atom in grant.atoms:
                by_atom[atom] = by_atom.get(atom, NO_PORT) | ports
    adding = {
        atom: everyone | ports
        for atom, ports in sorted(by_atom.items())
        if everyone | ports != everyone
    }
    return _assembled(direction, everyone, adding, atoms)


def _assembled(
    direction: Direction, everyone: Ports, by_atom: Mapping[int, Ports], atoms: Mapping[int, Atom]
) -> RuleSet:
    classes = partition(frozenset((everyone, *by_atom.values())))
    peers = (part for atom, ports in by_atom.items() for part in (atom, *_ports_parts(ports)))
    return RuleSet(
        id=content_id("set", direction, *_ports_parts(everyone), *peers),
        default=classes.bits[everyone],
        bits={atom: classes.bits[ports] for atom, ports in by_atom.items()},
        atoms={atom: atoms[atom] for atom in by_atom},
        classes=classes,
    )


def _ports_parts(ports: Ports) -> tuple[int | str, ...]:
    if ports.everything:
        return ("everything",)
    return (len(ports.ranges), *(number for one in ports.ranges for number in one))


CLOSED = {direction: rule_set((), direction, ()) for direction in Direction}
"""The set that allows nobody anything, per direction."""
