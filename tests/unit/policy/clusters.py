"""Random clusters and policies for agreement tests: few names, so that everything meets.

Addresses, prefixes and labels are drawn from small pools that nest, overlap and share edges.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from random import Random
from typing import TypeVar

from tests.unit.policy.evaluator import Cluster
from weft.proxy.model.objects import (
    Address,
    IPBlock,
    Kind,
    Namespace,
    Network,
    NetworkPolicy,
    Node,
    Operator,
    Peer,
    Pod,
    PolicyPort,
    Protocol,
    Ref,
    Requirement,
    Rule,
    Selector,
    ServicePort,
    Sighting,
    Workload,
)
from weft.proxy.model.world import Change, Key, Record, Settings, World
from weft.proxy.watch.events import key_of

T = TypeVar("T")
Move = tuple[Kind, Key, Record | None]
Owned = Pod | Namespace | Node | NetworkPolicy | Workload | Sighting
Flow = tuple[Address, Address, int, int]

OWN_NODE = "n1"
NAMESPACES = ("a", "b", "c")
KEYS, VALUES = ("app", "tier", "team"), ("x", "y")
NODE_NAMES = (OWN_NODE, "n2", "n3")
CIDRS: tuple[tuple[Network, ...], ...] = tuple(
    tuple(map(ip_network, pair))
    for pair in (
        ("10.244.1.0/24", "fd00:1::/64"),
        ("10.244.2.0/24", "fd00:2::/64"),
        ("10.244.0.0/16", "fd00::/32"),
        ("10.244.3.0/24",),
        ("fd00:3::/64",),
    )
)
NODE_IPS = tuple(map(ip_address, ("192.0.2.1", "192.0.2.2", "2001:db8::1", "2001:db8::2")))
POD_IPS = tuple(
    map(
        ip_address,
        (
            "10.244.1.5", "10.244.1.6", "10.244.1.130", "10.244.2.5", "10.244.2.6", "10.244.3.5",
            "fd00:1::5", "fd00:1::6", "fd00:2::5", "fd00:2:0:0:8000::5", "fd00:3::5",
        ),
    )
)  # fmt: skip
OTHER_IPS = tuple(
    map(
        ip_address,
        (
            "10.244.1.1", "10.244.2.1", "10.244.0.1", "fd00:1::1", "fd00:2::1", "10.244.1.77",
            "10.244.1.140", "10.244.9.9", "fd00:1::77", "fd00:2:0:0:8000::77", "fd00:9::9",
            "203.0.113.7", "203.0.113.200", "192.0.2.77", "8.8.8.8", "2001:db8::77",
            "2001:db8:1::1", "2606::1", "0.0.0.1", "255.255.255.255", "::2",
        ),
    )
)  # fmt: skip
BLOCKS = tuple(
    map(
        ip_network,
        (
            "0.0.0.0/0", "::/0", "10.0.0.0/8", "10.244.0.0/16", "10.244.1.0/24", "10.244.1.128/25",
            "10.244.1.5/32", "10.244.2.0/28", "192.0.2.0/24", "192.0.2.1/32", "203.0.113.0/24",
            "203.0.113.128/25", "fd00::/16", "fd00:1::/64", "fd00:2:0:0:8000::/65", "fd00:1::5/128",
            "2001:db8::/32", "2001:db8::1/128", "2000::/3", "8.0.0.0/5", "::/1",
        ),
    )
)  # fmt: skip
PORTS = (0, 1, 53, 79, 80, 81, 443, 8000, 8080, 8443, 9000, 65535)
PORT_NAMES = ("web", "dns")
LOOPBACK = 1  # a link that exists, so that programs can be tried on it
EVERYONE = Selector()


@dataclass
class Dice:
    """Draws records from the pools."""

    random: Random

    def one(self, pool: Sequence[T]) -> T:
        return self.random.choice(pool)

    def few(self, pool: Sequence[T], most: int) -> tuple[T, ...]:
        return tuple(self.random.sample(pool, self.random.randint(0, min(most, len(pool)))))

    def maybe(self, chance: float) -> bool:
        return self.random.random() < chance

    def many(self, make: Callable[[], T], most: int) -> tuple[T, ...]:
        return tuple(make() for _ in range(self.random.randint(0, most)))

    def labels(self) -> dict[str, str]:
        return {key: self.one(VALUES) for key in self.few(KEYS, 2)}

    def selector(self) -> Selector:
        if self.maybe(0.35):
            return EVERYONE
        terms = self.many(self.requirement, 1)
        return Selector(tuple(sorted(self.labels().items())), terms)

    def requirement(self) -> Requirement:
        operator = self.one(tuple(Operator))
        needs = operator in (Operator.IN, Operator.NOT_IN)
        return Requirement(self.one(KEYS), operator, self.few(VALUES, 2) or ("x",) if needs else ())

    def block(self) -> IPBlock:
        cidr = self.one(BLOCKS)
        inner = [b for b in BLOCKS if b.version == cidr.version and b.prefixlen >= cidr.prefixlen]
        return IPBlock(cidr, self.few(inner, 2) if self.maybe(0.5) else ())

    def peer(self) -> Peer:
        if self.maybe(0.4):
            return Peer(block=self.block())
        if self.maybe(0.2):
            return Peer(namespaces=EVERYONE)
        pods = self.selector() if self.maybe(0.6) else None
        namespaces = self.selector() if pods is None or self.maybe(0.5) else None
        return Peer(pods=pods, namespaces=namespaces)

    def port(self) -> PolicyPort:
        protocol = self.one(tuple(Protocol))
        if self.maybe(0.2):
            return PolicyPort(protocol)
        if self.maybe(0.15):
            return PolicyPort(protocol, self.one(PORT_NAMES))
        port = self.one(PORTS[1:])
        last = self.one([p for p in PORTS if p >= port])
        return PolicyPort(protocol, port, last if self.maybe(0.3) else None)

    def rule(self) -> Rule:
        peers = () if self.maybe(0.15) else (self.peer(), *self.many(self.peer, 2))
        ports = () if self.maybe(0.4) else (self.port(), *self.many(self.port, 2))
        return Rule(peers, ports)

    def policy(self) -> NetworkPolicy:
        ref = Ref(self.one(NAMESPACES), self.one(("p1", "p2", "p3")))
        ingress, egress = self.maybe(0.7), self.maybe(0.6)
        return NetworkPolicy(
            ref,
            self.selector(),
            ingress,
            egress or not ingress,
            self.many(self.rule, 2) if ingress else (),
            self.many(self.rule, 2) if egress else (),
        )

    def namespace(self) -> Namespace:
        name = self.one(NAMESPACES)
        return Namespace(Ref("", name), self.labels() | {"kubernetes.io/metadata.name": name})

    def node(self) -> Node:
        return Node(Ref("", self.one(NODE_NAMES)), self.few(NODE_IPS, 2), self.one(CIDRS))

    def pod_ref(self) -> Ref:
        return Ref(self.one(NAMESPACES), self.one(("w1", "w2", "w3")))

    def pod(self) -> Pod:
        finished, host = self.maybe(0.08), self.maybe(0.1)
        addresses = self.few(NODE_IPS if host else POD_IPS, 2)
        return Pod(
            self.pod_ref(),
            self.one(("u1", "u1", "u2")),
            self.one(NODE_NAMES),
            self.labels(),
            () if finished else addresses,
            host,
            finished,
            self.many(self.named_port, 2),
        )

    def named_port(self) -> ServicePort:
        return ServicePort(self.one(PORT_NAMES), self.one(tuple(Protocol)), self.one(PORTS[1:]))

    def link(self) -> Workload:
        key = self.one(("l1", "l2", "l3"))
        ref, uid = self.pod_ref(), self.one(("u1", "u1", "u1", ""))
        return Workload(key, ref, uid, self.few(POD_IPS, 2), LOOPBACK, bytes(6), bytes(6))

    def sighting(self) -> Sighting:
        uid, former = self.one(("u1", "u1", "u2")), self.few(("u1", "u2"), 1)
        node = self.one(NODE_NAMES)
        return Sighting(self.one(POD_IPS), self.pod_ref(), uid, node, tuple({*former} - {uid}))

    def move(self) -> Move:
        """One record that comes, changes or goes; one in four goes."""
        kind, make = self.one(_makers(self))
        record = make()
        key = key_of(record)
        return kind, key, None if self.maybe(0.25) else record

    def flow(self, cluster: Cluster) -> Flow:
        """A connection with at least one end on a link of this node, where there is one."""
        ends = [a for link in cluster.links for a in link.addresses] or list(POD_IPS)
        mine = self.one(ends)
        others = [a for a in (*POD_IPS, *OTHER_IPS, *NODE_IPS) if a.version == mine.version]
        pair = (mine, self.one([a for a in others if a != mine]))
        source, destination = pair if self.maybe(0.5) else pair[::-1]
        protocol = self.one((6, 6, 6, 17, 17, 132, 1))
        return source, destination, protocol, 0 if protocol == 1 else self.one(PORTS)


def empty_world() -> World:
    return World(Settings(OWN_NODE))


def step(world: World, move: Move) -> tuple[Change, World]:
    """The change that a move makes, and the World after it."""
    kind, key, record = move
    change = Change(kind, key, world.table(kind).get(key), record)
    return change, world.with_change(change)


def world_of(*records: Owned) -> World:
    """A World of these records."""
    world = empty_world()
    for record in records:
        kind = KINDS[type(record)]
        key = key_of(record)
        world = step(world, (kind, key, record))[1]
    return world


KINDS: dict[type, Kind] = {
    Pod: Kind.POD,
    Namespace: Kind.NAMESPACE,
    Node: Kind.NODE,
    NetworkPolicy: Kind.POLICY,
    Workload: Kind.ATTACHMENT,
    Sighting: Kind.SIGHTING,
}


def cluster_of(world: World) -> Cluster:
    """The same World for the evaluator."""
    return Cluster(
        tuple(world.policies()),
        tuple(world.namespaces()),
        tuple(world.pods()),
        tuple(world.nodes()),
        tuple(world.workloads()),
        tuple(world.sightings()),
    )


def _makers(dice: Dice) -> tuple[tuple[Kind, Callable[[], Owned]], ...]:
    """Policies and pods twice: they change most."""
    often: tuple[tuple[Kind, Callable[[], Owned]], ...] = (
        (Kind.POLICY, dice.policy),
        (Kind.POD, dice.pod),
    )
    return (
        *often,
        *often,
        (Kind.NAMESPACE, dice.namespace),
        (Kind.NODE, dice.node),
        (Kind.ATTACHMENT, dice.link),
        (Kind.SIGHTING, dice.sighting),
    )
