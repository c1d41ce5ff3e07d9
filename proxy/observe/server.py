"""The gRPC side of the node's API: each call to the module that answers it."""

import logging
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import grpc.aio

from weft.proxy.api import weft_pb2 as pb
from weft.proxy.api.weft_pb2_grpc import WeftServicer, add_WeftServicer_to_server
from weft.proxy.loop import View
from weft.proxy.observe import nodes, policies, services, tables, workloads
from weft.proxy.observe.counters import counts
from weft.proxy.observe.flows import Flows
from weft.proxy.observe.status import NodeReport

log = logging.getLogger(__name__)

_STOP_GRACE_S = 0.5
_MAX_CALLS = 64


class Servicer(WeftServicer):
    """Answers calls; every answer is made afresh.

    gRPC wants streams to be generator functions themselves, so each call passes its items on.
    """

    def __init__(self, view: View, flows: Flows) -> None:
        self._view, self._flows = view, flows
        self._report = NodeReport(view)

    async def GetStatus(
        self,
        request: pb.GetStatusRequest,
        context: grpc.aio.ServicerContext[pb.GetStatusRequest, pb.NodeStatus],
    ) -> pb.NodeStatus:
        return await self._report.status()

    async def ListServices(
        self,
        request: pb.ListRequest,
        context: grpc.aio.ServicerContext[pb.ListRequest, pb.Service],
    ) -> AsyncIterator[pb.Service]:
        async for item in services.list_services(self._view, request):
            yield item

    async def ListEndpoints(
        self,
        request: pb.ListRequest,
        context: grpc.aio.ServicerContext[pb.ListRequest, pb.Endpoint],
    ) -> AsyncIterator[pb.Endpoint]:
        async for item in services.list_endpoints(self._view, request):
            yield item

    async def ListWorkloads(
        self,
        request: pb.ListRequest,
        context: grpc.aio.ServicerContext[pb.ListRequest, pb.Workload],
    ) -> AsyncIterator[pb.Workload]:
        async for item in workloads.list_workloads(self._view, request):
            yield item

    async def ListPolicies(
        self,
        request: pb.ListRequest,
        context: grpc.aio.ServicerContext[pb.ListRequest, pb.Policy],
    ) -> AsyncIterator[pb.Policy]:
        async for item in policies.list_policies(self._view, request):
            yield item

    async def ListNodes(
        self,
        request: pb.ListRequest,
        context: grpc.aio.ServicerContext[pb.ListRequest, pb.Node],
    ) -> AsyncIterator[pb.Node]:
        async for item in nodes.list_nodes(self._view, request):
            yield item

    async def ListCounters(
        self,
        request: pb.ListCountersRequest,
        context: grpc.aio.ServicerContext[pb.ListCountersRequest, pb.Counter],
    ) -> AsyncIterator[pb.Counter]:
        for count in counts(self._view.tables["counters"]):
            if count.is_drop or not request.drops_only:
                yield pb.Counter(
                    reason=count.reason,
                    direction=count.direction,
                    drop=count.is_drop,
                    packets=count.packets,
                    bytes=count.bytes,
                    meaning=count.meaning,
                )

    # grpc.aio streams from async generator functions, not from functions that return one.
    async def CompareTables(
        self,
        request: pb.CompareTablesRequest,
        context: grpc.aio.ServicerContext[pb.CompareTablesRequest, pb.TableRow],
    ) -> AsyncIterator[pb.TableRow]:
        async for row in tables.compare_tables(self._view, request):
            yield row

    async def WatchFlows(
        self,
        request: pb.WatchFlowsRequest,
        context: grpc.aio.ServicerContext[pb.WatchFlowsRequest, pb.FlowEvent],
    ) -> AsyncIterator[pb.FlowEvent]:
        async for event in self._flows.watch(request):
            yield event


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
