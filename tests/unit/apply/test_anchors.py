"""A Service whose rows do not all fit is not half there."""

import asyncio
from dataclasses import replace

from tests.unit.observe.small_node import FAR, FAR_IP, SERVER_IP, VIP, WEB, SmallNode, running
from weft.bpf.layout import Frontend, FrontendKey
from weft.proxy.apply.ledger import State
from weft.proxy.model.objects import (
    EndpointSlice,
    Kind,
    Protocol,
    Ref,
    Service,
    ServicePort,
    SliceEndpoint,
    SlicePort,
)

KEY = FrontendKey(VIP, 80, 6).pack()
OTHER = Ref("default", "other")
OTHER_KEY = FrontendKey(VIP + 1, 80, 6).pack()


def slice_of(service: Ref, *addresses: object) -> EndpointSlice:
    both = {SERVER_IP: SliceEndpoint(SERVER_IP, True, True, False, "n1", None),
            FAR_IP: SliceEndpoint(FAR_IP, True, True, False, "n2", FAR)}  # fmt: skip
    some = tuple(both[address] for address in (SERVER_IP, FAR_IP) if address in addresses)
    ref = Ref(service.namespace, f"{service.name}-1")
    return EndpointSlice(ref, service.name, (SlicePort("http", Protocol.TCP, 8080),), some)


async def moved(node: SmallNode, record: EndpointSlice) -> None:
    await node.moved(Kind.SLICE, record.ref, record)


def backends(node: SmallNode, key: bytes) -> int | None:
    row = node.tables["frontends"].lookup(key)
    return Frontend.unpack(row).backends if row is not None else None


def test_a_frontend_whose_slots_do_not_fit_is_not_written_and_says_why() -> None:
    async def story() -> None:
        async with running(entries={"slots": 2}) as node:
            service = Service(
                OTHER, "ClusterIP", (VIP + 1,), (ServicePort("http", Protocol.TCP, 80),)
            )
            await moved(node, slice_of(OTHER, SERVER_IP, FAR_IP))
            await node.moved(Kind.SERVICE, OTHER, service)
            assert backends(node, OTHER_KEY) is None
            status = node.view.status("frontends", OTHER_KEY)
            assert status.state is State.ERROR
            assert "not all of its endpoints fit: table slots is full" in status.reason
            assert backends(node, KEY) == 1

    asyncio.run(story())


def test_a_frontend_that_is_there_keeps_the_slots_that_it_had() -> None:
    async def story() -> None:
        async with running(entries={"slots": 1}) as node:
            await moved(node, slice_of(WEB, SERVER_IP, FAR_IP))
            assert backends(node, KEY) == 1
            assert node.view.status("frontends", KEY).state is State.ERROR

    asyncio.run(story())


def test_once_there_is_room_it_is_written() -> None:
    async def story() -> None:
        async with running(entries={"slots": 1}) as node:
            await moved(node, slice_of(WEB, SERVER_IP, FAR_IP))
            await moved(node, slice_of(WEB, FAR_IP))
            assert backends(node, KEY) == 1
            done = lambda: node.view.status("frontends", KEY).state is State.DONE  # noqa: E731
            assert await node.loop.wait_until(done, 30)

    asyncio.run(story())


def test_other_protocols_of_the_same_service_are_served() -> None:
    """A service port is a service of its own: the one that fits works."""

    async def story() -> None:
        async with running(entries={"slots": 2}) as node:
            ports = (ServicePort("http", Protocol.TCP, 80), ServicePort("dns", Protocol.UDP, 53))
            await node.moved(Kind.SERVICE, WEB, Service(WEB, "ClusterIP", (VIP,), ports))
            both = slice_of(WEB, SERVER_IP, FAR_IP)
            one = (SlicePort("dns", Protocol.UDP, 53),)
            udp = replace(both, ref=Ref("default", "web-2"), ports=one)
            await moved(node, replace(udp, endpoints=udp.endpoints[:1]))
            await moved(node, both)
            assert backends(node, FrontendKey(VIP, 53, 17).pack()) == 1

    asyncio.run(story())
