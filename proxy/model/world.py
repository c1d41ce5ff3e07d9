"""Owns World, all that the daemon knows at one instant, and Change, one step to the next.

Never reads a clock, a file or the kernel; a World is never altered, `with_change` gives the next
one and shares all that stayed.
"""

from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from ipaddress import IPv4Network, IPv6Network
from typing import TypeVar, cast

from immutables import Map

from weft.proxy.model.index import INDEXES, Groups, Index, Key, Move, regroup
from weft.proxy.model.objects import (
    Address,
    EndpointSlice,
    Kind,
    Link,
    Namespace,
    Network,
    NetworkPolicy,
    Node,
    PathMtu,
    Pod,
    Protocol,
    Record,
    Ref,
    Service,
    ServiceCIDR,
    Shaping,
    Sighting,
    Workload,
)

__all__ = ["Change", "Key", "Mode", "Record", "Settings", "World", "apply_changes"]

_R = TypeVar("_R", bound=Record)


class Mode(StrEnum):
    """How pods hang on their node and reach other nodes' (ARCHITECTURE, modes)."""

    AUTO = "auto"
    """Direct where both nodes are on one network, else by VXLAN: per node and family."""
    VXLAN = "vxlan"
    DIRECT = "direct"
    BRIDGE = "bridge"


class SocketHook(StrEnum):
    """Whose connect() is translated at the socket; for all others each packet is."""

    ALL = "all"
    NODE = "node"


class ClientAddress(StrEnum):
    """Whom endpoints see as a client: itself, or a node wherever kube-proxy masquerades."""

    KEEP = "keep"
    MASQUERADE = "masquerade"


@dataclass(frozen=True, slots=True)
class Settings:
    """What the operator set and the node is; fixed while the daemon runs."""

    node: str
    host_netns_cookie: int = 0
    hz: int = 250
    mode: Mode = Mode.AUTO
    overlay: bool = True
    """Bridge mode may go without the tunnel where the network between nodes routes podCIDRs."""
    overlay_vni: int = 4242
    overlay_port: int = 8472
    ask_port: int = 8474
    """Where nodes ask each other whose an address is; 0: they do not."""
    path_mtu_bytes: int = 0
    """Of the narrowest link between nodes; 0: learned, path by path."""
    masquerade: bool = True
    never_masquerade: tuple[IPv4Network | IPv6Network, ...] = ()
    snat_port_min: int = 61000
    snat_port_max: int = 65535
    event_sample: int = 0
    socket_hook: SocketHook = SocketHook.ALL
    client_address: ClientAddress = ClientAddress.KEEP
    node_port_addresses: tuple[IPv4Network | IPv6Network, ...] = ()
    """Where node ports are served; (): at the Node's InternalIPs."""
    external_ips: bool = True
    service_cidrs: tuple[IPv4Network | IPv6Network, ...] = ()
    """Beside those that ServiceCIDR objects name."""
    namespace_share: int = 50
    """How much of a table of Services one namespace may take, in hundredths."""
    table_sizes: Mapping[str, int] = field(default_factory=dict)
    """Rows that the tables have, where they differ from their defaults."""

    @property
    def has_overlay(self) -> bool:
        """Whether a tunnel may carry pods' traffic between nodes."""
        return self.mode in (Mode.VXLAN, Mode.AUTO) or (self.mode is Mode.BRIDGE and self.overlay)

    @property
    def goes_direct(self) -> bool:
        """Whether pods' traffic goes as it is to a node on the same network."""
        return self.mode is Mode.AUTO or not self.has_overlay


@dataclass(frozen=True, slots=True)
class Change:
    """One record that came, changed or went: `before` None, neither None, `after` None."""

    kind: Kind
    key: Key
    before: Record | None
    after: Record | None


