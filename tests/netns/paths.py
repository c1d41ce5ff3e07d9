"""Owns the table of paths: who may send to whom, the way taken and the source address seen.

ARCHITECTURE.md carries it as text (`python -m tests.netns.paths` prints it), tests/test_house.py
holds the two equal, tests/netns/test_paths.py walks every cell in every mode and family and holds
the counters of both nodes to the steps.
"""

from dataclasses import dataclass
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
    VIP_HERE = "VIP, endpoint here"
    VIP_THERE = "VIP, endpoint there"
    VIP_NODE = "VIP, endpoint on own node"
    VIP_OTHER_NODE = "VIP, endpoint on other node"


class Reach(StrEnum):
    """How the nodes reach each other's pods, or whether an overlay is there, used for that or not;
    a cell without one is alike in all."""

    ANY = ""
    TUNNEL = "tunnel"
    DIRECT = "direct"
    OVERLAY = "overlay"
    NO_OVERLAY = "no overlay"


class Seen(StrEnum):
    """The source address that the target sees."""

    SENDER = "the sender's"
    NODE = "its node's"
    GATEWAY = "its node's gateway address"
    ENTRY = "the entry node's"


@dataclass(frozen=True, slots=True)
class Cell:
    """One pair in one reach.

    steps: what both nodes' programs count for a flow and its answers, "here" or "there", each a
    program and its reason. A socket's hook that rewrites connect() counts nothing.
    """

    source: Side
    target: Side
    reach: Reach
    judged: str
    steps: str
    seen: Seen

    def columns(self) -> tuple[str, ...]:
        return (self.source, self.target, self.reach, self.judged, self.steps, self.seen)

    def counted(self) -> set[tuple[str, str, str]]:
        """The steps as (place, program, reason)."""
        found = set()
        for part in self.steps.split("; "):
            place, _, programs = part.partition(": ")
            for step in programs.split(", "):
                program, _, reason = step.partition(" ")
                found.add((place, program, reason))
        return found


_NOBODY = "nobody"
_BOTH = "from_pod: both ends"
_APART = "here from_pod: egress; there {}: ingress"
_LOCAL = "here: from_pod delivered"
_TUNNELLED = (
    "here: from_pod tunnelled, to_overlay tunnelled, from_overlay delivered; "
    "there: from_overlay delivered, from_pod tunnelled, to_overlay tunnelled"
)
_DIRECT = (
    "here: from_pod direct, from_uplink delivered; there: from_uplink delivered, from_pod direct"
)
_TO_NODE = "here: from_pod stack, to_pod stack"
_LEAVES = "here: from_pod stack, to_uplink masqueraded, from_uplink restored, to_pod stack"
_FROM_NODE = "here: to_pod stack, from_pod stack"
_NODE_TUNNELS = (
    "here: to_overlay tunnelled, from_overlay stack; "
    "there: from_overlay delivered, from_pod tunnelled, to_overlay tunnelled"
)
_NODE_DIRECT = "there: to_pod stack, from_pod stack"
_UNTOUCHED = "here: to_uplink not_ours, from_uplink not_ours"
_ENTERS = "here: from_uplink delivered, from_pod answered"
_ENTERS_TUNNEL = (
    "here: from_uplink tunnelled, to_overlay tunnelled, from_overlay answered; "
    "there: from_overlay delivered, from_pod tunnelled, to_overlay tunnelled"
)
_ENTERS_DIRECT = "there: to_pod stack, from_pod stack"
_ENTERS_NODE = "here: from_uplink stack, to_uplink answered"
_COMES_IN = "here: to_pod stack, from_pod stack"


def _to_remote(source: Side, target: Side) -> tuple[Cell, Cell]:
    return (
        Cell(source, target, Reach.TUNNEL, _APART.format("from_overlay"), _TUNNELLED, Seen.SENDER),
        Cell(source, target, Reach.DIRECT, _APART.format("from_uplink"), _DIRECT, Seen.SENDER),
    )


def _node_to_remote(target: Side) -> tuple[Cell, Cell]:
    judged = "there {}: ingress, as the node"
    return (
        Cell(Side.NODE, target, Reach.TUNNEL, judged.format("from_overlay"), _NODE_TUNNELS,
             Seen.GATEWAY),
        Cell(Side.NODE, target, Reach.DIRECT, judged.format("to_pod"), _NODE_DIRECT, Seen.SENDER),
    )  # fmt: skip


def _mirrored(steps: str) -> str:
    """The same steps seen from the other end, here first."""
    other = {"here": "there", "there": "here"}
    parts = (part.partition(": ") for part in steps.split("; "))
    return "; ".join(sorted(f"{other[place]}: {programs}" for place, _, programs in parts))


