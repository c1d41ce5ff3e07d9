"""A list and watch of one kind against an API server that does all that real ones do."""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import ClassVar

import pytest

from tests.unit.watch.fake_api import Exchange, FakeApi, event, namespace, page
from weft.proxy.model.objects import Kind, Ref
from weft.proxy.watch import kube
from weft.proxy.watch.api import ApiError, ApiServers, ApiUnreachable, Credentials
from weft.proxy.watch.events import Event, Listed, Moved, Refused
from weft.proxy.watch.kube import Health, KindWatch, Resource

NAMESPACES = Resource(Kind.NAMESPACE, "/api/v1/namespaces")
Eventually = Callable[[Callable[[], bool]], None]


class Watching:
    """One KindWatch on a thread and all that it posted."""

    started: ClassVar[list["Watching"]] = []

    def __init__(self, servers: ApiServers, resource: Resource = NAMESPACES) -> None:
        self.events: list[Event] = []
        self.health = Health()
        self.stopped = threading.Event()
        self.watch = KindWatch(resource, servers, self.events.append, self.health, self.stopped)
        self.thread = threading.Thread(target=self.watch.run, daemon=True)

    def start(self) -> "Watching":
        self.started.append(self)
        self.thread.start()
        return self

    def names(self) -> list[str]:
        """What was posted, in order: [a,b] listed, +a moved, -a gone, !a refused."""
        return [_name(event) for event in self.events]


def _name(event: Event) -> str:
    if isinstance(event, Listed):
        return f"[{','.join(sorted(str(key) for key in event.records))}]"
    if isinstance(event, Moved):
        return ("-" if event.record is None else "+") + str(event.key)
    return f"!{event.broken.ref}"


