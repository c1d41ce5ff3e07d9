"""Owns the table of paths: who may send to whom, by which way, who judges, whom the target sees.

ARCHITECTURE.md carries it as text (`python -m tests.netns.paths` prints it), tests/test_house.py
holds the two equal, tests/netns/test_paths.py walks every cell in every mode and family, holds
the counters of both nodes to the steps and has a policy deny where the cell says who judges.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from enum import StrEnum


class Side(StrEnum):
    """Who sends or is sent to. "Here" is the node that the table speaks of."""

    POD = "pod"
    POD_OVER_THERE = "pod of another node"
    NODE = "own node, host-network pod"
    OTHER_NODE = "other node"
    OUTSIDE = "outside"
    POD_HERE = "pod here"
    POD_THERE = "pod there"
    ITSELF = "VIP, endpoint the pod itself"
    VIP_HERE = "VIP, endpoint here"
    VIP_THERE = "VIP, endpoint there"
    VIP_NODE = "VIP, endpoint on own node"
    VIP_OTHER_NODE = "VIP, endpoint on other node"
    PORT_HERE = "node port, endpoint here"
    PORT_THERE = "node port, endpoint there"
    PORT_NODE = "node port, endpoint on own node"
    PORT_OTHER_NODE = "node port, endpoint on other node"


NODE_PORTS = {
    Side.VIP_HERE: Side.PORT_HERE,
    Side.VIP_THERE: Side.PORT_THERE,
    Side.VIP_NODE: Side.PORT_NODE,
    Side.VIP_OTHER_NODE: Side.PORT_OTHER_NODE,
}
"""Of each VIP the node port of its Service, at the address of the node here."""


class Reach(StrEnum):
    """How the nodes reach each other's pods, or whether an overlay is there, used for that or not;
    a cell without one is alike in all."""

    ANY = ""
    TUNNEL = "tunnel"
    DIRECT = "direct"
    ROUTED = "routed"
    OVERLAY = "overlay"
    NO_OVERLAY = "no overlay"


class Protocol(StrEnum):
    """A cell without one is alike in both: a VIP is translated at TCP's connect() or per packet."""

    ANY = ""
    TCP = "TCP"
    UDP = "UDP"


class Seen(StrEnum):
    """The source address that the target sees."""

    SENDER = "the sender's"
    NODE = "its node's"
    GATEWAY = "its node's gateway address"
    ENTRY = "the entry node's"
    ENTRY_GATEWAY = "the entry node's gateway address"


class Rule(StrEnum):
    """What a program says of a flow at one of its ends."""

    EGRESS = "egress"
    INGRESS = "ingress"
    ALLOWED = "always allowed"


@dataclass(frozen=True, slots=True)
class Judge:
    """place: "here" or "there"."""

    place: str
    program: str
    rule: Rule


@dataclass(frozen=True, slots=True)
class Cell:
    """One pair in one reach.

    judges: in the packet's order. steps: what both nodes' programs count for a flow and its
    answers, "here" or "there", each a program and its reason. A socket's hook that rewrites
    connect() counts nothing.
    """

    source: Side
    target: Side
    judges: tuple[Judge, ...]
    steps: str
    seen: Seen = Seen.SENDER
    reach: Reach = Reach.ANY
    protocol: Protocol = field(default=Protocol.ANY, kw_only=True)

    def __str__(self) -> str:
        only = f" ({self.reach})" if self.reach else ""
        return f"{self.source} to {self.target}{only}"

    def counted(self) -> set[tuple[str, str, str]]:
        """The steps as (place, program, reason)."""
        found = set()
        for part in self.steps.split("; ") if self.steps else ():
            place, _, programs = part.partition(": ")
            for step in programs.split(", "):
                program, _, reason = step.partition(" ")
                found.add((place, program, reason))
        return found

    @property
    def judged_as(self) -> str:
        """Whom ingress takes the sender for, where that is a node; empty: who it is."""
        if self.seen in (Seen.ENTRY, Seen.ENTRY_GATEWAY):
            return "the entry node"
        if self.source in (Side.NODE, Side.OTHER_NODE):
            return "the node"
        return "" if self.seen is Seen.SENDER else "its node"

    @property
    def judged(self) -> str:
        places = {judge.place for judge in self.judges} != {"here"}
        said: dict[str, list[str]] = {}
        for judge in self.judges:
            at = f"{judge.place} {judge.program}" if places else judge.program
            said.setdefault(at, []).append(self._ruling(judge.rule))
        return "; ".join(f"{at}: {', '.join(rules)}" for at, rules in said.items()) or "nobody"

    def _ruling(self, rule: Rule) -> str:
        return f"{rule} as {self.judged_as}" if rule is Rule.INGRESS and self.judged_as else rule

    def columns(self) -> tuple[str, ...]:
        only = ", ".join(filter(None, (self.reach, self.protocol)))
        return self.source, self.target, only, self.judged, self.steps or "nothing", self.seen


