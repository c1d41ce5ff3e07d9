"""/healthz and /livez, rule by rule as kube-proxy has them (services reference, 1.9)."""

import asyncio
import json
import re
from dataclasses import replace
from http import HTTPStatus
from typing import Any

from tests.unit.observe import small_node
from tests.unit.observe.small_node import SmallNode, running
from weft.proxy.model.objects import Kind, Namespace, Ref
from weft.proxy.observe.health import STALE_AFTER_S, Health
from weft.proxy.observe.web import Answer
from weft.proxy.watch.events import Moved

LONG_S = STALE_AFTER_S + 1


def body(answer: Answer) -> dict[str, Any]:
    fields: dict[str, Any] = json.loads(answer.body)
    return fields


def without_times(answer: Answer) -> str:
    """The body as it is, each time of Go's RFC 3339 replaced by T."""
    return re.sub(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", "T", answer.body.decode())


async def updated(node: SmallNode) -> None:
    """One turn that changes something."""
    await node.moved(Kind.NAMESPACE, Ref("", "fresh"), Namespace(Ref("", "fresh"), {}))


def test_a_healthy_node_answers_200_in_kube_proxys_json() -> None:
    async def story() -> None:
        async with running() as node:
            health = Health(node.view)
            await updated(node)
            answer = await health.healthz()
            assert answer.status is HTTPStatus.OK
            assert answer.content_type == "application/json"
            assert answer.headers["X-Content-Type-Options"] == "nosniff"
            fields = body(answer)
            assert fields["lastUpdated"] == fields["currentTime"]
            assert without_times(answer) == (
                '{"lastUpdated":"T","currentTime":"T","nodeEligible":true,"healthy":true,'
                '"status":{"IPv4":{"lastUpdated":"T","healthy":true}}}'
            )

    asyncio.run(story())


def test_livez_does_not_speak_of_eligibility() -> None:
    async def story() -> None:
        async with running() as node:
            health = Health(node.view)
            await updated(node)
            assert without_times(await health.livez()) == (
                '{"lastUpdated":"T","currentTime":"T","healthy":true,'
                '"status":{"IPv4":{"lastUpdated":"T","healthy":true}}}'
            )

    asyncio.run(story())


def test_only_the_families_of_the_nodes_pods_are_told() -> None:
    async def story() -> None:
        async with running() as node:
            health = Health(node.view)
            await updated(node)
            assert body(await health.livez())["status"].keys() == {"IPv4"}

    asyncio.run(story())


def test_a_starting_daemon_is_healthy_whatever_waits() -> None:
    async def story() -> None:
        node = SmallNode()
        node.loop.post(Moved(Kind.NAMESPACE, Ref("", "a"), None))
        health = Health(node.view, clock=_later)
        answer = await health.livez()
        assert answer.status is HTTPStatus.OK
        assert "status" not in body(answer)

    asyncio.run(story())


def _later() -> float:
    return asyncio.get_running_loop().time() + LONG_S


def test_an_event_that_waits_too_long_makes_both_endpoints_503() -> None:
    async def story() -> None:
        async with running() as node:
            health = Health(node.view, clock=_later)
            await updated(node)
            node.loop.post(Moved(Kind.NAMESPACE, Ref("", "waits"), None))
            for answer in (await health.healthz(), await health.livez()):
                fields = body(answer)
                assert answer.status is HTTPStatus.SERVICE_UNAVAILABLE
                assert fields["healthy"] is False
                assert fields["status"]["IPv4"]["healthy"] is False
                assert fields["lastUpdated"] < fields["currentTime"]

    asyncio.run(story())


def test_an_idle_daemon_is_never_stale() -> None:
    async def story() -> None:
        async with running() as node:
            health = Health(node.view, clock=_later)
            await updated(node)
            assert (await health.healthz()).status is HTTPStatus.OK

    asyncio.run(story())


def test_a_node_that_is_gone_gets_no_traffic_but_the_daemon_lives() -> None:
    async def story() -> None:
        async with running() as node:
            health = Health(node.view)
            await node.moved(Kind.NODE, Ref("", "n1"), None)
            answer = await health.healthz()
            assert answer.status is HTTPStatus.SERVICE_UNAVAILABLE
            assert body(answer)["nodeEligible"] is False
            assert body(answer)["healthy"] is True
            assert (await health.livez()).status is HTTPStatus.OK

    asyncio.run(story())


def test_a_node_that_leaves_gets_no_traffic() -> None:
    async def story() -> None:
        async with running() as node:
            health = Health(node.view)
            own = small_node.nodes()[0]
            await node.moved(Kind.NODE, own.ref, replace(own, leaving=True))
            assert (await health.healthz()).status is HTTPStatus.SERVICE_UNAVAILABLE
            assert (await health.livez()).status is HTTPStatus.OK

    asyncio.run(story())


def test_every_answer_is_counted_by_its_code() -> None:
    async def story() -> None:
        async with running() as node:
            health = Health(node.view)
            await health.healthz()
            await node.moved(Kind.NODE, Ref("", "n1"), None)
            await health.healthz()
            await health.livez()
            assert health.healthz_codes == {200: 1, 503: 1}
            assert health.livez_codes == {200: 1}

    asyncio.run(story())
