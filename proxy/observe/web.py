"""A small HTTP responder for probes and scrapes: one request, one answer, connection closed.

Owns the wire (HTTP/1.1, RFC 9112) and the listening sockets. Never knows what is answered. Probes
and scrapers need nothing more, and a web framework would cost the daemon 20 MB. As with kube-proxy,
every method is answered alike: load balancers ask with GET, HEAD or OPTIONS.
"""

import asyncio
import errno
import logging
import socket
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from email.utils import formatdate
from http import HTTPStatus
from typing import NamedTuple

log = logging.getLogger(__name__)

BIND_RETRY_S = 5.0
_BACKLOG = 128
_REQUEST_TIMEOUT_S = 5.0
_REQUEST_MAX_BYTES = 16 * 1024
_NOT_HERE = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)
"""What bind() says of an address that this machine lacks: one without IPv6 has no ::1."""


class SocketAddress(NamedTuple):
    """Where a server listens. host: an IP address; 0.0.0.0 and :: are all of their own family."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Answer:
    """What goes back."""

    body: bytes
    content_type: str
    status: HTTPStatus = HTTPStatus.OK
    headers: Mapping[str, str] = field(default_factory=dict)


PLAIN = "text/plain; charset=utf-8"
NO_SNIFF = {"X-Content-Type-Options": "nosniff"}

Handler = Callable[[], Awaitable[Answer]]
Route = Callable[[str], Handler | None]
"""The handler of a path; None: 404."""
_NOT_FOUND = Answer(b"404 page not found\n", PLAIN, HTTPStatus.NOT_FOUND, NO_SNIFF)


class WebServer:
    """Some listening sockets and what their paths answer."""

    def __init__(self, addresses: Iterable[SocketAddress], route: Route) -> None:
        self._addresses, self._route = tuple(addresses), route
        self._servers: list[asyncio.Server] = []

    @property
    def bound(self) -> tuple[SocketAddress, ...]:
        """Where it listens now."""
        names = (s.getsockname() for server in self._servers for s in server.sockets)
        return tuple(SocketAddress(name[0], name[1]) for name in names)

    async def run(self, *, hard_fail: bool = False) -> None:
        """Serve until cancelled. A port that is taken is asked for again, as kube-proxy does; with
        `hard_fail` it is an OSError (kube-proxy's bindAddressHardFail).
        """
        try:
            if hard_fail:
                await self.open()
            while True:
                if self._servers or await self._opens():
                    await asyncio.get_running_loop().create_future()
                await asyncio.sleep(BIND_RETRY_S)
        finally:
            self.close()

    async def _opens(self) -> bool:
        try:
            await self.open()
        except OSError as error:
            shown = ", ".join(map(str, self._addresses))
            log.error("cannot listen", extra={"at": shown, "error": str(error)})
            return False
        return True

    async def open(self) -> None:
        """Listen at every address that this machine has. Raises OSError: then it listens nowhere.

        That is so when an address is taken, and when the machine has none of them.
        """
        absent: OSError | None = None
        for address in self._addresses:
            try:
                self._servers.append(await self._listen(address))
            except OSError as error:
                if error.errno not in _NOT_HERE:
                    self.close()
                    raise
                absent = error
        if absent is not None and not self._servers:
            raise absent

    async def _listen(self, address: SocketAddress) -> asyncio.Server:
        family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
        sock = socket.create_server(address, family=family, backlog=_BACKLOG)
        return await asyncio.start_server(
            self._serve, sock=sock, backlog=_BACKLOG, limit=_REQUEST_MAX_BYTES
        )

    def close(self) -> None:
        """Listen nowhere any more; what is being answered is answered."""
        for server in self._servers:
            server.close()
        self._servers.clear()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(_REQUEST_TIMEOUT_S):
                method, path = await _request(reader)
            writer.write(_encoded(await self._answer(path), with_body=method != "HEAD"))
            async with asyncio.timeout(_REQUEST_TIMEOUT_S):
                await writer.drain()
        except (OSError, TimeoutError, ValueError, asyncio.IncompleteReadError):
            pass  # a client that went away, or that speaks something else
        finally:
            writer.close()

    async def _answer(self, path: str) -> Answer:
        handler = self._route(path)
        if handler is None:
            return _NOT_FOUND
        try:
            return await handler()
        except Exception:
            log.exception("handler failed", extra={"path": path})
            text = b"internal error; the daemon's log has it\n"
            return Answer(text, PLAIN, HTTPStatus.INTERNAL_SERVER_ERROR, NO_SNIFF)


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
        **answer.headers,
        "Date": formatdate(usegmt=True),
        "Content-Length": str(len(answer.body)),
        "Connection": "close",
    }
    lines = (f"HTTP/1.1 {status.value} {status.phrase}", *(f"{k}: {v}" for k, v in headers.items()))
    head = "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n"
    return head + answer.body if with_body else head
