"""The gRPC side of the node's API: each call to the module that answers it."""

import logging
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import TypeVar

import grpc.aio

from weft.proxy.api import weft_pb2 as pb
from weft.proxy.api.weft_pb2_grpc import WeftServicer, add_WeftServicer_to_server
from weft.proxy.loop import View
from weft.proxy.observe import nodes, policies, services, tables, workloads
from weft.proxy.observe.clients import UnknownClient
from weft.proxy.observe.counters import Count, counts
from weft.proxy.observe.flows import Flows
from weft.proxy.observe.status import NodeReport

log = logging.getLogger(__name__)

_STOP_GRACE_S = 0.5
_MAX_CALLS = 64
PAGE_ITEMS = 32
"""Made without a pause, so not so many that probes and CNI would wait."""

_T = TypeVar("_T")


class Servicer(WeftServicer):
    """Answers calls; every answer is made afresh.

    gRPC wants streams to be generator functions themselves, so each call passes its items on.
    """

    def __init__(self, view: View, flows: Flows, report: NodeReport) -> None:
        self._view, self._flows, self._report = view, flows, report

    async def GetStatus(
        self,
        request: pb.GetStatusRequest,
        context: grpc.aio.ServicerContext[pb.GetStatusRequest, pb.NodeStatus],
    ) -> pb.NodeStatus:
        return await self._report.status()

    async def ListServices(
        self,
        request: pb.ListRequest,
        context: grpc.aio.ServicerContext[pb.ListRequest, pb.ServiceList],
    ) -> AsyncIterator[pb.ServiceList]:
        try:
            async for page in paged(services.list_services(self._view, request)):
                yield pb.ServiceList(items=page)
        except UnknownClient as error:
            await context.abort(grpc.StatusCode.NOT_FOUND, str(error))

    async def ListEndpoints(
        self,
        request: pb.ListRequest,
        context: grpc.aio.ServicerContext[pb.ListRequest, pb.EndpointList],
    ) -> AsyncIterator[pb.EndpointList]:
        async for page in paged(services.list_endpoints(self._view, request)):
            yield pb.EndpointList(items=page)

    async def ListWorkloads(
        self,
        request: pb.ListRequest,
        context: grpc.aio.ServicerContext[pb.ListRequest, pb.WorkloadList],
    ) -> AsyncIterator[pb.WorkloadList]:
        async for page in paged(workloads.list_workloads(self._view, request)):
            yield pb.WorkloadList(items=page)

    async def ListPolicies(
        self,
        request: pb.ListRequest,
        context: grpc.aio.ServicerContext[pb.ListRequest, pb.PolicyList],
    ) -> AsyncIterator[pb.PolicyList]:
        async for page in paged(policies.list_policies(self._view, request)):
            yield pb.PolicyList(items=page)

    async def ListNodes(
        self,
        request: pb.ListRequest,
        context: grpc.aio.ServicerContext[pb.ListRequest, pb.NodeList],
    ) -> AsyncIterator[pb.NodeList]:
        async for page in paged(nodes.list_nodes(self._view, request)):
            yield pb.NodeList(items=page)

    async def ListCounters(
        self,
        request: pb.ListCountersRequest,
        context: grpc.aio.ServicerContext[pb.ListCountersRequest, pb.CounterList],
    ) -> pb.CounterList:
        every = counts(self._view.tables["counters"])
        return pb.CounterList(
            items=[_counter(c) for c in every if c.is_drop or not request.drops_only]
        )

    async def CompareTables(
        self,
        request: pb.CompareTablesRequest,
        context: grpc.aio.ServicerContext[pb.CompareTablesRequest, pb.TableRowList],
    ) -> AsyncIterator[pb.TableRowList]:
        async for page in paged(tables.compare_tables(self._view, request)):
            yield pb.TableRowList(items=page)

    async def WatchFlows(
        self,
        request: pb.WatchFlowsRequest,
        context: grpc.aio.ServicerContext[pb.WatchFlowsRequest, pb.FlowEvent],
    ) -> AsyncIterator[pb.FlowEvent]:
        async for event in self._flows.watch(request):
            yield event


def _counter(count: Count) -> pb.Counter:
    return pb.Counter(
        reason=count.reason,
        direction=count.direction,
        drop=count.is_drop,
        packets=count.packets,
        bytes=count.bytes,
        meaning=count.meaning,
    )


async def paged(items: AsyncIterator[_T]) -> AsyncIterator[list[_T]]:
    """The items in pages: a message each would cost more than what is in it."""
    page: list[_T] = []
    async for item in items:
        page.append(item)
        if len(page) == PAGE_ITEMS:
            yield page
            page = []
    if page:
        yield page


@asynccontextmanager
async def serving(path: Path, servicer: WeftServicer) -> AsyncIterator[None]:
    """Answer at the unix socket `path`, which root alone may use (CVE-2022-29178 is why)."""
    server = grpc.aio.server(maximum_concurrent_rpcs=_MAX_CALLS)
    add_WeftServicer_to_server(servicer, server)
    path.parent.mkdir(parents=True, exist_ok=True)
    with _private_files():
        server.add_insecure_port(f"unix:{path}")
    await server.start()
    log.info("answering", extra={"socket": str(path)})
    try:
        yield
    finally:
        await server.stop(_STOP_GRACE_S)


@contextmanager
def _private_files() -> Iterator[None]:
    """gRPC makes the socket and offers no way to its mode; a chmod would come too late."""
    mask = os.umask(0o177)
    try:
        yield
    finally:
        os.umask(mask)
