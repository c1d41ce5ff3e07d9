"""Owns the API's side of the World: one list and watch per kind, each on a thread of its own.

Client-side read time-outs find half-open connections; a watch resumes where it stood; an expired
one lists again, and what the list lacks is gone. Reading and decoding leave the loop alone: it gets
records. Never keeps an object.
"""

import logging
import random
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from msgspec import DecodeError
from urllib3 import BaseHTTPResponse
from urllib3.exceptions import HTTPError, ReadTimeoutError

from weft.proxy.model.decode import (
    EventType,
    Status,
    WatchEvent,
    decode_event,
    decode_list,
)
from weft.proxy.model.objects import Broken, Kind
from weft.proxy.model.world import Key, Record
from weft.proxy.watch.api import ApiError, ApiServers, ApiUnreachable
from weft.proxy.watch.backoff import Backoff
from weft.proxy.watch.events import Listed, Moved, Post, Refused, key_of

log = logging.getLogger(__name__)

PAGE_SIZE = 500
# The API server sends a bookmark about every minute (apiserver storage/cacher bookmarkFrequency).
BOOKMARK_S = 60.0
SILENCE_S = 3 * BOOKMARK_S
LIST_TIMEOUT_S = 60.0
GONE, NOT_FOUND = 410, 404


@dataclass(frozen=True, slots=True)
class Resource:
    """Where a kind is listed, and which of its objects Weft reads.

    since: the version of Kubernetes that serves it first; an older one has none of the kind.
    """

    kind: Kind
    path: str
    labels: str = ""
    since: str = ""


RESOURCES = (
    Resource(Kind.NODE, "/api/v1/nodes"),
    Resource(Kind.NAMESPACE, "/api/v1/namespaces"),
    Resource(Kind.POD, "/api/v1/pods"),
    Resource(Kind.POLICY, "/apis/networking.k8s.io/v1/networkpolicies"),
    # The selectors of kube-proxy (cmd/kube-proxy/app/server.go).
    Resource(Kind.SERVICE, "/api/v1/services", "!service.kubernetes.io/service-proxy-name"),
    Resource(
        Kind.SLICE,
        "/apis/discovery.k8s.io/v1/endpointslices",
        "!service.kubernetes.io/headless",
    ),
    Resource(Kind.SERVICE_CIDR, "/apis/networking.k8s.io/v1/servicecidrs", since="1.33"),
)


class NotServed(Exception):
    """The server is older than the kind."""


class Expired(Exception):
    """The server no longer has the version that a watch wanted to go on from."""


@dataclass(slots=True)
class Health:
    """How one watch is doing, for readers. Times are monotonic."""

    heard_s: float = float("-inf")
    """When the server last said anything, bookmarks included."""
    lists: int = 0
    failures: int = 0
    error: str = ""


@dataclass(slots=True)
class Kube:
    """The watches of all kinds. `start` once; `stop` lets each end after its current read."""

    servers: ApiServers
    post: Post
    health: dict[Kind, Health] = field(default_factory=dict)
    _stopped: threading.Event = field(default_factory=threading.Event)

    def start(self) -> None:
        for resource in RESOURCES:
            health = self.health[resource.kind] = Health()
            watch = KindWatch(resource, self.servers, self.post, health, self._stopped)
            threading.Thread(target=watch.run, name=f"watch-{resource.kind}", daemon=True).start()

    def stop(self) -> None:
        self._stopped.set()

    def heard_s(self) -> float:
        """When the news of pods was heard last, in seconds since boot; before boot: never."""
        ago_s = time.monotonic() - self.health[Kind.POD].heard_s
        return time.clock_gettime(time.CLOCK_BOOTTIME) - ago_s

    def troubles(self) -> Mapping[str, str]:
        """The kinds that are not being watched now, with the reason."""
        return {f"watch of {kind}": h.error for kind, h in self.health.items() if h.error}


