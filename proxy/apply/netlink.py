"""Owns how the node's devices and routes are spoken to: pyroute2, its errors as OSError.

Never knows what is wanted.
"""

from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkDumpInterrupted, NetlinkError

T = TypeVar("T")

_DUMP_ATTEMPTS = 20


@contextmanager
def conversation() -> Iterator[Any]:
    """An open rtnetlink socket of pyroute2. Raises OSError, also for what the kernel refuses."""
    try:
        with IPRoute() as netlink:
            yield netlink
    except NetlinkError as error:
        raise OSError(error.code, str(error)) from error


def settled(read: Callable[[], T]) -> T:
    """What `read` gives once nothing moved meanwhile: the kernel marks a dump during which links or
    routes changed (NLM_F_DUMP_INTR), which pods that come and go bring about.
    """
    for _ in range(_DUMP_ATTEMPTS):
        try:
            return read()
        except NetlinkDumpInterrupted:
            continue
    return read()


@contextmanager
def noting(errors: dict[Hashable, str], key: Hashable, what: str) -> Iterator[None]:
    """Put the failure of one row into `errors`, with the kernel's word."""
    try:
        yield
    except (NetlinkError, OSError) as error:
        errors[key] = f"{what} {key}: {error}"
