"""The HTTP responder on a real loopback socket."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from weft.proxy.observe import web
from weft.proxy.observe.web import Answer, WebServer

HOST = "127.0.0.1"


async def _greeting() -> Answer:
    return Answer(b"hello", "text/plain")


async def _bug() -> Answer:
    raise RuntimeError("a bug of ours")


@asynccontextmanager
async def serving() -> AsyncIterator[int]:
    server = WebServer((HOST,), 0, {"/": _greeting, "/bug": _bug})
    task = asyncio.create_task(server.run())
    try:
        yield await server.bound
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def exchange(port: int, request: bytes) -> bytes:
    reader, writer = await asyncio.open_connection(HOST, port)
    writer.write(request)
    async with asyncio.timeout(10):
        answer = await reader.read()
    writer.close()
    return answer


def asked(request: bytes) -> bytes:
    async def story() -> bytes:
        async with serving() as port:
            return await exchange(port, request)

    return asyncio.run(story())


def test_a_get_is_answered_and_the_connection_closed() -> None:
    head, _, body = asked(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.0 200 OK\r\n")
    assert b"Content-Length: 5" in head
    assert body == b"hello"


def test_a_query_does_not_change_the_path() -> None:
    assert b" 200 " in asked(b"GET /?verbose HTTP/1.1\r\n\r\n")


def test_head_has_no_body() -> None:
    assert asked(b"HEAD / HTTP/1.1\r\n\r\n").endswith(b"\r\n\r\n")


def test_an_unknown_path_is_404() -> None:
    assert b" 404 " in asked(b"GET /nothing HTTP/1.1\r\n\r\n")


def test_other_methods_are_refused() -> None:
    assert b" 405 " in asked(b"POST / HTTP/1.1\r\n\r\n")


def test_a_handler_that_fails_answers_500_without_its_secrets() -> None:
    answer = asked(b"GET /bug HTTP/1.1\r\n\r\n")
    assert b" 500 " in answer
    assert b"a bug of ours" not in answer


def test_nonsense_and_oversized_requests_get_no_answer() -> None:
    assert asked(b"nonsense\r\n\r\n") == b""
    assert asked(b"GET /" + b"x" * 20_000 + b" HTTP/1.1\r\n\r\n") == b""


def test_a_port_that_is_taken_is_asked_for_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web, "BIND_RETRY_S", 0.01)

    async def story() -> None:
        with socket.create_server((HOST, 0)) as holder:
            port = holder.getsockname()[1]
            server = WebServer((HOST,), port, {"/": _greeting})
            task = asyncio.create_task(server.run())
            await asyncio.sleep(0)
            assert not server.bound.done()
        async with asyncio.timeout(10):
            await server.bound
        assert b"hello" in await exchange(port, b"GET / HTTP/1.0\r\n\r\n")
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(story())


def test_an_address_that_the_machine_lacks_does_not_silence_the_others() -> None:
    async def story() -> None:
        server = WebServer(("192.0.2.77", HOST), 0, {"/": _greeting})
        task = asyncio.create_task(server.run())
        async with asyncio.timeout(10):
            port = await server.bound
        assert b"hello" in await exchange(port, b"GET / HTTP/1.0\r\n\r\n")
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(story())