CELLS = (
    Cell(Side.POD, Side.POD_HERE, Reach.ANY, _BOTH, _LOCAL, Seen.SENDER),
    *_to_remote(Side.POD, Side.POD_THERE),
    Cell(Side.POD, Side.VIP_HERE, Reach.ANY, _BOTH, _LOCAL, Seen.SENDER),
    *_to_remote(Side.POD, Side.VIP_THERE),
    Cell(Side.POD, Side.NODE, Reach.ANY, "from_pod: egress", _TO_NODE, Seen.SENDER),
    Cell(Side.POD, Side.VIP_NODE, Reach.ANY, "from_pod: egress", _TO_NODE, Seen.SENDER),
    Cell(Side.POD, Side.OTHER_NODE, Reach.ANY, "from_pod: egress", _LEAVES, Seen.NODE),
    Cell(Side.POD, Side.VIP_OTHER_NODE, Reach.ANY, "from_pod: egress", _LEAVES, Seen.NODE),
    Cell(Side.POD, Side.OUTSIDE, Reach.ANY, "from_pod: egress", _LEAVES, Seen.NODE),
    Cell(Side.POD_OVER_THERE, Side.POD_HERE, Reach.TUNNEL,
         "there from_pod: egress; here from_overlay: ingress", _mirrored(_TUNNELLED), Seen.SENDER),
    Cell(Side.POD_OVER_THERE, Side.POD_HERE, Reach.DIRECT,
         "there from_pod: egress; here from_uplink: ingress", _mirrored(_DIRECT), Seen.SENDER),
    Cell(Side.POD_OVER_THERE, Side.NODE, Reach.ANY, "there from_pod: egress", _mirrored(_LEAVES),
         Seen.NODE),
    Cell(Side.NODE, Side.POD_HERE, Reach.ANY, "to_pod: always allowed", _FROM_NODE, Seen.SENDER),
    *_node_to_remote(Side.POD_THERE),
    Cell(Side.NODE, Side.VIP_HERE, Reach.ANY, "to_pod: always allowed", _FROM_NODE, Seen.SENDER),
    *_node_to_remote(Side.VIP_THERE),
    Cell(Side.NODE, Side.VIP_OTHER_NODE, Reach.ANY, _NOBODY, _UNTOUCHED, Seen.SENDER),
    Cell(Side.NODE, Side.OTHER_NODE, Reach.ANY, _NOBODY, _UNTOUCHED, Seen.SENDER),
    Cell(Side.NODE, Side.OUTSIDE, Reach.ANY, _NOBODY, _UNTOUCHED, Seen.SENDER),
    Cell(Side.OTHER_NODE, Side.POD_HERE, Reach.TUNNEL, "from_overlay: ingress, as the node",
         _mirrored(_NODE_TUNNELS), Seen.GATEWAY),
    Cell(Side.OTHER_NODE, Side.POD_HERE, Reach.DIRECT, "to_pod: ingress, as the node",
         _mirrored(_NODE_DIRECT), Seen.SENDER),
    Cell(Side.OTHER_NODE, Side.NODE, Reach.ANY, _NOBODY, _UNTOUCHED, Seen.SENDER),
    Cell(Side.OUTSIDE, Side.POD_HERE, Reach.ANY, "to_pod: ingress", _COMES_IN, Seen.SENDER),
    Cell(Side.OUTSIDE, Side.VIP_HERE, Reach.ANY, "from_uplink: ingress", _ENTERS, Seen.SENDER),
    Cell(Side.OUTSIDE, Side.VIP_THERE, Reach.OVERLAY, "there from_overlay: ingress",
         _ENTERS_TUNNEL, Seen.SENDER),
    Cell(Side.OUTSIDE, Side.VIP_THERE, Reach.NO_OVERLAY, "there to_pod: ingress, as the node",
         _ENTERS_DIRECT, Seen.ENTRY),
    Cell(Side.OUTSIDE, Side.VIP_NODE, Reach.ANY, _NOBODY, _ENTERS_NODE, Seen.SENDER),
    Cell(Side.OUTSIDE, Side.NODE, Reach.ANY, _NOBODY, _UNTOUCHED, Seen.SENDER),
)  # fmt: skip


def markdown() -> str:
    """The table as ARCHITECTURE.md shows it."""
    head = ("from", "to", "reach", "who judges", "what is counted, answers too", "source seen")
    rows = [head, tuple("---" for _ in head), *(cell.columns() for cell in CELLS)]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


if __name__ == "__main__":
    print(markdown())
