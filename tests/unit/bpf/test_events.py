"""Events come out of the ring buffer as the programs put them in, in order, each once."""

import asyncio
import select
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from weft.bpf.events import EventReader
from weft.bpf.layout import Event
from weft.bpf.load import Datapath, open_datapath
from weft.bpf.syscall import run_program

SMALL = {"flows": 1_024, "translations": 1_024, "snat": 1_024, "sockets": 1_024}
MARK_OFFSET, DISCARDED = 8, 99
RECORD_BYTES = 8 + Event.SIZE


@pytest.fixture
def datapath(bpffs: Path, tiny_objects: Path) -> Iterator[Datapath]:
    entries = SMALL | {"events": 4_096}
    with open_datapath(pins=bpffs / "w", objects=tiny_objects, entries=entries) as opened:
        yield opened


def emit(datapath: Datapath, reason: int, times: int = 1) -> int:
    """`times` events with `reason`; the program's answer to the last: 1 where there was no room."""
    context = bytearray(192)
    struct.pack_into("=I", context, MARK_OFFSET, reason)
    fd = datapath.program("to_uplink").fd
    return run_program(fd, bytes(64), bytes(context), times).verdict


def test_events_are_read_in_order_and_once(datapath: Datapath) -> None:
    with EventReader(datapath.tables["events"]) as reader:
        for reason in (3, 1, 2):
            emit(datapath, reason)
        assert [(event.reason, event.bytes) for event in reader.read()] == [
            (3, 64),
            (1, 64),
            (2, 64),
        ]
        assert reader.read() == []


def test_what_was_written_while_no_daemon_ran_is_read_by_the_next(datapath: Datapath) -> None:
    with EventReader(datapath.tables["events"]) as reader:
        emit(datapath, 1)
        reader.read()
    emit(datapath, 2)
    with EventReader(datapath.tables["events"]) as reader:
        assert [event.reason for event in reader.read()] == [2]


def test_the_ring_goes_round_many_times(datapath: Datapath) -> None:
    per_round = 4_096 // RECORD_BYTES
    with EventReader(datapath.tables["events"]) as reader:
        for number in range(10):
            emit(datapath, number, per_round)
            assert [event.reason for event in reader.read()] == [number] * per_round


def test_a_full_ring_keeps_its_oldest_events(datapath: Datapath) -> None:
    per_round = 4_096 // RECORD_BYTES
    with EventReader(datapath.tables["events"]) as reader:
        emit(datapath, 1, per_round)
        assert emit(datapath, 2) == 1
        assert [event.reason for event in reader.read()] == [1] * per_round
        assert emit(datapath, 3) != 1
        assert [event.reason for event in reader.read()] == [3]


def test_discarded_records_are_passed_over(datapath: Datapath) -> None:
    with EventReader(datapath.tables["events"]) as reader:
        for reason in (1, DISCARDED, 2):
            emit(datapath, reason)
        assert [event.reason for event in reader.read()] == [1, 2]


def test_the_descriptor_is_readable_while_there_are_events(datapath: Datapath) -> None:
    with EventReader(datapath.tables["events"]) as reader, select.epoll() as epoll:
        epoll.register(reader.fileno(), select.EPOLLIN)
        assert epoll.poll(0) == []
        emit(datapath, 1)
        assert epoll.poll(1) == [(reader.fileno(), select.EPOLLIN)]
        reader.read()
        assert epoll.poll(0) == []


def test_an_event_wakes_asyncio(datapath: Datapath) -> None:
    async def first() -> list[Event]:
        loop, found = asyncio.get_running_loop(), asyncio.Future[list[Event]]()
        with EventReader(datapath.tables["events"]) as reader:
            loop.add_reader(reader.fileno(), lambda: found.set_result(reader.read()))
            loop.call_soon(emit, datapath, 7)
            try:
                return await asyncio.wait_for(found, 5)
            finally:
                loop.remove_reader(reader.fileno())

    assert [event.reason for event in asyncio.run(first())] == [7]