@dataclass(frozen=True, slots=True)
class World:
    """Everything known, by kind and key, and the indexes that planners ask for.

    Keys: a Ref for the API's kinds, `Workload.key` for attachments, `Link.name` for links,
    `Shaping.link` for shapings, `Sighting.key` for sightings, `PathMtu.key` for path MTUs.
    """

    settings: Settings
    tables: Map[Kind, Map[Key, Record]] = field(default_factory=Map)
    indexes: Map[Index, Groups] = field(default_factory=Map)

    def with_change(self, change: Change) -> "World":
        """The next World."""
        return apply_changes(self, (change,))

    def table(self, kind: Kind) -> Map[Key, Record]:
        """All records of one kind by key."""
        return self.tables.get(kind) or Map()

    def group(self, index: Index, of: Hashable) -> Map[Key, Record]:
        """The records that `index` files under `of`, by key."""
        return (self.indexes.get(index) or Map()).get(of) or Map()

    # One record by its key.
    def service(self, ref: Ref) -> Service | None:
        return cast(Service | None, self.table(Kind.SERVICE).get(ref))

    def slice(self, ref: Ref) -> EndpointSlice | None:
        return cast(EndpointSlice | None, self.table(Kind.SLICE).get(ref))

    def pod(self, ref: Ref) -> Pod | None:
        return cast(Pod | None, self.table(Kind.POD).get(ref))

    def namespace(self, name: str) -> Namespace | None:
        return cast(Namespace | None, self.table(Kind.NAMESPACE).get(Ref("", name)))

    def node(self, name: str) -> Node | None:
        return cast(Node | None, self.table(Kind.NODE).get(Ref("", name)))

    def own_node(self) -> Node | None:
        """The node that this daemon runs on; None until the API has said it."""
        return self.node(self.settings.node)

    def policy(self, ref: Ref) -> NetworkPolicy | None:
        return cast(NetworkPolicy | None, self.table(Kind.POLICY).get(ref))

    def workload(self, key: str) -> Workload | None:
        return cast(Workload | None, self.table(Kind.ATTACHMENT).get(key))

    def link(self, name: str) -> Link | None:
        return cast(Link | None, self.table(Kind.LINK).get(name))

    def shaping(self, link: str) -> Shaping | None:
        return cast(Shaping | None, self.table(Kind.SHAPING).get(link))

    def sighting(self, address: Address) -> Sighting | None:
        return cast(Sighting | None, self.table(Kind.SIGHTING).get(str(address)))

    def path_mtu(self, end: Address) -> PathMtu | None:
        return cast(PathMtu | None, self.table(Kind.PATH_MTU).get(str(end)))

    # All records of a kind: for full plans and for the kinds that are few.
    def services(self) -> Iterable[Service]:
        return cast(Iterable[Service], self.table(Kind.SERVICE).values())

    def service_cidrs(self) -> Iterable[ServiceCIDR]:
        return cast(Iterable[ServiceCIDR], self.table(Kind.SERVICE_CIDR).values())

    def slices(self) -> Iterable[EndpointSlice]:
        return cast(Iterable[EndpointSlice], self.table(Kind.SLICE).values())

    def pods(self) -> Iterable[Pod]:
        return cast(Iterable[Pod], self.table(Kind.POD).values())

    def namespaces(self) -> Iterable[Namespace]:
        return cast(Iterable[Namespace], self.table(Kind.NAMESPACE).values())

    def nodes(self) -> Iterable[Node]:
        return cast(Iterable[Node], self.table(Kind.NODE).values())

    def policies(self) -> Iterable[NetworkPolicy]:
        return cast(Iterable[NetworkPolicy], self.table(Kind.POLICY).values())

    def workloads(self) -> Iterable[Workload]:
        return cast(Iterable[Workload], self.table(Kind.ATTACHMENT).values())

    def links(self) -> Iterable[Link]:
        return cast(Iterable[Link], self.table(Kind.LINK).values())

    def sightings(self) -> Iterable[Sighting]:
        return cast(Iterable[Sighting], self.table(Kind.SIGHTING).values())

    def path_mtus(self) -> Iterable[PathMtu]:
        return cast(Iterable[PathMtu], self.table(Kind.PATH_MTU).values())

    # Related records, by index; in no order.
    def slices_of(self, service: Ref) -> tuple[EndpointSlice, ...]:
        return self._grouped(Index.SLICES_BY_SERVICE, service, EndpointSlice)

    def services_at(self, address: Address) -> tuple[Service, ...]:
        """Services that name `address` as a cluster IP: one, unless somebody erred."""
        return self._grouped(Index.SERVICES_BY_ADDRESS, address, Service)

    def services_exposed_at(self, address: Address) -> tuple[Service, ...]:
        """Services that name `address` as a load balancer's or as an externalIP."""
        return self._grouped(Index.SERVICES_BY_EXPOSED, address, Service)

    def services_on_node_port(self, protocol: Protocol, number: int) -> tuple[Service, ...]:
        return self._grouped(Index.SERVICES_BY_NODE_PORT, (protocol, number), Service)

    def exposed_services(self) -> Iterable[Service]:
        """Those with a node port, a load balancer's address or an externalIP."""
        found: dict[Key, Record] = {}
        for index in (Index.SERVICES_BY_EXPOSED, Index.SERVICES_BY_NODE_PORT):
            for group in (self.indexes.get(index) or Map()).values():
                found.update(group)
        return cast(Iterable[Service], found.values())

    def pods_in(self, namespace: str) -> Mapping[Ref, Pod]:
        return cast(Mapping[Ref, Pod], self.group(Index.PODS_BY_NAMESPACE, namespace))

    def pods_at(self, address: Address) -> tuple[Pod, ...]:
        """Pods that own `address`: one, but for a moment when it is used again."""
        return self._grouped(Index.PODS_BY_ADDRESS, address, Pod)

    def policies_in(self, namespace: str) -> Mapping[Ref, NetworkPolicy]:
        return cast(Mapping[Ref, NetworkPolicy], self.group(Index.POLICIES_BY_NAMESPACE, namespace))

    def workloads_of(self, pod: Ref) -> tuple[Workload, ...]:
        return self._grouped(Index.WORKLOADS_BY_POD, pod, Workload)

    def workloads_in(self, namespace: str) -> tuple[Workload, ...]:
        return self._grouped(Index.WORKLOADS_BY_NAMESPACE, namespace, Workload)

    def workloads_at(self, address: Address) -> tuple[Workload, ...]:
        return self._grouped(Index.WORKLOADS_BY_ADDRESS, address, Workload)

    def sightings_of(self, pod: Ref) -> tuple[Sighting, ...]:
        return self._grouped(Index.SIGHTINGS_BY_POD, pod, Sighting)

    def nodes_with(self, pod_cidr: Network) -> tuple[Node, ...]:
        """Nodes that claim exactly this prefix for their pods: one, unless somebody erred."""
        return self._grouped(Index.NODES_BY_POD_CIDR, pod_cidr, Node)

    def nodes_at(self, address: Address) -> tuple[Node, ...]:
        return self._grouped(Index.NODES_BY_ADDRESS, address, Node)

    def _grouped(self, index: Index, of: Hashable, record: type[_R]) -> tuple[_R, ...]:
        return cast(tuple[_R, ...], tuple(self.group(index, of).values()))