@dataclass(slots=True)
class KindWatch:
    """List, then watch, for ever."""

    resource: Resource
    servers: ApiServers
    post: Post
    health: Health
    stopped: threading.Event
    version: str = ""
    """Up to where the kind is known; "": not at all."""

    def run(self) -> None:
        backoff = Backoff(time.monotonic)
        while not self.stopped.is_set():
            try:
                if not self.version:
                    self.list()
                ended_well = self.watch()
            except NotServed as error:
                ended_well = False
                log.info("kind not served", extra={"path": self.resource.path, "why": str(error)})
            except Expired as error:
                ended_well = False
                self.version = ""
                self._note("expired", error)
            except (ApiError, ApiUnreachable, HTTPError, DecodeError, ValueError, OSError) as error:
                ended_well = False
                self._note("watch failed", error)
            if not ended_well:
                self.stopped.wait(backoff.next_s())

    def list(self) -> None:
        """Post the whole kind: what was known and is not in it is gone."""
        records: dict[Key, Record] = {}
        broken: list[Broken] = []
        query = {"limit": str(PAGE_SIZE), **self._selector()}
        while True:
            page = decode_list(self.resource.kind, self._read(query))
            for record in page.records:
                if isinstance(record, Broken):
                    broken.append(record)
                else:
                    records[key_of(record)] = record
            if not page.next_page:
                break
            query["continue"] = page.next_page
        self.health.lists += 1
        self.health.heard_s = time.monotonic()
        self.post(Listed(self.resource.kind, records, tuple(broken)))
        self.version = page.resource_version

    def watch(self) -> bool:
        """Post what happens after `version` until the stream ends.

        Whether to go on without a pause: a stream that ends at once is a server in trouble. Raises
        Expired.
        """
        started_s = time.monotonic()
        response = self._open()
        self.health.error = ""
        try:
            for line in _lines(response):
                self.version = self._take(decode_event(self.resource.kind, line)) or self.version
                self.health.heard_s = time.monotonic()
                if self.stopped.is_set():
                    break
        except ReadTimeoutError:
            # The server sends no bookmarks of a kind of which it has not seen an event yet.
            log.info("watch silent", extra={"kind": self.resource.kind, "seconds": SILENCE_S})
        finally:
            response.close()
        return time.monotonic() - started_s > 1.0

    def _open(self) -> BaseHTTPResponse:
        query = {
            "watch": "1",
            "allowWatchBookmarks": "true",
            "resourceVersion": self.version,
            # client-go's 5 to 10 minutes: watches of a fleet do not end together.
            "timeoutSeconds": str(random.randint(300, 600)),
            **self._selector(),
        }
        try:
            return self.servers.get(self.resource.path, query, SILENCE_S)
        except ApiError as error:
            if error.status == GONE:
                raise Expired(str(error)) from error
            raise

    def _read(self, query: Mapping[str, str]) -> bytes:
        try:
            response = self.servers.get(self.resource.path, query, LIST_TIMEOUT_S)
        except ApiError as error:
            if error.status == GONE:
                raise Expired(str(error)) from error
            if error.status == NOT_FOUND and self.resource.since:
                self.post(Listed(self.resource.kind, {}))
                raise NotServed(
                    f"{error}: Kubernetes {self.resource.since} is the first"
                ) from error
            raise
        try:
            return response.read()
        finally:
            response.close()

    def _take(self, event: WatchEvent) -> str:
        said = event.object
        if isinstance(said, Status):
            if said.code == GONE:
                raise Expired(said.message)
            raise ValueError(f"watch of {self.resource.path}: {said.code}: {said.message}")
        if isinstance(said, Broken):
            self._take_broken(event.type, said)
        elif said is not None:
            gone = event.type is EventType.DELETED
            self.post(Moved(self.resource.kind, key_of(said), None if gone else said))
        return event.resource_version

    def _take_broken(self, event: EventType, broken: Broken) -> None:
        if event is EventType.DELETED:
            self.post(Moved(broken.kind, broken.ref, None))
        else:
            self.post(Refused(broken))

    def _selector(self) -> Mapping[str, str]:
        return {"labelSelector": self.resource.labels} if self.resource.labels else {}

    def _note(self, what: str, error: Exception) -> None:
        self.health.failures += 1
        self.health.error = str(error)
        log.warning(what, extra={"kind": self.resource.kind, "error": str(error)})


def _lines(response: BaseHTTPResponse) -> Iterator[bytes]:
    """The lines of a stream as they arrive; a torn last one is dropped: the watch resumes."""
    rest = b""
    while chunk := response.read1(65536):
        *lines, rest = (rest + chunk).split(b"\n")
        yield from filter(None, lines)
