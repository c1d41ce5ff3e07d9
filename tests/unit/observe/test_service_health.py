"""healthCheckNodePort, rule by rule as kube-proxy has it (services reference, 1.8)."""

import asyncio
import contextlib
import random
import re
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from http import HTTPStatus
from ipaddress import ip_address
from typing import Any

import pytest

from tests.unit.observe import small_node
from tests.unit.observe.small_node import FAR_IP, SERVER, SERVER_IP, WEB, SmallNode, running
from weft.proxy.model.objects import Kind, Protocol, Ref, ServicePort, SliceEndpoint, SlicePort
from weft.proxy.observe import web
from weft.proxy.observe.health import STALE_AFTER_S, Health
from weft.proxy.observe.service_health import Complaint, ServiceHealth
from weft.proxy.plan.health_checks import Asked
from weft.proxy.watch.events import Moved

OTHER = Ref("default", "other")
HERE = SliceEndpoint(SERVER_IP, True, True, False, "n1", SERVER)
THERE = SliceEndpoint(FAR_IP, True, True, False, "n2", None)


class Scene:
    """A node that answers for Services, and what it complained of."""

    def __init__(self, node: SmallNode, clock: Callable[[], float]) -> None:
        self.node = node
        self.complaints: list[Complaint] = []
        self.health = Health(node.view, clock)
        self.services = ServiceHealth(node.view, self.health, self.complaints.append)

    async def expose(self, port: int, ref: Ref = WEB, number: int = 0, **fields: Any) -> None:
        """A load-balanced Service with traffic policy Local; `fields` override."""
        exposed = replace(
            small_node.service(),
            ref=ref,
            type="LoadBalancer",
            cluster_ips=(small_node.VIP + number,),
            ports=tuple(ServicePort(f"p{n}", Protocol.TCP, 80 + n) for n in range(2)),
            external_local=True,
            health_check_node_port=port,
        )
        await self.node.moved(Kind.SERVICE, ref, replace(exposed, **fields))

    async def endpoints(self, *said: SliceEndpoint, ports: int = 1) -> None:
        numbers = tuple(SlicePort(f"p{n}", Protocol.TCP, 8080 + n) for n in range(ports))
        record = replace(small_node.endpoint_slice(), endpoints=said, ports=numbers)
        await self.node.moved(Kind.SLICE, record.ref, record)


@asynccontextmanager
async def scene(clock: Callable[[], float] = lambda: 0.0) -> AsyncIterator[Scene]:
    async with running() as node:
        made = Scene(node, clock)
        task = asyncio.create_task(made.services.run())
        try:
            yield made
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


async def asked(port: int, path: str = "/", host: str = "127.0.0.1") -> tuple[str, str]:
    """Head and body of the answer, once somebody listens."""
    async with asyncio.timeout(10):
        while True:
            try:
                reader, writer = await asyncio.open_connection(host, port)
            except ConnectionError:
                await asyncio.sleep(0.01)
                continue
            writer.write(f"GET {path} HTTP/1.1\r\n\r\n".encode())
            head, _, body = (await reader.read()).decode().partition("\r\n\r\n")
            writer.close()
            return head, body


async def closed(port: int) -> None:
    """Return once nobody listens."""
    async with asyncio.timeout(10):
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except ConnectionError:
                return
            writer.close()
            await asyncio.sleep(0.01)


async def weight(port: int) -> tuple[int, int]:
    """Status code and weight."""
    head, _ = await asked(port)
    found = re.search(r"X-Load-Balancing-Endpoint-Weight: (\d+)\r\n", head)
    assert found
    return int(head.split()[1]), int(found[1])


@pytest.fixture
def port() -> int:
    """The first of three free ones, below those that clients' sockets get."""
    while True:
        first = random.randrange(20_000, 30_000)
        with contextlib.suppress(OSError), contextlib.ExitStack() as held:
            for number in range(first, first + 3):
                held.enter_context(socket.create_server(("", number)))
            return first


def test_the_answer_is_kube_proxys_byte_for_byte(port: int) -> None:
    async def story() -> None:
        async with scene() as made:
            await made.endpoints(HERE, THERE)
            await made.expose(port)
            head, body = await asked(port, "/any/path")
            assert body == (
                '{\n\t"service": {\n\t\t"namespace": "default",\n\t\t"name": "web"\n\t},\n'
                '\t"localEndpoints": 1,\n\t"serviceProxyHealthy": true\n}'
            )
            assert head.startswith("HTTP/1.1 200 OK\r\n")
            for line in (
                "Content-Type: application/json",
                "X-Content-Type-Options: nosniff",
                "X-Load-Balancing-Endpoint-Weight: 1",
            ):
                assert f"{line}\r\n" in head

    asyncio.run(story())