def _judge(place: str, program: str, *rules: Rule) -> tuple[Judge, ...]:
    return tuple(Judge(place, program, rule) for rule in rules)


_BOTH = _judge("here", "from_pod", Rule.EGRESS, Rule.INGRESS)
_SENDS = _judge("here", "from_pod", Rule.EGRESS)
_FAR_SENDS = _judge("there", "from_pod", Rule.EGRESS)
_OWN = _judge("here", "to_pod", Rule.ALLOWED)
_COMES_IN = _judge("here", "to_pod", Rule.INGRESS)
_ENTERS = _judge("here", "from_uplink", Rule.INGRESS)
_GETS = {
    Reach.TUNNEL: _judge("there", "from_overlay", Rule.INGRESS),
    Reach.DIRECT: _judge("there", "from_uplink", Rule.INGRESS),
    Reach.ROUTED: _judge("there", "from_uplink", Rule.INGRESS),
}
"""Who judges another node's pod where it is sent to."""
_GETS_BY_STACK = _judge("there", "to_pod", Rule.INGRESS)

_LOCAL = "here: from_pod delivered"
_BY_STACK = "here: from_pod stack, to_pod stack"
_THERE_BY_STACK = "there: from_pod stack, to_pod stack"
_BETWEEN = {
    Reach.TUNNEL: "here: from_pod tunnelled, to_overlay tunnelled, from_overlay delivered; "
    "there: from_overlay delivered, from_pod tunnelled, to_overlay tunnelled",
    Reach.DIRECT: "here: from_pod direct, from_uplink delivered; "
    "there: from_uplink delivered, from_pod direct",
    Reach.ROUTED: f"{_BY_STACK}; {_THERE_BY_STACK}",
}
_LEAVES = "here: from_pod stack, to_uplink masqueraded, from_uplink restored, to_pod stack"
_THERE_BY_TUNNEL = "there: from_overlay delivered, from_pod tunnelled, to_overlay tunnelled"
_NODE_TUNNELS = f"here: to_overlay tunnelled, from_overlay stack; {_THERE_BY_TUNNEL}"
_UNTOUCHED = "here: to_uplink not_ours, from_uplink not_ours"
_IN = "here: from_uplink delivered, from_pod answered"
_IN_TUNNEL = (
    f"here: from_uplink tunnelled, to_overlay tunnelled, from_overlay answered; {_THERE_BY_TUNNEL}"
)
_IN_NODE = "here: from_uplink stack, to_uplink answered"
_MASKED = "from_uplink stack, to_uplink masqueraded, from_uplink restored, to_uplink answered"
_MASKED_TUNNEL = "from_uplink stack, to_overlay tunnelled, from_overlay stack, to_uplink answered"


