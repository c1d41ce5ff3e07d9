"""An API server in this process that a test tells what to answer, request by request."""

import json
import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import urllib3

from weft.proxy.watch.api import ApiServers, Credentials

Answer = Callable[["Exchange"], None]


@dataclass
class Exchange:
    """One request and the means to answer it."""

    path: str
    query: dict[str, str]
    authorization: str
    body: bytes
    handler: BaseHTTPRequestHandler
    stopping: threading.Event

    def json(self, body: object, status: int = 200) -> None:
        data = json.dumps(body).encode()
        self.handler.send_response(status)
        self.handler.send_header("Content-Length", str(len(data)))
        self.handler.end_headers()
        self.handler.wfile.write(data)

    def hang_up(self) -> None:
        self.handler.close_connection = True

    def start_stream(self) -> None:
        self.handler.send_response(200)
        self.handler.send_header("Transfer-Encoding", "chunked")
        self.handler.end_headers()

    def chunk(self, data: bytes) -> None:
        self.handler.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))

    def end_stream(self) -> None:
        self.handler.wfile.write(b"0\r\n\r\n")


@dataclass
class FakeApi:
    """Answers each request with the next of `answers`; a request without one waits."""

    answers: "queue.Queue[Answer]" = field(default_factory=queue.Queue)
    seen: list[Exchange] = field(default_factory=list)
    stopping: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> "FakeApi":
        api = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                url = urlsplit(self.path)
                query = {key: values[0] for key, values in parse_qs(url.query).items()}
                token = self.headers.get("Authorization", "")
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                exchange = Exchange(url.path, query, token, body, self, api.stopping)
                api.seen.append(exchange)
                api.next_answer()(exchange)

            do_POST = do_GET

            def log_message(self, format: str, *args: Any) -> None:
                """Nothing on standard error."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stopping.set()
        self._server.shutdown()
        self._server.server_close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def next_answer(self) -> Answer:
        while not self.stopping.is_set():
            try:
                return self.answers.get(timeout=0.02)
            except queue.Empty:
                continue
        return Exchange.hang_up

    def servers(self, *urls: str, credentials: Credentials | None = None) -> ApiServers:
        pool = urllib3.PoolManager(maxsize=4)
        return ApiServers(urls or (self.url,), pool, credentials or Credentials(None))


def namespace(name: str, version: str = "1") -> dict[str, Any]:
    return {"metadata": {"name": name, "resourceVersion": version}}


def page(*items: dict[str, Any], version: str = "10", more: str = "") -> dict[str, Any]:
    return {"metadata": {"resourceVersion": version, "continue": more}, "items": list(items)}


def event(kind: str, item: dict[str, Any]) -> bytes:
    return json.dumps({"type": kind, "object": item}).encode() + b"\n"
