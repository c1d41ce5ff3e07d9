"""Policy at 30,000 pods and 30,000 policies: the full plan, and what one change costs.

Times the pure part, change -> rows; writing them is the applier's. Needs no kernel.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv4Network
from statistics import quantiles

from tests.bench.report import Figure, show
from weft.proxy.model.objects import (
    IPBlock,
    Kind,
    Namespace,
    NetworkPolicy,
    Node,
    Peer,
    Pod,
    PolicyPort,
    Protocol,
    Ref,
    Rule,
    Selector,
    Workload,
)
from weft.proxy.model.world import Change, Key, Record, Settings, World, apply_changes
from weft.proxy.plan.policy import PLANNERS, judgement, workload_keys
from weft.proxy.plan.policy_world import book_of, forget

OWN_NODE, NODES, NAMESPACES, APPS = "n0", 307, 1000, 10  # coprime: local pods spread
EVENTS = 300


@dataclass(frozen=True)
class Size:
    pods: int
    policies: int
    local: int = 100


def name(number: int) -> str:
    return f"ns{number % NAMESPACES}"


def pod(number: int, app: int | None = None) -> Pod:
    node = number % NODES
    address = IPv4Address("10.64.0.0") + node * 256 + 10 + number // NODES
    turn = number // NAMESPACES if app is None else app
    labels = {"app": f"app{turn % APPS}", "pod-template-hash": str(turn % 30), "tier": "web"}
    ref = Ref(name(number), f"p{number}")
    return Pod(ref, f"u{number}", f"n{node}", labels, (address,), False, False)


def policy(number: int) -> NetworkPolicy:
    """One in five has an ipBlock, one in five a namespace selector; the rest stay at home."""
    turn = number // NAMESPACES
    app = Selector((("app", f"app{turn % APPS}"),))
    other = Selector((("app", f"app{(turn + 3) % APPS}"),))
    home = Selector((("kubernetes.io/metadata.name", f"ns{(number * 7) % NAMESPACES}"),))
    block = IPBlock(IPv4Network((int(IPv4Address("172.16.0.0")) + (number % 512) * 256, 24)))
    peer = (Peer(block=block), Peer(other, home), Peer(other), Peer(other), Peer(other))[number % 5]
    rule = Rule((peer,), (PolicyPort(Protocol.TCP, 8000 + turn % 20),))
    ref = Ref(name(number), f"policy{number}")
    return NetworkPolicy(
        ref, app, True, number % 3 == 0, (rule,), (rule,) if number % 3 == 0 else ()
    )


def records(size: Size) -> Iterator[tuple[Kind, Key, Record]]:
    for i in range(NAMESPACES):
        labels = {"kubernetes.io/metadata.name": f"ns{i}", "team": f"t{i % 20}"}
        yield Kind.NAMESPACE, Ref("", f"ns{i}"), Namespace(Ref("", f"ns{i}"), labels)
    for i in range(NODES):
        cidr = IPv4Network((int(IPv4Address("10.64.0.0")) + i * 256, 24))
        address = IPv4Address("192.168.0.0") + i
        yield Kind.NODE, Ref("", f"n{i}"), Node(Ref("", f"n{i}"), (address,), (cidr,))
    for i in range(size.policies):
        one = policy(i)
        yield Kind.POLICY, one.ref, one
    for i in range(size.pods):
        member = pod(i)
        yield Kind.POD, member.ref, member
    for i in range(size.local):
        member = pod(i * NODES)
        yield Kind.ATTACHMENT, f"w{i}", link(i, member)


def link(number: int, member: Pod) -> Workload:
    return Workload(
        f"w{number}", member.ref, member.uid, member.addresses, number, bytes(6), bytes(6)
    )


def world_of(size: Size) -> World:
    changes = (Change(kind, key, None, record) for kind, key, record in records(size))
    return apply_changes(World(Settings(OWN_NODE)), changes)


def full_plan(world: World) -> int:
    """The rows of the full plan, made from nothing."""
    forget()
    rows = sum(1 for p in PLANNERS for key in p.all_keys(world) for _ in p.rows(world, key))
    return rows + len([judgement(world, workload) for workload in world.workloads()])


def turn(world: World, kind: Kind, key: Key, after: Record | None) -> tuple[World, float, int]:
    """One change through keys and rows: the next World, seconds, rows planned."""
    change = Change(kind, key, world.table(kind).get(key), after)
    following = world.with_change(change)
    started = time.perf_counter()
    rows = 0
    for planner in PLANNERS:
        for stale in list(planner.keys(change, world, following)):
            rows += sum(1 for _ in planner.rows(following, stale))
    for stale in workload_keys(change, world, following):
        workload = following.workload(stale)
        rows += workload is not None and bool(judgement(following, workload))
    return following, time.perf_counter() - started, rows


def events(
    world: World, what: str, make: Callable[[int], tuple[Kind, Key, Record | None]], goal: str
) -> Figure:
    spent: list[float] = []
    rows = 0
    book_of(world)
    for i in range(EVENTS):
        world, seconds, planned = turn(world, *make(i))
        spent.append(seconds * 1000)
        rows += planned
    cuts = quantiles(spent, n=100)
    value = f"p50 {cuts[49]:.2f}  p99 {cuts[98]:.2f} ms, {rows / EVENTS:.1f} rows"
    return Figure(what, value, goal)


def relabelled(number: int) -> tuple[Kind, Key, Record | None]:
    """A pod somewhere in the cluster gets another app."""
    member = pod(number * 101, app=number * 3 + 1)
    return Kind.POD, member.ref, member


def relabelled_near(number: int) -> tuple[Kind, Key, Record | None]:
    """A pod of a local workload's namespace becomes a peer that its policy names, or stops."""
    local = (number % 100) * NODES
    peers = (local // NAMESPACES + 3) % APPS
    member = pod(local + NAMESPACES, app=peers + number // 100 % 2)
    return Kind.POD, member.ref, member


def local_policy(number: int) -> tuple[Kind, Key, Record | None]:
    """A policy of a local workload's namespace gets another port."""
    one = policy((number % 100) * NODES)
    port = PolicyPort(Protocol.TCP, 20_000 + number)
    return Kind.POLICY, one.ref, replace(one, ingress=(replace(one.ingress[0], ports=(port,)),))


def wide_policy(number: int) -> tuple[Kind, Key, Record | None]:
    """A policy of a local workload's namespace selects pods of every namespace, or no more."""
    one = policy((number % 100) * NODES)
    peer = Peer(Selector((("app", f"app{number % APPS}"),)), Selector())
    return Kind.POLICY, one.ref, replace(one, ingress=(Rule((peer,)),)) if number % 2 else one


def far_policy(number: int) -> tuple[Kind, Key, Record | None]:
    one = policy(number * NODES + 1)
    return Kind.POLICY, one.ref, replace(one, ingress=())


def relabelled_namespace(number: int) -> tuple[Kind, Key, Record | None]:
    ref = Ref("", f"ns{number}")
    labels = {"kubernetes.io/metadata.name": ref.name, "team": f"t{number % 7}"}
    return Kind.NAMESPACE, ref, Namespace(ref, labels)


def new_node(number: int) -> tuple[Kind, Key, Record | None]:
    ref = Ref("", f"new{number}")
    cidr = IPv4Network((int(IPv4Address("10.128.0.0")) + number * 256, 24))
    return Kind.NODE, ref, Node(ref, (IPv4Address("192.169.0.0") + number,), (cidr,))


def run(size: Size) -> Sequence[Figure]:
    world = world_of(size)
    started = time.perf_counter()
    rows = full_plan(world)
    full_s = time.perf_counter() - started
    return (
        Figure("full plan from nothing", f"{full_s:.2f} s, {rows:,} rows"),
        events(world, "a pod is relabelled", relabelled, ""),
        events(
            world,
            "a pod becomes a local policy's peer",
            relabelled_near,
            "p50 10, p99 300 ms to enforced",
        ),
        events(world, "a namespace is relabelled", relabelled_namespace, ""),
        events(world, "a local policy changes its port", local_policy, ""),
        events(world, "a local policy comes to select all namespaces", wide_policy, ""),
        events(world, "a policy elsewhere changes", far_policy, ""),
        events(world, "a node joins", new_node, ""),
    )


def main() -> None:
    for size in (Size(3_000, 3_000), Size(30_000, 1_000), Size(30_000, 30_000)):
        title = f"policy: {size.pods:,} pods, {size.policies:,} policies, {size.local} local pods"
        show(title, run(size))


if __name__ == "__main__":
    main()