def _seen_there(judges: Iterable[Judge]) -> tuple[Judge, ...]:
    """The same judges from the other end."""
    return tuple(replace(one, place="here" if one.place == "there" else "there") for one in judges)


def _mirrored(steps: str) -> str:
    """The same steps seen from the other end, here first."""
    other = {"here": "there", "there": "here"}
    parts = (part.partition(": ") for part in steps.split("; "))
    return "; ".join(sorted(f"{other[place]}: {programs}" for place, _, programs in parts))


def _to_remote(target: Side) -> Iterator[Cell]:
    for reach, judges in _GETS.items():
        yield Cell(Side.POD, target, _SENDS + judges, _BETWEEN[reach], reach=reach)


def _node_to_remote(target: Side) -> Iterator[Cell]:
    by_stack = _GETS_BY_STACK, _THERE_BY_STACK, Seen.SENDER
    yield Cell(Side.NODE, target, _GETS[Reach.TUNNEL], _NODE_TUNNELS, Seen.GATEWAY, Reach.TUNNEL)
    for reach in (Reach.DIRECT, Reach.ROUTED):
        yield Cell(Side.NODE, target, *by_stack, reach)


def _from_other_end(cells: Iterable[Cell], source: Side) -> Iterator[Cell]:
    """What is sent there, as the node here sees it."""
    for cell in cells:
        judges, steps = _seen_there(cell.judges), _mirrored(cell.steps)
        yield replace(cell, source=source, target=Side.POD_HERE, judges=judges, steps=steps)


def _served(cells: Iterable[Cell]) -> Iterator[Cell]:
    """A VIP's cells, and the same at its node port."""
    for cell in cells:
        yield cell
        yield replace(cell, target=NODE_PORTS[cell.target])


def _pods() -> Iterator[Cell]:
    source = Side.POD
    yield Cell(source, Side.POD_HERE, _BOTH, _LOCAL)
    yield from _to_remote(Side.POD_THERE)
    yield Cell(source, Side.ITSELF, (), "", protocol=Protocol.TCP)
    yield Cell(source, Side.ITSELF, (), _LOCAL, Seen.GATEWAY, protocol=Protocol.UDP)
    yield from _served(
        [
            Cell(source, Side.VIP_HERE, _BOTH, _LOCAL),
            *_to_remote(Side.VIP_THERE),
            Cell(source, Side.VIP_NODE, _SENDS, _BY_STACK),
            Cell(source, Side.VIP_OTHER_NODE, _SENDS, _LEAVES, Seen.NODE),
        ]
    )
    yield Cell(source, Side.NODE, _SENDS, _BY_STACK)
    yield Cell(source, Side.OTHER_NODE, _SENDS, _LEAVES, Seen.NODE)
    yield Cell(source, Side.OUTSIDE, _SENDS, _LEAVES, Seen.NODE)


def _pods_over_there() -> Iterator[Cell]:
    source, leaves = Side.POD_OVER_THERE, _mirrored(_LEAVES)
    yield from _from_other_end(_to_remote(Side.POD_THERE), source)
    yield Cell(source, Side.NODE, _FAR_SENDS, leaves, Seen.NODE)
    yield Cell(source, Side.PORT_HERE, _FAR_SENDS + _ENTERS, f"{_IN}; {leaves}", Seen.NODE)
    for cell in _other_nodes():
        if cell.target is Side.PORT_THERE:
            steps = f"{cell.steps}, {leaves.removeprefix('there: ')}"
            yield replace(cell, source=source, judges=_FAR_SENDS + cell.judges, steps=steps)
    yield Cell(source, Side.PORT_NODE, _FAR_SENDS, f"{_IN_NODE}; {leaves}", Seen.NODE)
    yield Cell(source, Side.PORT_OTHER_NODE, _FAR_SENDS, f"here: {_MASKED}; {leaves}", Seen.ENTRY)