def test_a_node_without_a_local_endpoint_answers_503(port: int) -> None:
    async def story() -> None:
        async with scene() as made:
            await made.endpoints(THERE)
            await made.expose(port)
            head, body = await asked(port)
            assert head.startswith("HTTP/1.1 503 Service Unavailable\r\n")
            assert '"localEndpoints": 0' in body

    asyncio.run(story())


def test_a_terminating_endpoint_drains_and_a_pod_of_two_ports_counts_once(port: int) -> None:
    async def story() -> None:
        async with scene() as made:
            await made.expose(port)
            draining = replace(HERE, ready=False, terminating=True)
            await made.endpoints(draining)
            assert await weight(port) == (503, 0)
            await made.endpoints(HERE, ports=2)
            assert await weight(port) == (200, 1)
            await made.endpoints(HERE, replace(HERE, address=SERVER_IP + 9))
            assert await weight(port) == (200, 2)

    asyncio.run(story())


def test_an_endpoint_of_no_node_is_never_local(port: int) -> None:
    async def story() -> None:
        async with scene() as made:
            await made.endpoints(replace(HERE, node=""))
            await made.expose(port)
            assert await weight(port) == (503, 0)

    asyncio.run(story())


def test_a_stale_proxy_answers_503_but_tells_its_endpoints(port: int) -> None:
    async def story() -> None:
        later_s = asyncio.get_running_loop().time() + STALE_AFTER_S + 1
        async with scene(lambda: later_s) as made:
            await made.expose(port)
            await made.endpoints(HERE)
            assert await weight(port) == (200, 1)
            made.node.loop.post(Moved(Kind.NAMESPACE, Ref("", "waits"), None))
            answer = await made.services.answer(Asked(WEB, 4))
            assert answer.status is HTTPStatus.SERVICE_UNAVAILABLE
            assert answer.body.endswith(b'"localEndpoints": 1,\n\t"serviceProxyHealthy": false\n}')

    asyncio.run(story())


@pytest.mark.parametrize(
    "fields",
    [
        {"external_local": False},
        {"type": "NodePort"},
        {"proxied": False},
        {"cluster_ips": ()},
        {"health_check_node_port": 0},
    ],
    ids=str,
)
def test_nobody_listens_for_a_service_that_is_not_asked_about(
    port: int, fields: dict[str, Any]
) -> None:
    async def story() -> None:
        async with scene() as made:
            await made.expose(port)
            await asked(port)
            await made.expose(port, **fields)
            await closed(port)
            await made.expose(port)
            await asked(port)
            await made.node.moved(Kind.SERVICE, WEB, None)
            await closed(port)

    asyncio.run(story())


def test_each_family_is_told_its_own_endpoints_at_its_own_addresses(port: int) -> None:
    async def story() -> None:
        async with scene() as made:
            await made.endpoints(HERE)
            await made.expose(port, cluster_ips=(small_node.VIP, ip_address("fd00::10")))
            assert await weight(port) == (200, 1)
            head, _ = await asked(port, host="::1")
            assert "Endpoint-Weight: 0\r\n" in head

    asyncio.run(story())


def test_a_port_moves_live_and_two_services_may_swap_theirs(port: int) -> None:
    async def story() -> None:
        async with scene() as made:
            second = port + 1
            await made.expose(port)
            await made.expose(second, OTHER, 1)
            assert '"web"' in (await asked(port))[1]
            await made.expose(port + 2)
            await closed(port)
            await made.expose(port, OTHER, 1)
            assert '"other"' in (await asked(port))[1]
            await made.expose(second)
            assert '"web"' in (await asked(second))[1]
            assert made.complaints == []

    asyncio.run(story())


def test_a_taken_port_is_complained_of_once_harms_nobody_and_is_asked_for_again(
    port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(web, "BIND_RETRY_S", 0.01)

    async def story() -> None:
        async with scene() as made:
            with socket.create_server(("0.0.0.0", port)):
                await made.expose(port)
                await made.expose(port + 1, OTHER, 1)
                await asked(port + 1)
                assert made.services.refused().keys() == {"default/web, IPv4"}
                await made.expose(port + 1, OTHER, 2)
            await asked(port)
            assert made.services.refused() == {}
            (complaint,) = made.complaints
            assert complaint.service == WEB
            assert complaint.reason == "FailedToStartServiceHealthcheck"
            assert complaint.note.startswith(
                f'node n1 failed to start healthcheck "default/web" on port {port}: '
            )

    asyncio.run(story())
