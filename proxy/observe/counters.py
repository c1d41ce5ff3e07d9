"""The datapath's counters: packets and bytes by reason and direction, summed over CPUs."""

from collections.abc import Iterator
from dataclasses import dataclass

from weft.bpf.layout import DIRECTION_COUNT, REASON_DROPS, Counter, Direction, Reason, unpack_u32
from weft.bpf.table import Table

MEANINGS = {
    Reason.NONE: "counted without a reason: a bug of Weft's",
    Reason.STACK: "passed to the node's stack or the next program",
    Reason.DELIVERED: "redirected into a local pod",
    Reason.TUNNELLED: "sent to another node through the overlay",
    Reason.MASQUERADED: "left through an uplink with the node's address",
    Reason.RESTORED: "reply to a masqueraded flow, given back its pod's address",
    Reason.NOT_OURS: "nothing of Weft's in it, passed untouched",
    Reason.DIRECT: "sent to another node on the same link",
    Reason.HELD: "waits on the hold link for what is not known yet",
    Reason.ANSWERED: "to a client outside, or an echo, from the Service address that it dialled",
    Reason.POLICY_INGRESS: "no policy of the receiving pod allows it",
    Reason.POLICY_EGRESS: "no policy of the sending pod allows it",
    Reason.SOURCE_SPOOFED: "an address or MAC that is not its sender's",
    Reason.ROUTER_ADVERT_SPOOFED: "a pod played the router",
    Reason.NO_BACKEND: "a Service without endpoints: answered with a refusal",
    Reason.MALFORMED: "headers that cannot be right",
    Reason.MAPPED_ADDRESS: "an IPv4-mapped IPv6 address on the wire",
    Reason.FRAGMENT_UNKNOWN: "a fragment whose first one was not seen",
    Reason.OVERLAY_SOURCE: "a tunnel packet from no node, or from another node's range",
    Reason.NO_WORKLOAD: "an address of this node's range that no pod has",
    Reason.SNAT_EXHAUSTED: "no port or address was left to masquerade with",
    Reason.TABLE_FULL: "a table of the datapath is full",
    Reason.FLOODED: "a bridge's copy for another MAC",
    Reason.HELPER_FAILED: "the kernel refused what a program asked of it",
    Reason.PROTOCOL_UNKNOWN: "nothing could judge it or bring an answer back (not IP, tagged, ...)",
    Reason.NO_SERVICE: "an address of a Service range that no Service has",
    Reason.NEIGHBOUR_SPOOFED: "ARP or neighbour discovery that claims another's address or MAC",
    Reason.SOURCE_ROUTED: "a packet that names the routers on its way",
    Reason.TOO_BIG: "longer than the tunnel of a client outside carries; its sender is told",
    Reason.NO_LOCAL_BACKEND: "a Service of policy Local without an endpoint on this node",
    Reason.UNTRANSLATED: "SCTP of a Service that netfilter did not translate: of no association",
    Reason.SOURCE_RANGE: "a client outside of a Service's loadBalancerSourceRanges",
    Reason.TUNNEL_FORGED: "a pod's packet to where nodes end their tunnels or ask each other",
}


@dataclass(frozen=True, slots=True)
class Count:
    """What left the programs for one reason in one direction since the map was made."""

    reason: str
    direction: str
    is_drop: bool
    packets: int
    bytes: int
    meaning: str


def counts(table: Table) -> Iterator[Count]:
    """Every counter that is not zero, by reason."""
    for key, cpus in table.items():
        packets, size = _summed(cpus)
        if packets:
            reason, direction = divmod(unpack_u32(key), DIRECTION_COUNT)
            yield Count(
                reason_name(reason),
                direction_name(direction),
                is_drop(reason),
                packets,
                size,
                meaning(reason),
            )


def _summed(cpus: bytes) -> tuple[int, int]:
    rows = [
        Counter.unpack(cpus[at : at + Counter.SIZE]) for at in range(0, len(cpus), Counter.SIZE)
    ]
    return sum(row.packets for row in rows), sum(row.bytes for row in rows)


def meaning(reason: int) -> str:
    """What a reason stands for; of one that this build does not know, that it does not."""
    known = reason in MEANINGS
    return MEANINGS[Reason(reason)] if known else "the datapath is newer than this daemon"


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
