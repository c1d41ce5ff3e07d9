"""What the daemon answers weft.cni: rows done, not ready, closed."""

import asyncio
import math
from collections.abc import Awaitable, Callable
from ipaddress import ip_address, ip_network

import pytest

from tests.unit.loop.bench import LoopBench, running
from weft.cni.node import LinkMode, NotReady
from weft.cni.spec import Attachment
from weft.proxy.handover import Handovers
from weft.proxy.model.objects import Kind, Node, Pod, Ref, Workload
from weft.proxy.model.world import Settings, World
from weft.proxy.node import DaemonNode, workload_of
from weft.proxy.watch.events import Moved

ATTACHMENT = Attachment(
    container_id="c1",
    ifname="eth0",
    netns="/run/netns/x",
    pod_namespace="default",
    pod_name="web",
    pod_uid="u1",
    addresses=(ip_address("10.244.1.2"),),
    host_ifname="weft0123456789a",
    host_ifindex=7,
    host_mac="02:77:65:66:74:01",
    pod_mac="02:00:00:00:00:05",
    mtu_bytes=1450,
)
WEB = Ref("default", "web")


def pod(uid: str) -> Moved:
    return Moved(Kind.POD, WEB, Pod(WEB, uid, "n1", {}, (), False, False))


def nobody_told() -> Handovers:
    async def announce(_: object) -> bool:
        return True

    return Handovers(lambda: World(Settings("n1")), announce)


def play(story: Callable[[LoopBench, DaemonNode], Awaitable[None]]) -> None:
    async def run() -> None:
        async with running() as bench:
            await story(
                bench,
                DaemonNode(bench.loop, nobody_told(), lambda: math.inf, upgrades=False),
            )

    asyncio.run(run())


def test_an_attachment_becomes_a_workload_named_by_its_link() -> None:
    assert workload_of(ATTACHMENT) == Workload(
        key="weft0123456789a",
        ref=WEB,
        uid="u1",
        addresses=(ip_address("10.244.1.2"),),
        ifindex=7,
        mac=bytes.fromhex("020000000005"),
        host_mac=bytes.fromhex("027765667401"),
    )


def test_a_pod_that_the_watch_knows_is_attached_at_once() -> None:
    async def story(bench: LoopBench, node: DaemonNode) -> None:
        bench.loop.post(pod("u1"))
        await asyncio.wait_for(node.attached(ATTACHMENT), 1)
        assert bench.loop.world.workload(ATTACHMENT.host_ifname) == workload_of(ATTACHMENT)

    play(story)


def test_an_attachment_waits_for_the_news_of_its_pod_by_uid() -> None:
    async def story(bench: LoopBench, node: DaemonNode) -> None:
        bench.loop.post(pod("an earlier pod of the same name"))
        attaching = asyncio.create_task(node.attached(ATTACHMENT))
        await bench.turned()
        await bench.turned()
        assert not attaching.done()
        bench.loop.post(pod("u1"))
        await asyncio.wait_for(attaching, 1)

    play(story)


def test_a_pod_without_news_starts_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("weft.proxy.node.POD_TIMEOUT_S", 0.05)

    async def story(bench: LoopBench, node: DaemonNode) -> None:
        await asyncio.wait_for(node.attached(ATTACHMENT), 1)

    play(story)


def test_a_detached_pod_is_gone_and_an_unknown_one_is_no_error() -> None:
    async def story(bench: LoopBench, node: DaemonNode) -> None:
        bench.loop.post(pod("u1"))
        await node.attached(ATTACHMENT)
        await node.detached(ATTACHMENT)
        await node.detached(ATTACHMENT)
        assert bench.loop.world.workload(ATTACHMENT.host_ifname) is None

    play(story)


def test_the_network_is_not_ready_before_the_node_is_known() -> None:
    async def story(bench: LoopBench, node: DaemonNode) -> None:
        with pytest.raises(NotReady, match="n1 is not known yet"):
            node.network()

    play(story)


def test_the_network_follows_the_nodes_prefixes() -> None:
    async def story(bench: LoopBench, node: DaemonNode) -> None:
        ranges = (ip_network("10.244.1.0/24"), ip_network("fd00:1::/64"))
        own = Node(Ref("", "n1"), (ip_address("192.0.2.1"),), ranges)
        bench.loop.post(Moved(Kind.NODE, own.ref, own))
        await bench.turned()
        network = node.network()
        assert (network.ranges, network.mode) == (ranges, LinkMode.ROUTED)
        assert (network.mtu_bytes, network.route_mtu_bytes) == (1500, 0)

    play(story)


def test_an_upgrade_takes_no_pod_before_its_tables_are_filled() -> None:
    own = Node(Ref("", "n1"), (ip_address("192.0.2.1"),), (ip_network("10.244.1.0/24"),))

    async def story() -> None:
        async with running(listed=False) as bench:
            bench.loop.post(Moved(Kind.NODE, own.ref, own))
            await bench.turned()
            node = DaemonNode(bench.loop, nobody_told(), lambda: math.inf, upgrades=True)
            with pytest.raises(NotReady, match="waits for namespace, pod"):
                node.network()
            bench.list(Kind.NAMESPACE)
            bench.list(Kind.POD, cached=True)
            await bench.turned()
            assert node.network().ranges == own.pod_cidrs

    asyncio.run(story())
