"""Events on Services, against an API server in this process."""

import asyncio
import json
import re
import threading
from collections.abc import Callable

from tests.unit.watch.fake_api import Exchange, FakeApi
from weft.proxy.model.objects import Ref
from weft.proxy.notices import Notices
from weft.proxy.observe.service_health import Complaint

WEB = Ref("default", "web")
TAKEN = Complaint(WEB, "FailedToStartServiceHealthcheck", "Listen", "port 32000: in use")


def service(exchange: Exchange) -> None:
    exchange.json({"metadata": {"name": "web", "uid": "u-1"}})


def created(exchange: Exchange) -> None:
    exchange.json({}, 201)


def refused(exchange: Exchange) -> None:
    exchange.json({"message": "forbidden"}, 403)


def told(*complaints: Complaint, answers: list[Callable[[Exchange], None]]) -> list[Exchange]:
    """What the API was asked, once it has answered all of `answers`."""

    async def story(api: FakeApi) -> None:
        notices = Notices(api.servers(), "n1")
        task = asyncio.create_task(notices.run())
        for complaint in complaints:
            notices.complain(complaint)
        assert await asyncio.to_thread(answered.wait, 10)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    answered = threading.Event()

    def last(exchange: Exchange) -> None:
        answers[-1](exchange)
        answered.set()

    with FakeApi() as api:
        for answer in [*answers[:-1], last]:
            api.answers.put(answer)
        asyncio.run(story(api))
        return api.seen


def test_an_event_stands_where_kubectl_describe_looks_for_it() -> None:
    get, post = told(TAKEN, answers=[service, created])
    assert get.path == "/api/v1/namespaces/default/services/web"
    assert post.path == "/apis/events.k8s.io/v1/namespaces/default/events"
    event = json.loads(post.body)
    assert event["regarding"] == {
        "apiVersion": "v1", "kind": "Service", "namespace": "default", "name": "web", "uid": "u-1"
    }  # fmt: skip
    assert (event["type"], event["reason"], event["action"], event["note"]) == (
        "Warning", "FailedToStartServiceHealthcheck", "Listen", "port 32000: in use"
    )  # fmt: skip
    assert event["reportingInstance"] == "weftd-n1"
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", event["eventTime"])


def test_a_refusal_does_not_keep_the_next_event_back() -> None:
    seen = told(TAKEN, TAKEN, answers=[service, refused, service, created])
    assert [bool(exchange.body) for exchange in seen] == [False, True] * 2


def test_a_note_is_cut_to_what_the_api_takes() -> None:
    long = Complaint(WEB, "Long", "Listen", "\u00e4" * 1000)
    _, post = told(long, answers=[service, created])
    assert json.loads(post.body)["note"] == "\u00e4" * 512