@pytest.fixture(autouse=True)
def quick_backoff(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("weft.proxy.watch.backoff.FIRST_S", 0.01)
    monkeypatch.setattr("weft.proxy.watch.backoff.LAST_S", 0.02)


@pytest.fixture
def api() -> Iterator[FakeApi]:
    with FakeApi() as one:
        yield one
        for watching in Watching.started:
            watching.stopped.set()
    while Watching.started:
        Watching.started.pop().thread.join(10)


def stream(*lines: bytes, hold: bool = True) -> Callable[[Exchange], None]:
    """A watch that says `lines`, then stays open or ends."""

    def answer(exchange: Exchange) -> None:
        exchange.start_stream()
        for line in lines:
            exchange.chunk(line)
        if not hold:
            exchange.end_stream()
        else:
            exchange.stopping.wait(30)
            exchange.hang_up()

    return answer


def listing(*names: str, version: str = "10", more: str = "") -> Callable[[Exchange], None]:
    items = [namespace(name) for name in names]
    return lambda exchange: exchange.json(page(*items, version=version, more=more))


def test_a_list_comes_in_pages_and_is_posted_once(api: FakeApi, eventually: Eventually) -> None:
    api.answers.put(listing("a", more="next"))
    api.answers.put(listing("b"))
    watching = Watching(api.servers()).start()
    eventually(lambda: watching.names() == ["[a,b]"])
    assert api.seen[1].query["continue"] == "next"
    assert api.seen[0].query["limit"] == "500"


def test_a_watch_goes_on_from_the_list_and_posts_what_moves(
    api: FakeApi, eventually: Eventually
) -> None:
    api.answers.put(listing("a", version="7"))
    api.answers.put(stream(event("ADDED", namespace("b")), event("DELETED", namespace("a"))))
    watching = Watching(api.servers()).start()
    eventually(lambda: watching.names() == ["[a]", "+b", "-a"])
    assert api.seen[1].query["resourceVersion"] == "7"
    assert api.seen[1].query["allowWatchBookmarks"] == "true"


def test_an_event_cut_in_two_chunks_is_one_event(api: FakeApi, eventually: Eventually) -> None:
    line = event("ADDED", namespace("b"))
    api.answers.put(listing())
    api.answers.put(stream(line[:20], line[20:]))
    watching = Watching(api.servers()).start()
    eventually(lambda: watching.names() == ["[]", "+b"])


def test_a_watch_that_breaks_resumes_where_its_last_bookmark_stood(
    api: FakeApi, eventually: Eventually
) -> None:
    api.answers.put(listing(version="7"))
    bookmark = event("BOOKMARK", {"kind": "Namespace", "metadata": {"resourceVersion": "99"}})
    api.answers.put(stream(bookmark, b'{"type": "ADDED", "obj', hold=False))
    api.answers.put(stream(event("ADDED", namespace("c"))))
    watching = Watching(api.servers()).start()
    eventually(lambda: watching.names() == ["[]", "+c"])
    assert api.seen[2].query["resourceVersion"] == "99"


@pytest.mark.parametrize("where", ["status", "stream"])
def test_an_expired_watch_lists_again_and_what_the_list_lacks_is_gone(
    api: FakeApi, eventually: Eventually, where: str
) -> None:
    gone = {"kind": "Status", "code": 410, "message": "too old resource version"}
    api.answers.put(listing("a", "b"))
    if where == "status":
        api.answers.put(lambda exchange: exchange.json(gone, status=410))
    else:
        api.answers.put(stream(event("ERROR", gone)))
    api.answers.put(listing("b"))
    watching = Watching(api.servers()).start()
    eventually(lambda: watching.names() == ["[a,b]", "[b]"])


def test_a_server_in_trouble_is_asked_again_until_it_answers(
    api: FakeApi, eventually: Eventually
) -> None:
    for _ in range(3):
        api.answers.put(lambda exchange: exchange.json({"message": "overload"}, status=503))
    api.answers.put(listing("a"))
    watching = Watching(api.servers()).start()
    eventually(lambda: watching.names() == ["[a]"])
    assert watching.health.failures == 3


def test_a_kind_that_the_server_is_too_old_for_is_listed_as_empty_and_asked_for_again(
    api: FakeApi, eventually: Eventually
) -> None:
    api.answers.put(lambda exchange: exchange.json({"message": "no such path"}, status=404))
    api.answers.put(listing("a"))
    young = Resource(Kind.NAMESPACE, "/api/v1/namespaces", since="1.33")
    watching = Watching(api.servers(), young).start()
    eventually(lambda: watching.names() == ["[]", "[a]"])
    assert watching.health.failures == 0


def test_a_silent_connection_is_given_up_after_the_read_time_out(
    api: FakeApi, eventually: Eventually, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kube, "SILENCE_S", 0.1)
    api.answers.put(listing("a"))
    api.answers.put(stream())
    api.answers.put(stream(event("ADDED", namespace("b"))))
    watching = Watching(api.servers()).start()
    eventually(lambda: watching.names() == ["[a]", "+b"])
    assert watching.health.failures == 0, "silence is no failure: the server may have no news"


def test_an_object_that_cannot_be_understood_stops_nothing(
    api: FakeApi, eventually: Eventually
) -> None:
    bad = {"metadata": {"name": "bad", "namespace": "x"}, "spec": {"ports": [{"port": "many"}]}}
    good = {"metadata": {"name": "good", "namespace": "x"}, "spec": {"clusterIP": "10.96.0.1"}}
    api.answers.put(lambda exchange: exchange.json(page()))
    api.answers.put(stream(event("ADDED", bad), event("ADDED", good)))
    watching = Watching(api.servers(), Resource(Kind.SERVICE, "/api/v1/services")).start()
    eventually(lambda: watching.names() == ["[]", "!x/bad", "+x/good"])
    refused = next(e for e in watching.events if isinstance(e, Refused))
    assert refused.broken.ref == Ref("x", "bad")


def test_the_next_server_is_asked_when_one_does_not_answer(api: FakeApi) -> None:
    servers = api.servers("http://127.0.0.1:1", api.url)
    api.answers.put(lambda exchange: exchange.json({"ok": True}))
    assert servers.get("/x", {}, 1.0).status == 200


def test_no_server_at_all_is_an_error_that_names_each(api: FakeApi) -> None:
    with pytest.raises(ApiUnreachable, match=r"127\.0\.0\.1:1.*127\.0\.0\.1:2"):
        api.servers("http://127.0.0.1:1", "http://127.0.0.1:2").get("/x", {}, 1.0)


def test_a_refused_token_is_read_again_from_its_file(api: FakeApi, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("old\n")
    servers = api.servers(credentials=Credentials(token))
    api.answers.put(lambda exchange: exchange.json({}, status=401))
    api.answers.put(lambda exchange: exchange.json({}))
    with pytest.raises(ApiError, match="401"):
        servers.get("/x", {}, 1.0)
    token.write_text("new\n")
    servers.get("/x", {}, 1.0)
    assert [exchange.authorization for exchange in api.seen] == ["Bearer old", "Bearer new"]
