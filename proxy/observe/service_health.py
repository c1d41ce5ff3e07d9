"""healthCheckNodePort: load balancers ask each node whether it has endpoints of a Service.

Source: kubernetes pkg/proxy/healthcheck/service_health.go (1.36), down to the bytes. Owns the
listeners: one for each family of a Service with externalTrafficPolicy Local. A port that cannot be
had is said, asked for again and troubles no other Service. `plan.health_checks` says what is told.
"""

import asyncio
import contextlib
import errno
import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus

from weft.proxy.apply.gate import Stage
from weft.proxy.loop import Turn, View
from weft.proxy.model.index import Index
from weft.proxy.model.objects import Kind, Record, Ref, Service
from weft.proxy.observe import web
from weft.proxy.observe.health import Health
from weft.proxy.observe.web import NO_SNIFF, Answer, SocketAddress, WebServer
from weft.proxy.plan.health_checks import Asked, asked_at, asked_of, local_ready

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Complaint:
    """What people who look at a Service must see, as the API's Events say it."""

    service: Ref
    reason: str
    action: str
    note: str


@dataclass(frozen=True, slots=True)
class _Listener:
    addresses: tuple[SocketAddress, ...]
    server: WebServer


class ServiceHealth:
    """Listens where Services say, for as long as `run` does."""

    def __init__(self, view: View, health: Health, complain: Callable[[Complaint], None]) -> None:
        self._view, self._health, self._complain = view, health, complain
        self._world = view.world
        self._follows = False
        self._ports: dict[Asked, int] = {}
        self._listeners: dict[Asked, _Listener] = {}
        self._refused: dict[Asked, str] = {}
        self._counted: dict[Asked, tuple[tuple[object, object], int]] = {}
        self._wake = asyncio.Event()
        view.watch_turns(self._turned)

    def refused(self) -> Mapping[str, str]:
        """The ports that cannot be listened at, with the reason, by Service and family."""
        refused = sorted(self._refused.items())
        return {f"{asked.service}, IPv{asked.version}": why for asked, why in refused}

    async def run(self) -> None:
        """Listen as Services say until cancelled."""
        if self._view.stage is not Stage.STARTING:
            self._follow()
        try:
            while True:
                self._wake.clear()
                await self._listen()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(web.BIND_RETRY_S if self._refused else None):
                        await self._wake.wait()
        finally:
            for listener in self._listeners.values():
                listener.server.close()

    async def answer(self, asked: Asked) -> Answer:
        """What a load balancer is told, whatever path it asks for."""
        ready, in_time = self._ready(asked), self._health.in_time()
        body = {
            "service": {"namespace": asked.service.namespace, "name": asked.service.name},
            "localEndpoints": ready,
            "serviceProxyHealthy": in_time,
        }
        return Answer(
            json.dumps(body, indent="\t").encode(),
            "application/json",
            HTTPStatus.OK if ready and in_time else HTTPStatus.SERVICE_UNAVAILABLE,
            {**NO_SNIFF, "X-Load-Balancing-Endpoint-Weight": str(ready)},
        )

    def _ready(self, asked: Asked) -> int:
        """Counted once for what the World says: load balancers ask often, some Services are large.

        Parts of a World that have not moved are the same objects.
        """
        world, ref = self._world, asked.service
        parts = world.service(ref), world.group(Index.SLICES_BY_SERVICE, ref)
        counted = self._counted.get(asked)
        if counted is None or any(a is not b for a, b in zip(counted[0], parts, strict=True)):
            counted = self._counted[asked] = parts, local_ready(world, asked)
        return counted[1]

    # --- what is wanted ---
    def _turned(self, turn: Turn) -> None:
        """The World of a turn's end: what is told of is in the kernel."""
        self._world = self._view.world
        if turn.stage is Stage.STARTING:
            return
        if not self._follows:
            self._follow()
        for change in turn.changes:
            if change.kind is Kind.SERVICE:
                self._change(change.before, change.after)
            elif change.kind is Kind.LINK and self._ports:
                self._wake.set()

    def _follow(self) -> None:
        self._follows = True
        for service in self._view.world.services():
            self._change(None, service)

    def _change(self, before: Record | None, after: Record | None) -> None:
        wanted, gone = _ports(after), _ports(before).keys()
        for asked in gone - wanted.keys():
            self._ports.pop(asked, None)
            self._counted.pop(asked, None)
        self._ports.update(wanted)
        if gone or wanted:
            self._wake.set()

    # --- what listens ---
    async def _listen(self) -> None:
        wanted = {asked: self._addresses(asked, port) for asked, port in self._ports.items()}
        for asked, listener in [*self._listeners.items()]:
            if wanted.get(asked) != listener.addresses:
                listener.server.close()
                del self._listeners[asked]
        self._refused = {asked: why for asked, why in self._refused.items() if asked in wanted}
        for asked, addresses in wanted.items():
            if asked not in self._listeners:
                await self._open(asked, addresses)

    def _addresses(self, asked: Asked, port: int) -> tuple[SocketAddress, ...]:
        return tuple(SocketAddress(str(a), port) for a in asked_at(self._world, asked.version))

    async def _open(self, asked: Asked, addresses: tuple[SocketAddress, ...]) -> None:
        server = WebServer(addresses, lambda path: partial(self.answer, asked))
        try:
            await server.open()
        except OSError as error:
            # A machine without IPv6 proxies none.
            if error.errno != errno.EAFNOSUPPORT:
                self._refuse(asked, addresses[0].port, str(error))
        else:
            self._listeners[asked] = _Listener(addresses, server)
            self._refused.pop(asked, None)

    def _refuse(self, asked: Asked, port: int, why: str) -> None:
        if self._refused.get(asked) == why:
            return
        self._refused[asked] = why
        node = self._world.settings.node
        note = f'node {node} failed to start healthcheck "{asked.service}" on port {port}: {why}'
        log.error("cannot listen", extra={"service": str(asked.service), "error": note})
        self._complain(Complaint(asked.service, "FailedToStartServiceHealthcheck", "Listen", note))


def _ports(record: Record | None) -> dict[Asked, int]:
    if not isinstance(record, Service):
        return {}
    return dict.fromkeys(asked_of(record), record.health_check_node_port)
