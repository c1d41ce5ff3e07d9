"""A Service beyond the share of its namespace: not served, and said where people look."""

import asyncio
from dataclasses import replace

from tests.unit.observe.small_node import SETTINGS, VIP, SmallNode, running
from weft.bpf.layout import FrontendKey
from weft.proxy.api import weft_pb2 as pb
from weft.proxy.model.objects import Kind, Protocol, Ref, Service, ServicePort
from weft.proxy.observe.service_health import Complaint
from weft.proxy.observe.services import list_services
from weft.proxy.observe.shares import Shares
from weft.proxy.observe.status import NodeReport

# The cluster's one Service takes two frontends.
TIGHT = replace(SETTINGS, table_sizes={"frontends": 4})
LATE = Ref("default", "late")


def late(ports: int) -> Service:
    every = tuple(ServicePort(f"p{n}", Protocol.TCP, 80 + n) for n in range(ports))
    return Service(LATE, "ClusterIP", (VIP + 1,), every, created_ns=1)


async def listed(node: SmallNode) -> pb.Service:
    request = pb.ListRequest(namespace="default", name="late")
    (one,) = [service async for service in list_services(node.view, request)]
    return one


def test_it_is_told_once_each_time_that_it_goes_beyond() -> None:
    async def story() -> None:
        told: list[Complaint] = []
        async with running(settings=TIGHT) as node:
            Shares(node.view, told.append)
            for ports, complaints in ((1, 0), (2, 1), (3, 1), (1, 1), (2, 2)):
                await node.moved(Kind.SERVICE, LATE, late(ports))
                assert len(told) == complaints
        assert (told[0].service, told[0].reason) == (LATE, "BeyondNamespaceShare")
        assert "node n1 does not serve it: beyond the share of namespace default" in told[0].note

    asyncio.run(story())


def test_it_is_not_in_the_kernel_and_its_listing_says_why() -> None:
    async def story() -> None:
        async with running(settings=TIGHT) as node:
            await node.moved(Kind.SERVICE, LATE, late(2))
            key = FrontendKey(VIP + 1, 80, 6).pack()
            assert node.tables["frontends"].lookup(key) is None
            service = await listed(node)
            assert service.status.state == pb.RowStatus.ERROR
            (frontend, *_) = service.ports[0].frontends
            assert "beyond the share of namespace default" in frontend.not_served
            await node.moved(Kind.SERVICE, LATE, late(1))
            assert (await listed(node)).status.state == pb.RowStatus.DONE
            assert await node.view.audit() == ()

    asyncio.run(story())


def test_a_nodes_status_warns_of_it_and_is_in_order() -> None:
    async def story() -> None:
        async with running(settings=TIGHT) as node:
            await node.moved(Kind.SERVICE, LATE, late(2))
            status = await NodeReport(node.view, dict, dict).status()
            (check,) = [check for check in status.checks if check.name == "shares"]
            assert status.healthy
            assert "service default/late" in check.message

    asyncio.run(story())
