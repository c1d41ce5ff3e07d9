"""Owns what `cni` asks of the node it serves: the seam that the daemon implements.

Never knows who answers: the daemon with its loop, or `local.AllowAll` where there is no daemon.
"""

import math
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Protocol

from weft.cni.spec import Address, Attachment

Range = IPv4Network | IPv6Network

ROUTED_GATEWAYS: tuple[Address, ...] = (IPv4Address("169.254.1.1"), IPv6Address("fe80::1"))


class NotReady(Exception):
    """The node cannot serve yet; says what it waits for. The runtime is told to try again."""


class LinkMode(StrEnum):
    """How a pod's host end meets the node: by routes of its own, or as a port of a bridge."""

    ROUTED = "routed"
    BRIDGE = "bridge"


@dataclass(frozen=True, slots=True)
class PodNetwork:
    """What a new pod gets on this node. A pod has one address of each family in `ranges`.

    ranges: this node's podCIDRs; the first host address of each is the node's own.
    sources: preferred source addresses of the node's traffic to its pods, at most one per family.
    heard_s: when the cluster was heard of last, in seconds since boot. Other nodes may still take
    an address that was released after that for its last pod, policies included: nobody gets it.
    route_mtu_bytes: of packets that leave the node, where that is less than the link's; 0: it is
    not.
    """

    ranges: tuple[Range, ...]
    mode: LinkMode
    mtu_bytes: int
    bridge: str = ""
    sources: tuple[Address, ...] = ()
    heard_s: float = math.inf
    route_mtu_bytes: int = 0


class Node(Protocol):
    async def attached(self, attachment: Attachment) -> None:
        """Returns when the pod's rows and hook are in force. Raises NotReady (code 11)."""

    async def detached(self, attachment: Attachment) -> None:
        """Forgets the pod; a pod that it does not know is success."""

    async def missing(self, attachment: Attachment) -> tuple[str, ...]:
        """What of the pod's rows and hooks is not in force now, for people. Raises NotReady."""

    def network(self) -> PodNetwork:
        """What new pods get now. Cheap: STATUS asks it every few seconds. Raises NotReady."""