def apply_changes(world: World, changes: Iterable[Change]) -> World:
    """The World after `changes`, in their order; a batch costs a fraction of one by one."""
    by_kind: dict[Kind, list[Change]] = {}
    for change in changes:
        by_kind.setdefault(change.kind, []).append(change)
    tables, indexes = world.tables, world.indexes
    for kind, batch in by_kind.items():
        fresh, moves = _next_table(world.table(kind), batch)
        tables = tables.set(kind, fresh)
        for index, groups_of in INDEXES.get(kind, {}).items():
            groups = indexes.get(index) or Map()
            indexes = indexes.set(index, regroup(groups, groups_of, moves))
    return World(world.settings, tables, indexes)


def _next_table(
    table: Map[Key, Record], changes: Iterable[Change]
) -> tuple[Map[Key, Record], list[Move]]:
    """The table after `changes`, and each step as it was: (key, before, after).

    What stood in the table counts as before, not what the change says, so an index never keeps a
    record that the table has lost.
    """
    moves: list[Move] = []
    draft = table.mutate()
    for change in changes:
        before = draft.get(change.key)
        if change.after is not None:
            draft[change.key] = change.after
        elif before is not None:
            del draft[change.key]
        moves.append((change.key, before, change.after))
    return draft.finish(), moves
