"""Owns the table of paths: who may send to whom, the way taken and the source address seen.

ARCHITECTURE.md carries it as text (`python -m tests.netns.paths` prints it), tests/test_house.py
holds the two equal, tests/netns/test_paths.py walks every cell in every mode and family.
"""

from dataclasses import astuple, dataclass
from enum import StrEnum


class Side(StrEnum):
    POD = "pod"
    NODE = "own node"
    POD_HERE = "pod here"
    POD_THERE = "pod there"
    VIP_HERE = "VIP, endpoint here"
    VIP_THERE = "VIP, endpoint there"
    OTHER_NODE = "other node"
    OUTSIDE = "outside"


class Seen(StrEnum):
    """The source address that the target sees."""

    POD = "the pod's"
    NODE = "the node's"
    GATEWAY = "the node's gateway address"


@dataclass(frozen=True, slots=True)
class Cell:
    source: Side
    target: Side
    hooks: str
    judged: str
    path: str
    seen: Seen
    reply: str


CELLS = (
    Cell(Side.POD, Side.POD_HERE, "from_pod", "from_pod: both ends", "redirect", Seen.POD,
         "from_pod, redirect"),
    Cell(Side.POD, Side.POD_THERE, "from_pod, to_overlay; from_overlay",
         "from_pod: egress; from_overlay: ingress", "overlay", Seen.POD, "overlay"),
    Cell(Side.POD, Side.VIP_HERE, "connect (TCP) or from_pod (UDP)", "from_pod: both ends",
         "redirect", Seen.POD, "from_pod restores the VIP (UDP), redirect"),
    Cell(Side.POD, Side.VIP_THERE, "connect (TCP) or from_pod (UDP), to_overlay; from_overlay",
         "from_pod: egress; from_overlay: ingress", "overlay", Seen.POD,
         "overlay, from_overlay restores the VIP (UDP)"),
    Cell(Side.POD, Side.NODE, "from_pod", "from_pod: egress", "stack", Seen.POD, "stack, to_pod"),
    Cell(Side.POD, Side.OTHER_NODE, "from_pod, to_uplink", "from_pod: egress",
         "stack, masqueraded at the uplink", Seen.NODE, "from_uplink, stack, to_pod"),
    Cell(Side.POD, Side.OUTSIDE, "from_pod, to_uplink", "from_pod: egress",
         "stack, masqueraded at the uplink", Seen.NODE, "from_uplink, stack, to_pod"),
    Cell(Side.NODE, Side.POD_HERE, "to_pod", "to_pod: always allowed", "stack", Seen.NODE,
         "from_pod, stack"),
    Cell(Side.NODE, Side.POD_THERE, "to_overlay; from_overlay",
         "from_overlay: ingress, as the node", "stack, overlay", Seen.GATEWAY, "overlay, stack"),
    Cell(Side.NODE, Side.VIP_HERE, "connect or sendmsg; to_pod", "to_pod: always allowed", "stack",
         Seen.NODE, "from_pod, stack; recvmsg restores the VIP (UDP)"),
    Cell(Side.NODE, Side.VIP_THERE, "connect or sendmsg, to_overlay; from_overlay",
         "from_overlay: ingress, as the node", "stack, overlay", Seen.GATEWAY,
         "overlay, stack; recvmsg restores the VIP (UDP)"),
)  # fmt: skip


def markdown() -> str:
    """The table as ARCHITECTURE.md shows it."""
    head = ("from", "to", "hooks", "who judges", "path", "source seen", "way of the reply")
    rows = [head, tuple("---" for _ in head), *(astuple(cell) for cell in CELLS)]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


if __name__ == "__main__":
    print(markdown())