def _nodes() -> Iterator[Cell]:
    source = Side.NODE
    yield Cell(source, Side.POD_HERE, _OWN, _BY_STACK)
    yield from _node_to_remote(Side.POD_THERE)
    yield from _served(
        [
            Cell(source, Side.VIP_HERE, _OWN, _BY_STACK),
            *_node_to_remote(Side.VIP_THERE),
            Cell(source, Side.VIP_NODE, (), ""),
            Cell(source, Side.VIP_OTHER_NODE, (), _UNTOUCHED),
        ]
    )
    yield Cell(source, Side.OTHER_NODE, (), _UNTOUCHED)
    yield Cell(source, Side.OUTSIDE, (), _UNTOUCHED)


def _masked(source: Side, reach: Reach) -> Cell:
    """A client of an endpoint there that would answer it past this node."""
    steps = f"here: {_MASKED}; {_THERE_BY_STACK}"
    return Cell(source, Side.VIP_THERE, _GETS_BY_STACK, steps, Seen.ENTRY, reach)


def _other_nodes() -> Iterator[Cell]:
    source, tunnelled = Side.OTHER_NODE, f"here: {_MASKED_TUNNEL}; {_THERE_BY_TUNNEL}"
    yield from _from_other_end(_node_to_remote(Side.POD_THERE), source)
    yield from _served(
        [
            Cell(source, Side.VIP_HERE, _ENTERS, _IN),
            Cell(source, Side.VIP_THERE, _GETS[Reach.TUNNEL], tunnelled, Seen.ENTRY_GATEWAY,
                 Reach.TUNNEL),
            *(_masked(source, reach) for reach in (Reach.DIRECT, Reach.ROUTED)),
            Cell(source, Side.VIP_NODE, (), _IN_NODE),
            Cell(source, Side.VIP_OTHER_NODE, (), f"here: {_MASKED}", Seen.ENTRY),
        ]
    )  # fmt: skip
    yield Cell(source, Side.NODE, (), _UNTOUCHED)


def _outside() -> Iterator[Cell]:
    source = Side.OUTSIDE
    yield Cell(source, Side.POD_HERE, _COMES_IN, _BY_STACK)
    yield Cell(source, Side.POD_THERE, _GETS[Reach.TUNNEL], _NODE_TUNNELS, reach=Reach.TUNNEL)
    yield Cell(source, Side.POD_THERE, _GETS_BY_STACK, _THERE_BY_STACK, reach=Reach.DIRECT)
    yield from _served(
        [
            Cell(source, Side.VIP_HERE, _ENTERS, _IN),
            Cell(source, Side.VIP_THERE, _GETS[Reach.TUNNEL], _IN_TUNNEL, reach=Reach.OVERLAY),
            _masked(source, Reach.NO_OVERLAY),
            Cell(source, Side.VIP_NODE, (), _IN_NODE),
            Cell(source, Side.VIP_OTHER_NODE, (), f"here: {_MASKED}", Seen.ENTRY),
        ]
    )
    yield Cell(source, Side.NODE, (), _UNTOUCHED)


CELLS = (*_pods(), *_pods_over_there(), *_nodes(), *_other_nodes(), *_outside())


def _rows() -> Iterator[tuple[str, ...]]:
    """One for a VIP and its node port where both are alike."""
    ports = {port: vip for vip, port in NODE_PORTS.items()}
    for cell in CELLS:
        source, target, *rest = cell.columns()
        twin = NODE_PORTS.get(cell.target)
        if cell.target in ports and replace(cell, target=ports[cell.target]) in CELLS:
            continue
        if twin and replace(cell, target=twin) in CELLS:
            target = target.replace("VIP", "VIP or node port")
        yield source, target, *rest


def markdown() -> str:
    """The table as ARCHITECTURE.md shows it."""
    head = ("from", "to", "only", "who judges", "what is counted, answers too", "source seen")
    rows = [head, tuple("---" for _ in head), *_rows()]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


if __name__ == "__main__":
    print(markdown())
