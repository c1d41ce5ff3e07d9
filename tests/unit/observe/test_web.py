"""The HTTP responder on a real loopback socket."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from weft.proxy.observe import web
from weft.proxy.observe.web import Answer, SocketAddress, WebServer

HOST = "127.0.0.1"


async def _greeting() -> Answer:
    return Answer(b"hello", "text/plain")


def _nothing(path: str) -> None:
    return None


async def _bug() -> Answer:
    raise RuntimeError("a bug of ours")


@asynccontextmanager
async def serving(*hosts: str) -> AsyncIterator[int]:
    addresses = [SocketAddress(host, 0) for host in hosts or (HOST,)]
    server = WebServer(addresses, {"/": _greeting, "/bug": _bug}.get)
    await server.open()
    try:
        yield server.bound[0].port
    finally:
        server.close()


async def exchange(port: int, request: bytes) -> bytes:
    reader, writer = await asyncio.open_connection(HOST, port)
    writer.write(request)
    async with asyncio.timeout(10):
        answer = await reader.read()
    writer.close()
    return answer


async def first_answer(port: int) -> bytes:
    """Of a server that does not listen yet."""
    async with asyncio.timeout(10):
        while True:
            try:
                return await exchange(port, b"GET / HTTP/1.0\r\n\r\n")
            except ConnectionRefusedError:
                await asyncio.sleep(0.01)


def asked(request: bytes) -> bytes:
    async def story() -> bytes:
        async with serving() as port:
            return await exchange(port, request)

    return asyncio.run(story())


def test_a_get_is_answered_and_the_connection_closed() -> None:
    head, _, body = asked(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"Content-Length: 5" in head
    assert body == b"hello"


def test_a_query_does_not_change_the_path() -> None:
    assert b" 200 " in asked(b"GET /?verbose HTTP/1.1\r\n\r\n")


def test_head_has_no_body() -> None:
    assert asked(b"HEAD / HTTP/1.1\r\n\r\n").endswith(b"\r\n\r\n")


def test_an_unknown_path_is_404() -> None:
    assert b" 404 " in asked(b"GET /nothing HTTP/1.1\r\n\r\n")


@pytest.mark.parametrize("method", ["OPTIONS", "POST", "HEAD"])
def test_load_balancers_may_ask_with_any_method(method: str) -> None:
    assert b" 200 " in asked(method.encode() + b" / HTTP/1.1\r\n\r\n")


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
            server = WebServer([SocketAddress(HOST, port)], {"/": _greeting}.get)
            task = asyncio.create_task(server.run())
            await asyncio.sleep(0)
            assert not server.bound
        assert b"hello" in await first_answer(port)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert not server.bound

    asyncio.run(story())


def test_a_port_that_is_taken_is_the_end_where_that_is_wanted() -> None:
    async def story() -> None:
        async with serving("127.0.0.1") as port:
            server = WebServer((SocketAddress("127.0.0.1", port),), lambda _: None)
            with pytest.raises(OSError, match="in use"):
                await server.run(hard_fail=True)

    asyncio.run(story())


def test_an_address_that_the_machine_lacks_does_not_silence_the_others() -> None:
    async def story() -> None:
        async with serving("192.0.2.77", HOST) as port:
            assert b"hello" in await exchange(port, b"GET / HTTP/1.0\r\n\r\n")

    asyncio.run(story())


def test_a_server_that_can_listen_nowhere_says_why() -> None:
    async def story() -> None:
        with pytest.raises(OSError, match=r"192\.0\.2\.77"):
            await WebServer([SocketAddress("192.0.2.77", 0)], _nothing).open()

    asyncio.run(story())


def test_where_one_address_is_taken_no_other_is_kept() -> None:
    async def story() -> None:
        with socket.create_server((HOST, 0)) as holder:
            port = holder.getsockname()[1]
            server = WebServer(
                [SocketAddress("127.0.0.2", port), SocketAddress(HOST, port)], _nothing
            )
            with pytest.raises(OSError, match=HOST):
                await server.open()
            socket.create_server(("127.0.0.2", port)).close()

    asyncio.run(story())


def test_a_server_without_an_address_listens_nowhere_and_complains_of_nothing() -> None:
    async def story() -> None:
        server = WebServer([], _nothing)
        await server.open()
        assert not server.bound

    asyncio.run(story())
