"""Owns the daemon's socket: one connection is one run of the shim.

Takes a request with its two descriptors, lets `Plugin` run the verb, writes the answer. Never reads
a pod's namespace path: what the shim opened is what counts.
"""

import asyncio
import json
import logging
import os
import socket
import struct
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from weft.cni import wiring
from weft.cni.deletions import DeletionQueue
from weft.cni.frame import (
    REQUEST_HEADER,
    Answer,
    BadFrame,
    Call,
    body_bytes,
    decode_call,
    encode_answer,
)
from weft.cni.leases import LeaseStore
from weft.cni.node import LinkMode, Node, NotReady, PodNetwork
from weft.cni.plugin import Descriptors, Plugin
from weft.cni.repair import vanished
from weft.cni.spec import Command

__all__ = ["CniServer", "LinkMode", "Node", "NotReady", "PodNetwork"]

log = logging.getLogger(__name__)

SOCKET = Path("/run/weft/cni.sock")
DELETIONS = Path("/var/lib/weft/cni/deletions")
LEASES = Path("/var/lib/weft/cni/leases.jsonl")

_BACKLOG = 512
_REQUEST_TIMEOUT_S = 10.0
_ACCEPT_PAUSE_S = 0.1  # out of descriptors: requests that end give some back
_SWEEP_INTERVAL_S = 30.0
_PEER_CREDENTIALS = struct.Struct("=iII")  # ucred: pid, uid, gid


class CniServer:
    """Serves the shim on one node.

    path: the unix socket, made 0600. leases: open and reconciled (`repair`). node: what the daemon
    does for a pod. deletions: the folder that the shim queues DELs in.

        with open_leases(path) as leases:
            attachments = await reconcile(leases)      # what the daemon starts from
            async with CniServer(socket, leases, node, deletions).serve():
                ...                                    # serving until the block ends
    """

    def __init__(self, path: Path, leases: LeaseStore, node: Node, deletions: Path) -> None:
        self._path = path
        self._leases = leases
        self._deletions = DeletionQueue(deletions)
        self._plugin = Plugin(node, leases, self._deletions)
        self._connections: set[asyncio.Task[None]] = set()
        self.observers: list[Callable[[str, int, float], None]] = []
        """Called after every verb: its name, the CNI error code (0: success), seconds taken."""

    @asynccontextmanager
    async def serve(self) -> AsyncIterator[None]:
        """Listens and answers; when the block ends, the verbs that run are finished first."""
        self._deletions.open()
        with _listen(self._path) as listener:
            tasks = [
                asyncio.create_task(self._accept(listener), name="cni-accept"),
                asyncio.create_task(self._sweep(), name="cni-sweep"),
            ]
            try:
                yield
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
                self._path.unlink(missing_ok=True)
                await asyncio.gather(*self._connections, return_exceptions=True)

    async def _accept(self, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                connection, _ = await loop.sock_accept(listener)
            except OSError as error:
                log.error("cannot accept on %s: %s", self._path, error)
                await asyncio.sleep(_ACCEPT_PAUSE_S)
                continue
            connection.setblocking(False)
            task = asyncio.create_task(self._serve_one(connection), name="cni-request")
            self._connections.add(task)
            task.add_done_callback(self._connections.discard)

    async def _serve_one(self, connection: socket.socket) -> None:
        with connection:
            fds: list[int] = []
            try:
                async with asyncio.timeout(_REQUEST_TIMEOUT_S):
                    call = await _receive(connection, fds)
                descriptors = Descriptors(fds[0], fds[1]) if len(fds) == 2 else None
                await self._answer(connection, call, descriptors)
            except (OSError, TimeoutError, BadFrame) as error:
                log.warning("a request on %s could not be read: %s", self._path, error)
            finally:
                for fd in fds:
                    os.close(fd)

    async def _answer(
        self, connection: socket.socket, call: Call, descriptors: Descriptors | None
    ) -> None:
        started_s = time.monotonic()
        answer = await self._plugin.run(call, descriptors)
        asked = call.env.get("CNI_COMMAND", "")
        verb = asked if asked in set(Command) else "unknown"
        for observer in self.observers:
            observer(verb, error_code(answer), time.monotonic() - started_s)
        if await _deliver(connection, answer):
            return
        if call.env.get("CNI_COMMAND") == Command.ADD and answer.exit_code == 0:
            await self._plugin.undo_add(call)

    async def _sweep(self) -> None:
        """Catches what no runtime tells: vanished pods, deletions queued beside a live daemon."""
        while True:
            try:
                await self._plugin.drain_deletions()
                attachments = self._leases.attachments()
                links = await asyncio.to_thread(wiring.our_links)
                for attachment in vanished(attachments, {link.name: link for link in links}):
                    log.warning("releasing %s: its namespace is gone", attachment.key)
                    await self._plugin.release(attachment)
            except Exception:
                log.exception("the sweep failed, the next one comes")
            await asyncio.sleep(_SWEEP_INTERVAL_S)


def error_code(answer: Answer) -> int:
    """The code of an answer's error object (CNI 1.1, "Error"); 0 for success."""
    if answer.exit_code == 0:
        return 0
    code: int = json.loads(answer.text)["code"]
    return code


def _listen(path: Path) -> socket.socket:
    """Takes the path over: whoever held the lease file before is gone, so is its socket."""
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        previous = os.umask(0o177)
        try:
            listener.bind(str(path))
        finally:
            os.umask(previous)
        listener.listen(_BACKLOG)
        listener.setblocking(False)
    except BaseException:
        listener.close()
        raise
    return listener


async def _receive(connection: socket.socket, fds: list[int]) -> Call:
    """The request; its descriptors go into `fds` as they come. Raises BadFrame, OSError."""
    raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER_CREDENTIALS.size)
    _, uid, _ = _PEER_CREDENTIALS.unpack(raw)
    if uid not in (0, os.geteuid()):
        raise BadFrame(f"uid {uid} may not ask")
    loop = asyncio.get_running_loop()
    await _readable(connection)
    flags = socket.MSG_CMSG_CLOEXEC | socket.MSG_DONTWAIT
    data, passed, _, _ = socket.recv_fds(connection, 1 << 16, 2, flags)
    fds += passed
    while len(data) < REQUEST_HEADER.size:
        data += await _more(loop, connection)
    header = data[: REQUEST_HEADER.size]
    whole = REQUEST_HEADER.size + sum(body_bytes(header))
    parts, length = [data], len(data)
    while length < whole:
        parts.append(await _more(loop, connection))
        length += len(parts[-1])
    return decode_call(header, b"".join(parts)[REQUEST_HEADER.size :])


async def _more(loop: asyncio.AbstractEventLoop, connection: socket.socket) -> bytes:
    data = await loop.sock_recv(connection, 1 << 18)
    if not data:
        raise BadFrame("the shim left in the middle of its request")
    return data


async def _readable(connection: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[None] = loop.create_future()
    loop.add_reader(connection, _settle, ready)
    try:
        await ready
    finally:
        loop.remove_reader(connection)


def _settle(ready: asyncio.Future[None]) -> None:
    if not ready.done():
        ready.set_result(None)


async def _deliver(connection: socket.socket, answer: Answer) -> bool:
    """False when the shim is gone: its runtime killed it and heard nothing."""
    with suppress(BlockingIOError):
        if connection.recv(1, socket.MSG_PEEK) == b"":
            return False
    try:
        await asyncio.get_running_loop().sock_sendall(connection, encode_answer(answer))
    except (BrokenPipeError, ConnectionResetError):
        return False
    return True
