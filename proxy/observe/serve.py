"""Starts and stops everything that answers about the node: probes, metrics, flows, gRPC."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path

from weft.proxy.loop import View
from weft.proxy.observe import health, metrics
from weft.proxy.observe.flows import EventSource, Flows
from weft.proxy.observe.health import Health
from weft.proxy.observe.metrics import Metrics
from weft.proxy.observe.server import Servicer, serving
from weft.proxy.observe.status import Troubles
from weft.proxy.observe.web import Answer, WebServer

_PLAIN = "text/plain; charset=utf-8"
# kube-proxy's defaults: probes come from other machines (load balancers), scrapes from this one.
HEALTH_HOSTS = ("0.0.0.0", "::")
METRICS_HOSTS = ("127.0.0.1", "::1")


@dataclass(frozen=True, slots=True)
class Observation:
    """What runs: others report to `metrics`, and `health_port` says where probes are answered."""

    metrics: Metrics
    health: Health


@asynccontextmanager
async def observing(
    view: View, api_socket: Path, events: EventSource, troubles: Troubles
) -> AsyncIterator[Observation]:
    """Answer until the block ends. A taken port is asked for again and stops nothing else.

    troubles: what keeps the source of intent from being read now, with the reason.
    """
    fitness = Health(view)
    measured = Metrics(view, fitness, troubles)
    flows = Flows(lambda: view.world, events, measured.flow_events_lost.inc)
    probes = WebServer(
        HEALTH_HOSTS, health.PORT, {"/healthz": fitness.healthz, "/livez": fitness.livez}
    )
    scrapes = WebServer(
        METRICS_HOSTS,
        metrics.PORT,
        {"/metrics": measured.scrape, "/healthz": _ok, "/proxyMode": _proxy_mode},
    )
    async with serving(api_socket, Servicer(view, flows, troubles)), asyncio.TaskGroup() as group:
        tasks = [group.create_task(work) for work in (
            probes.run(), scrapes.run(), measured.measure_lag()
        )]  # fmt: skip
        try:
            yield Observation(measured, fitness)
        finally:
            for task in tasks:
                task.cancel()


async def _ok() -> Answer:
    return Answer(b"ok", _PLAIN, HTTPStatus.OK)


async def _proxy_mode() -> Answer:
    """Asked by the upstream suite: which of kube-proxy's modes; none of them."""
    return Answer(b"weft", _PLAIN, HTTPStatus.OK)
