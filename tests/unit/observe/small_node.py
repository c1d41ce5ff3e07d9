"""A node in memory: the real loop and planners over tables that are not the kernel's.

One Service over two endpoints of which one is ready, two pods here and one elsewhere, and a policy
that lets the client alone reach the server.
"""

import asyncio
from collections.abc import AsyncIterator, Collection, Hashable, Iterator, Mapping
from contextlib import asynccontextmanager
from ipaddress import ip_address, ip_network
from time import monotonic

from weft.bpf.layout import TABLES
from weft.bpf.table import FakeTable
from weft.bpf.wire import TableKind
from weft.proxy.apply.applier import Applier
from weft.proxy.apply.desired import Desired
from weft.proxy.apply.order import TABLES as ROW_TABLES
from weft.proxy.apply.patrol import Patrol
from weft.proxy.apply.target import TableTarget, Target
from weft.proxy.intake import Intake
from weft.proxy.loop import Loop, View
from weft.proxy.model.objects import (
    LISTED_KINDS,
    EndpointSlice,
    Kind,
    Link,
    Namespace,
    NetworkPolicy,
    Node,
    Peer,
    Pod,
    PolicyPort,
    Protocol,
    Record,
    Ref,
    Rule,
    Selector,
    Service,
    ServicePort,
    SliceEndpoint,
    SlicePort,
    Workload,
)
from weft.proxy.model.world import Key, Settings, World
from weft.proxy.plan import PLANNERS
from weft.proxy.planning import Planning
from weft.proxy.watch.events import Listed, Moved

SERVER, CLIENT, FAR = Ref("default", "server"), Ref("default", "client"), Ref("default", "far")
SERVER_IP, CLIENT_IP, FAR_IP = map(ip_address, ("10.244.1.5", "10.244.1.6", "10.244.2.5"))
VIP = ip_address("10.96.0.10")
WEB, ONLY_CLIENT = Ref("default", "web"), Ref("default", "only-client")
SETTINGS = Settings("n1", hz=250)


class Rows:
    """Links, routes and hooks, which have no table."""

    def __init__(self) -> None:
        self.rows: dict[Hashable, object] = {}

    def dump(self) -> Iterator[tuple[Hashable, object]]:
        return iter(list(self.rows.items()))

    def write(
        self, upserts: Mapping[Hashable, object], deletes: Collection[Hashable]
    ) -> Mapping[Hashable, str]:
        self.rows.update(upserts)
        for key in deletes:
            self.rows.pop(key, None)
        return {}


class SmallNode:
    """The loop of node `n1`, its tables and what readers see of it."""

    def __init__(
        self, entries: Mapping[str, int] | None = None, settings: Settings = SETTINGS
    ) -> None:
        sizes = entries or {}
        self.tables = {
            name: FakeTable(spec, sizes.get(name)) for name, spec in TABLES.items()
            if spec.kind is not TableKind.RINGBUF
        }  # fmt: skip
        desired = Desired()
        applier = Applier(self._targets(), desired, monotonic)
        planning = Planning(PLANNERS, desired)
        intake = Intake(World(settings), LISTED_KINDS)
        planning.touch_all(intake.world)
        patrol = Patrol(applier, sorted(ROW_TABLES))
        self.loop = Loop(intake, planning, desired, applier, patrol)
        self.view = View(self.loop, self.tables)

    def _targets(self) -> Mapping[str, Target]:
        targets: dict[str, Target] = {name: Rows() for name in ("links", "routes", "hooks", "nft")}
        for name in ROW_TABLES - targets.keys():
            zero = bytes(TABLES[name].value_size) if TABLES[name].kind is TableKind.ARRAY else b""
            targets[name] = TableTarget(self.tables[name], zero)
        return targets

    def list(self, records: Mapping[Kind, Mapping[Key, Record]]) -> None:
        for kind in Kind:
            self.loop.post(Listed(kind, records.get(kind, {})))

    async def moved(self, kind: Kind, key: Key, record: Record | None) -> None:
        """Return when the turn that takes this change has ended."""
        await self.loop.submit(Moved(kind, key, record))


ApiObject = Node | Namespace | Pod | Service | EndpointSlice | NetworkPolicy


def cluster() -> Mapping[Kind, Mapping[Key, Record]]:
    """What the API and the node's own sources say, by kind."""
    named: Mapping[
        Kind, tuple[Node | Namespace | Pod | Service | EndpointSlice | NetworkPolicy, ...]
    ] = {
        Kind.NODE: nodes(),
        Kind.NAMESPACE: (Namespace(Ref("", "default"), {}),),
        Kind.POD: pods(),
        Kind.SERVICE: (service(),),
        Kind.SLICE: (endpoint_slice(),),
        Kind.POLICY: (policy(),),
    }
    found: dict[Kind, Mapping[Key, Record]] = {
        kind: {record.ref: record for record in records} for kind, records in named.items()
    }
    found[Kind.ATTACHMENT] = {workload.key: workload for workload in workloads()}
    uplink = Link("eth0", 2, 1500, (ip_address("192.0.2.1"),), default_route=True)
    found[Kind.LINK] = {uplink.name: uplink}
    return found


def nodes() -> tuple[Node, ...]:
    return tuple(
        Node(Ref("", f"n{n}"), (ip_address(f"192.0.2.{n}"),), (ip_network(f"10.244.{n}.0/24"),))
        for n in (1, 2)
    )


def pods() -> tuple[Pod, ...]:
    return tuple(
        Pod(ref, ref.name, node, {"app": ref.name}, (address,), host_network=False, finished=False)
        for ref, node, address in (
            (SERVER, "n1", SERVER_IP), (CLIENT, "n1", CLIENT_IP), (FAR, "n2", FAR_IP)
        )
    )  # fmt: skip


def service() -> Service:
    return Service(WEB, "ClusterIP", (VIP,), (ServicePort("http", Protocol.TCP, 80),))


def endpoint_slice() -> EndpointSlice:
    return EndpointSlice(
        Ref("default", "web-1"),
        "web",
        (SlicePort("http", Protocol.TCP, 8080),),
        (
            SliceEndpoint(SERVER_IP, True, True, False, "n1", SERVER),
            SliceEndpoint(FAR_IP, False, False, False, "n2", FAR),
        ),
    )


def policy() -> NetworkPolicy:
    """Selects the server; its client may use TCP 8080."""
    client = Peer(pods=Selector((("app", "client"),)))
    rule = Rule((client,), (PolicyPort(Protocol.TCP, 8080),))
    server = Selector((("app", "server"),))
    return NetworkPolicy(ONLY_CLIENT, server, True, False, (rule,), ())


def workloads() -> tuple[Workload, ...]:
    return tuple(
        Workload(f"weft{number:011x}", ref, ref.name, (address,), number, bytes(6), bytes(6))
        for number, ref, address in ((10, SERVER, SERVER_IP), (11, CLIENT, CLIENT_IP))
    )


@asynccontextmanager
async def running(
    *, entries: Mapping[str, int] | None = None, settings: Settings = SETTINGS
) -> AsyncIterator[SmallNode]:
    """A node whose loop runs and has brought its tables in line with `cluster`."""
    node = SmallNode(entries, settings)
    node.list(cluster())
    task = asyncio.create_task(node.loop.run())
    try:
        await node.moved(Kind.NAMESPACE, Ref("", "nobody"), None)
        yield node
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
