"""Starts and stops everything that answers about the node: probes, metrics, flows, gRPC."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from weft.proxy.loop import View
from weft.proxy.observe.flows import EventSource, Flows
from weft.proxy.observe.health import Health
from weft.proxy.observe.metrics import Metrics
from weft.proxy.observe.server import Servicer, serving
from weft.proxy.observe.service_health import Complaint, ServiceHealth
from weft.proxy.observe.shares import Shares
from weft.proxy.observe.status import NodeReport, Troubles
from weft.proxy.observe.web import NO_SNIFF, PLAIN, Answer, Handler, SocketAddress, WebServer


@dataclass(frozen=True, slots=True)
class Doors:
    """Where the node answers. configuration: what /configz says, by setting."""

    api_socket: Path
    healthz: tuple[SocketAddress, ...]
    metrics: tuple[SocketAddress, ...]
    configuration: Mapping[str, object]
    hard_fail: bool = False
    """A taken port ends the daemon."""


@dataclass(frozen=True, slots=True)
class Observation:
    """What runs: others report to `metrics`."""

    metrics: Metrics


@asynccontextmanager
async def observing(
    view: View,
    doors: Doors,
    events: EventSource,
    troubles: Troubles,
    complain: Callable[[Complaint], None],
    lacks: Sequence[str],
) -> AsyncIterator[Observation]:
    """Answer until the block ends. A taken port is asked for again and stops nothing else.

    troubles: what keeps the source of intent from being read now, with the reason.
    complain: tells those who look at a Service of it. lacks: of the kernel's, and what follows.
    """
    health = Health(view)
    services = ServiceHealth(view, health, complain)
    Shares(view, complain)
    metrics = Metrics(view, health, troubles)
    flows = Flows(lambda: view.world, events, metrics.flow_events_lost.inc)
    report = NodeReport(view, troubles, services.refused, lacks)
    scrapes = {"/metrics": metrics.scrape, **_words(doors.configuration)}
    probes = {"/healthz": health.healthz, "/livez": health.livez}
    async with (
        serving(doors.api_socket, Servicer(view, flows, report)),
        asyncio.TaskGroup() as group,
    ):
        tasks = [group.create_task(work) for work in (
            WebServer(doors.healthz, probes.get).run(hard_fail=doors.hard_fail),
            WebServer(doors.metrics, scrapes.get).run(hard_fail=doors.hard_fail),
            services.run(),
            metrics.measure_lag(),
        )]  # fmt: skip
        try:
            yield Observation(metrics)
        finally:
            for task in tasks:
                task.cancel()


def _words(configuration: Mapping[str, object]) -> Mapping[str, Handler]:
    """What never changes. /proxyMode: which of kube-proxy's modes; none of them."""
    settings = json.dumps({"weft": configuration}).encode()
    return {
        "/healthz": _always(Answer(b"ok", PLAIN, headers=NO_SNIFF)),
        "/proxyMode": _always(Answer(b"weft", PLAIN, headers=NO_SNIFF)),
        "/configz": _always(Answer(settings, "application/json", headers=NO_SNIFF)),
    }


def _always(answer: Answer) -> Handler:
    async def handler() -> Answer:
        return answer

    return handler
