"""A small HTTP responder for probes and scrapes: GET, one answer, connection closed.

Owns the wire (HTTP/1.0, RFC 1945) and the listening socket. Never knows what is answered. Probes
and scrapers need nothing more, and a web framework would cost the daemon 20 MB.
"""

import asyncio
import errno
import logging
import socket
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus

log = logging.getLogger(__name__)

BIND_RETRY_S = 5.0
_REQUEST_TIMEOUT_S = 5.0
_REQUEST_MAX_BYTES = 16 * 1024


@dataclass(frozen=True, slots=True)
class Answer:
    """What goes back."""

    body: bytes
    content_type: str
    status: HTTPStatus = HTTPStatus.OK
    headers: Mapping[str, str] = field(default_factory=dict)


Handler = Callable[[], Awaitable[Answer]]
_NOT_FOUND = Answer(b"404 page not found\n", "text/plain; charset=utf-8", HTTPStatus.NOT_FOUND)
_ONLY_GET = Answer(b"only GET\n", "text/plain; charset=utf-8", HTTPStatus.METHOD_NOT_ALLOWED)


class WebServer:
    """One listening port and what its paths answer."""

    def __init__(self, hosts: tuple[str, ...], port: int, handlers: Mapping[str, Handler]) -> None:
        self._hosts, self._port, self._handlers = hosts, port, handlers
        self.bound: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        """The port in use, once there is one."""

    async def run(self) -> None:
        """Serve until cancelled. A port that is taken is asked for again, as kube-proxy does."""
        server = await self._listen()
        async with server:
            if not self.bound.done():
                self.bound.set_result(server.sockets[0].getsockname()[1])
            await server.serve_forever()

    async def _listen(self) -> asyncio.Server:
        while True:
            hosts = [host for host in self._hosts if is_local(host)]
            try:
                return await asyncio.start_server(
                    self._serve, hosts, self._port, limit=_REQUEST_MAX_BYTES
                )
            except OSError as error:
                log.error("cannot listen", extra={"port": self._port, "error": str(error)})
            await asyncio.sleep(BIND_RETRY_S)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(_REQUEST_TIMEOUT_S):
                method, path = await _request(reader)
            with_body = method != "HEAD"
            writer.write(_encoded(await self._answer(method, path), with_body=with_body))
            async with asyncio.timeout(_REQUEST_TIMEOUT_S):
                await writer.drain()
        except (OSError, TimeoutError, ValueError, asyncio.IncompleteReadError):
            pass  # a client that went away, or that speaks something else
        finally:
            writer.close()

    async def _answer(self, method: str, path: str) -> Answer:
        if method not in ("GET", "HEAD"):
            return _ONLY_GET
        handler = self._handlers.get(path)
        if handler is None:
            return _NOT_FOUND
        try:
            return await handler()
        except Exception:
            log.exception("handler failed", extra={"path": path})
            text = b"internal error; the daemon's log has it\n"
            return Answer(text, "text/plain; charset=utf-8", HTTPStatus.INTERNAL_SERVER_ERROR)


def is_local(host: str) -> bool:
    """Whether this machine has the address `host`: one without IPv6 has no ::1."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_STREAM) as trial:
            trial.bind((host, 0))
    except OSError as error:
        return error.errno not in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)
    return True


async def _request(reader: asyncio.StreamReader) -> tuple[str, str]:
    """Method and path. Raises ValueError for what is not a request."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.LimitOverrunError as error:
        raise ValueError("request too long") from error
    method, target, _ = head.split(b"\r\n", 1)[0].decode("latin-1").split(" ", 2)
    return method, target.partition("?")[0]


def _encoded(answer: Answer, *, with_body: bool) -> bytes:
    status = answer.status
    headers = {
        "Content-Type": answer.content_type,
        "Content-Length": str(len(answer.body)),
        "Connection": "close",
        **answer.headers,
    }
    lines = (f"HTTP/1.0 {status.value} {status.phrase}", *(f"{k}: {v}" for k, v in headers.items()))
    head = "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n"
    return head + answer.body if with_body else head
