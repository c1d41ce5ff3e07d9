"""Flow records: names, reasons, policies; slow clients lose and are told."""

import asyncio
import time
from collections.abc import AsyncGenerator
from ipaddress import ip_address

from tests.unit.observe.pipe import Pipe
from tests.unit.observe.small_node import (
    CLIENT_IP,
    FAR_IP,
    SERVER_IP,
    VIP,
    SmallNode,
    running,
)
from weft.bpf.layout import (
    UNSPECIFIED,
    Address,
    Direction,
    Event,
    Reason,
    Tuple,
    Workload,
    pack_address,
)
from weft.proxy.api import weft_pb2 as pb
from weft.proxy.observe import flows
from weft.proxy.observe.flows import Flows, record

SYN = 2


def event(
    source: Address = CLIENT_IP,
    destination: Address = SERVER_IP,
    *,
    reason: Reason = Reason.DELIVERED,
    vip: Address = UNSPECIFIED,
    rule_set: int = 0,
    port: int = 8080,
) -> Event:
    packet = Tuple(src=source, dst=destination, sport=40000, dport=port, proto=6)
    return Event(
        time_ns=time.monotonic_ns(), set=rule_set, revision=0, peer=0, tuple=packet, vip=vip,
        vip_port=80 if vip != UNSPECIFIED else 0, reason=reason, direction=Direction.FROM_POD,
        port_class=0, tcp_flags=SYN, family=4, ifindex=10, bytes=60,
    )  # fmt: skip


def judging_set(node: SmallNode) -> int:
    row = node.tables["workloads"].lookup(pack_address(SERVER_IP))
    assert row is not None
    return Workload.unpack(row).ingress_set


def test_both_ends_carry_the_names_of_their_pods() -> None:
    async def story() -> None:
        async with running() as node:
            flow = record(node.view.world, event())
            assert (flow.source.kind, flow.source.name) == ("pod", "default/client")
            assert (flow.destination.kind, flow.destination.name) == ("pod", "default/server")
            assert flow.tcp_flags == "SYN"
            assert flow.link == "weft0000000000a" or flow.link.startswith("weft")
            assert not flow.dropped

    asyncio.run(story())


def test_services_nodes_gateways_and_strangers_are_told_apart() -> None:
    async def story() -> None:
        async with running() as node:
            for address, kind, name in (
                (VIP, "service", "default/web"),
                (FAR_IP, "pod", "default/far"),
                (ip_address("192.0.2.2"), "node", "n2"),
                (ip_address("10.244.2.1"), "node", "n2"),
                (ip_address("198.51.100.9"), "outside", ""),
            ):
                end = record(node.view.world, event(address)).source
                assert (end.kind, end.name) == (kind, name)

    asyncio.run(story())


def test_a_translated_flow_says_what_was_dialled() -> None:
    async def story() -> None:
        async with running() as node:
            flow = record(node.view.world, event(vip=VIP))
            assert (flow.dialled.name, flow.dialled.port) == ("default/web", 80)
            assert not record(node.view.world, event()).HasField("dialled")

    asyncio.run(story())


def test_a_policy_drop_names_the_policies_and_the_nearest_rule() -> None:
    async def story() -> None:
        async with running() as node:
            drop = event(
                FAR_IP, reason=Reason.POLICY_INGRESS, rule_set=judging_set(node), port=8080
            )
            flow = record(node.view.world, drop)
            assert flow.dropped
            assert flow.reason == "policy-ingress"
            assert list(flow.policies) == ["default/only-client"]
            assert "ingress[0] of default/only-client" in flow.explanation

    asyncio.run(story())


def test_a_drop_by_rules_of_before_is_not_explained_by_those_of_now() -> None:
    async def story() -> None:
        async with running() as node:
            drop = event(FAR_IP, reason=Reason.POLICY_INGRESS, rule_set=1)
            assert record(node.view.world, drop).explanation == "the rules have changed since"

    asyncio.run(story())


def test_a_records_time_is_the_clocks_and_not_the_kernels() -> None:
    async def story() -> None:
        async with running() as node:
            flow = record(node.view.world, event())
            assert abs(flow.time.ToMicroseconds() / 1e6 - time.time()) < 5

    asyncio.run(story())


async def first(node: SmallNode, pipe: Pipe, request: pb.WatchFlowsRequest, *events: Event) -> str:
    """The reason of the first flow that a client with `request` gets of `events`."""
    watching = Flows(lambda: node.view.world, pipe, lambda _: None).watch(request)
    waiting = asyncio.ensure_future(anext(watching))
    await asyncio.sleep(0)
    pipe.send(*events)
    async with asyncio.timeout(10):
        got = await waiting
    await watching.aclose()
    return got.flow.reason


def test_a_client_gets_what_it_asked_for_and_nothing_else() -> None:
    async def story() -> None:
        drop = event(FAR_IP, reason=Reason.NO_WORKLOAD)
        async with running() as node:
            pipe = Pipe()
            drops = pb.WatchFlowsRequest(drops_only=True)
            assert await first(node, pipe, drops, event(), drop) == "no-workload"
            far = pb.WatchFlowsRequest(namespace="default", pod="far")
            assert await first(node, pipe, far, event(), drop) == "no-workload"
            client = pb.WatchFlowsRequest(pod="client")
            assert await first(node, pipe, client, drop, event()) == "delivered"

    asyncio.run(story())


def test_a_slow_client_loses_the_newest_and_is_told_how_many() -> None:
    async def story() -> None:
        async with running() as node:
            pipe, lost, all_lost = Pipe(), list[int](), asyncio.Event()

            def count(events: int) -> None:
                lost.append(events)
                if sum(lost) == 5:
                    all_lost.set()

            watching = Flows(lambda: node.view.world, pipe, count).watch(pb.WatchFlowsRequest())
            waiting = asyncio.ensure_future(anext(watching))
            await asyncio.sleep(0)
            pipe.send(event())
            await waiting
            pipe.send(*[event()] * (flows.QUEUE_EVENTS + 5))
            await asyncio.wait_for(all_lost.wait(), 10)
            assert (await anext(watching)).lost == 5
            assert (await anext(watching)).flow.reason == "delivered"
            await watching.aclose()

    asyncio.run(story())


def test_a_storm_of_events_leaves_room_for_others() -> None:
    async def story() -> None:
        async with running() as node:
            pipe = Pipe()
            watching = Flows(lambda: node.view.world, pipe, lambda _: None).watch(
                pb.WatchFlowsRequest()
            )
            waiting = asyncio.ensure_future(anext(watching))
            await asyncio.sleep(0)
            shares = 10
            turns = asyncio.create_task(_turns_until(waiting, watching, shares))
            pipe.send(*[event()] * (shares * flows.SHARE_EVENTS))
            assert await asyncio.wait_for(turns, 10) >= shares
            await watching.aclose()

    asyncio.run(story())


async def _turns_until(
    first_flow: "asyncio.Future[pb.FlowEvent]",
    watching: "AsyncGenerator[pb.FlowEvent, None]",
    shares: int,
) -> int:
    """How often another task got its turn until all flows were there."""
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    counting = asyncio.create_task(count())
    await first_flow
    for _ in range(shares * flows.SHARE_EVENTS - 1):
        await anext(watching)
    counting.cancel()
    return turns
