"""The datapath's counters: packets and bytes by reason and direction, summed over CPUs."""

from collections.abc import Iterator
from dataclasses import dataclass

from weft.bpf.layout import DIRECTION_COUNT, REASON_DROPS, Counter, Direction, Reason, unpack_u32
from weft.bpf.table import Table


@dataclass(frozen=True, slots=True)
class Count:
    """What left the programs for one reason in one direction since the map was made."""

    reason: str
    direction: str
    is_drop: bool
    packets: int
    bytes: int


def counts(table: Table) -> Iterator[Count]:
    """Every counter that is not zero, by reason."""
    for key, cpus in table.items():
        packets, size = _summed(cpus)
        if packets:
            reason, direction = divmod(unpack_u32(key), DIRECTION_COUNT)
            yield Count(
                reason_name(reason), direction_name(direction), is_drop(reason), packets, size
            )


def _summed(cpus: bytes) -> tuple[int, int]:
    rows = [
        Counter.unpack(cpus[at : at + Counter.SIZE]) for at in range(0, len(cpus), Counter.SIZE)
    ]
    return sum(row.packets for row in rows), sum(row.bytes for row in rows)


def is_drop(reason: int) -> bool:
    return reason >= REASON_DROPS


def reason_name(reason: int) -> str:
    """`policy-ingress` and so on; a number that this build does not know stays one."""
    try:
        return Reason(reason).name.lower().replace("_", "-")
    except ValueError:
        return f"reason-{reason}"


def direction_name(direction: int) -> str:
    try:
        return Direction(direction).name.lower().replace("_", "-")
    except ValueError:
        return f"direction-{direction}"
