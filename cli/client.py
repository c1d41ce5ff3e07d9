"""The connection to one node's daemon. Owns grpc: nothing else of the command imports it."""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Protocol, TypeVar

# Its C core writes to standard error what we tell in our own words.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")

import grpc

from weft.cli.failure import FAILED_CHECK, UNREACHABLE, Failure
from weft.proxy.api.weft_pb2_grpc import WeftStub

TIMEOUT_S = 60.0

Item = TypeVar("Item", covariant=True)


class Page(Protocol[Item]):
    """A message with some of a listing's items (weft.proto, the ...List messages)."""

    @property
    def items(self) -> Iterable[Item]: ...


def items(pages: Iterable[Page[Item]]) -> list[Item]:
    """A whole listing."""
    return [item for page in pages for item in page.items]


@contextmanager
def daemon(socket: str) -> Iterator[WeftStub]:
    """The daemon at a unix socket. Raises Failure, also for what goes wrong inside the block."""
    with grpc.insecure_channel(f"unix:{socket}") as channel:
        try:
            yield WeftStub(channel)
        except grpc.RpcError as error:
            raise _failure(error, socket) from error


def _failure(error: grpc.RpcError, socket: str) -> Failure:
    code, details = error.code(), error.details() or ""
    if code is grpc.StatusCode.UNAVAILABLE:
        return _unreachable(socket, details)
    what = f"the daemon at {socket} did not answer"
    if code is grpc.StatusCode.UNIMPLEMENTED:
        next_step = "use the weft command of the daemon's own version"
        return Failure(what, "it does not know this call", next_step, FAILED_CHECK)
    if code is grpc.StatusCode.NOT_FOUND:
        return Failure("there is no such client", details, "weft nodes lists nodes", FAILED_CHECK)
    return Failure(what, f"{code.name}: {details}", "see the daemon's log", FAILED_CHECK)


def _unreachable(socket: str, details: str) -> Failure:
    what = f"cannot reach the daemon at {socket}"
    if not os.path.exists(socket):
        next_step = "is weftd running on this node? --socket PATH names another one"
        return Failure(what, "there is no such socket", next_step, UNREACHABLE)
    if not os.access(socket, os.R_OK | os.W_OK):
        return Failure(what, "the socket is root's", "run it as root", UNREACHABLE)
    return Failure(what, details, "is weftd running? its log tells why it ended", UNREACHABLE)
