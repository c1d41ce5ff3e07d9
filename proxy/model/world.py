"""Owns World, all that the daemon knows at one instant, and Change, one step from one to the next.

Never reads a clock, a file or the kernel; a World is never altered, `with_change` gives the next one
and shares all that stayed.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from ipaddress import IPv4Network, IPv6Network

from immutables import Map

from weft.proxy.model.objects import (
    EndpointSlice,
    Kind,
    Link,
    Namespace,
    NetworkPolicy,
    Node,
    Pod,
    Ref,
    Service,
    Workload,
)

Record = Service | EndpointSlice | Pod | Namespace | Node | NetworkPolicy | Workload | Link
Key = Ref | str


class Mode(StrEnum):
    """How pods hang on their node (DESIGN: network modes)."""

    VXLAN = "vxlan"
    BRIDGE = "bridge"


@dataclass(frozen=True, slots=True)
class Settings:
    """What the operator set and the node is; fixed while the daemon runs."""

    node: str
    host_netns_cookie: int = 0
    hz: int = 250
    mode: Mode = Mode.VXLAN
    overlay: bool = True
    """Bridge mode may go without the tunnel where the network between nodes routes podCIDRs."""
    overlay_vni: int = 4242
    overlay_port: int = 8472
    masquerade: bool = True
    never_masquerade: tuple[IPv4Network | IPv6Network, ...] = ()
    snat_port_min: int = 61000
    snat_port_max: int = 65535
    event_sample: int = 0


@dataclass(frozen=True, slots=True)
class Change:
    """One record that came, changed or went: `before` None, neither None, `after` None."""

    kind: Kind
    key: Key
    before: Record | None
    after: Record | None


def _empty() -> Map[Key, Record]:
    return Map()


@dataclass(frozen=True, slots=True)
class World:
    """Everything known, by kind and key, and the indexes that planners ask for."""

    settings: Settings
    tables: Map[Kind, Map[Key, Record]] = field(default_factory=Map)
    slices_by_service: Map[Ref, frozenset[Ref]] = field(default_factory=Map)

    def table(self, kind: Kind) -> Mapping[Key, Record]:
        return self.tables.get(kind, _empty())
