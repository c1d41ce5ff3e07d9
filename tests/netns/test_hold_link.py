"""The hold link as the kernel makes it: mended, bounded, and late by as much as it should be."""

import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest

from tests.netns.hook_scene import inside, namespace, run, wait_until_carrying
from weft.proxy.apply.links import LinksTarget
from weft.proxy.plan.links import HOLD_LINK
from weft.proxy.plan.node import HELD, HOLD

SYN_BYTES, FRAME_BYTES = 74, 1514
EXPERIMENT = 0x88B5  # IEEE 802: local experiments
# asm-generic/socket.h
_SO_SNDBUFFORCE, _SO_RCVBUFFORCE = 32, 33


@pytest.fixture
def there() -> Iterator[str]:
    """A namespace with the hold link, this thread inside."""
    with namespace(f"wt-hold-{os.getpid()}") as name, inside(name):
        assert not LinksTarget().write({HOLD: HOLD_LINK}, ())
        yield name


def is_as_planned() -> bool:
    return list(LinksTarget().dump()) == [(HOLD, HOLD_LINK)]


@pytest.mark.parametrize(
    "harm",
    [
        f"tc qdisc delete dev {HELD} root",
        f"tc qdisc replace dev {HOLD} root tbf rate 1mbit burst 2k limit 20k",
        f"ip link set {HOLD} mtu 1500",
        f"ip link set {HELD} down",
        f"ip link delete {HOLD}",
    ],
)
def test_what_another_hand_did_to_it_is_seen_and_mended(there: str, harm: str) -> None:
    assert is_as_planned()
    run(*harm.split())
    assert not is_as_planned()
    assert not LinksTarget().write({HOLD: HOLD_LINK}, ())
    assert is_as_planned()


def test_it_has_no_addresses(there: str) -> None:
    assert "inet" not in run("ip", "address", "show", "dev", HOLD)


def test_what_cannot_delay_says_what_the_kernel_needs_and_stays_short(there: str) -> None:
    run("ip", "link", "delete", HOLD)
    errors = LinksTarget().write({HOLD: replace(HOLD_LINK, burst_bytes=0)}, ())
    assert "sch_tbf" in errors[HOLD]
    assert "mtu 1500" in run("ip", "link", "show", "dev", HOLD)


@contextmanager
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    """One to send into the link, one that gets what comes out."""
    wait_until_carrying(HOLD, HELD)
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as into:
        into.bind((HOLD, EXPERIMENT))
        # Else the socket waits for the link.
        into.setsockopt(socket.SOL_SOCKET, _SO_SNDBUFFORCE, 1 << 24)
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as out:
            out.bind((HELD, EXPERIMENT))
            out.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, 1 << 24)
            out.settimeout(5)
            yield into, out


def frame(size: int) -> bytes:
    return bytes(12) + EXPERIMENT.to_bytes(2) + bytes(size - 14)


def test_a_hundred_first_packets_come_back_and_none_before_its_time(there: str) -> None:
    with ends() as (into, out):
        begin_s = time.monotonic()
        for _ in range(100):
            into.send(frame(SYN_BYTES))
        for _ in range(100):
            out.recv(2048)
        took_s = time.monotonic() - begin_s
    burst = HOLD_LINK.burst_bytes // (SYN_BYTES + HOLD_LINK.overhead_bytes)
    least_s = (100 - burst) * HOLD_LINK.overhead_bytes / HOLD_LINK.bytes_per_s
    assert least_s < took_s


def fill(into: socket.socket, frames: int) -> None:
    for _ in range(frames):
        into.send(frame(FRAME_BYTES))


def test_it_refuses_what_is_more_than_its_limit(there: str) -> None:
    many = 20 * HOLD_LINK.limit_bytes // FRAME_BYTES
    with ends() as (into, _), pytest.raises(OSError, match="No buffer space"):
        fill(into, many)
