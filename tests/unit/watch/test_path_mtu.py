"""Paths' MTUs are asked for in turn, a bounded number at a time, and said when they differ."""

from collections.abc import Mapping
from ipaddress import IPv4Address

import pytest

from weft.proxy.model.objects import Address, Kind, PathMtu
from weft.proxy.watch.events import Event, Moved
from weft.proxy.watch.path_mtu import ASKED_MAX, PROBE_AGAIN_S, PathMtus

END, OTHER = IPv4Address("198.51.100.2"), IPv4Address("198.51.100.3")
LINK_BYTES = 1500


class Kernel:
    """What it knows of paths, what it was asked and what was sent to have it learn."""

    def __init__(self, *ends: Address) -> None:
        self.ends: Mapping[Address, int] = dict.fromkeys(ends, LINK_BYTES)
        self.known: dict[Address, int] = {}
        self.asked: list[Address] = []
        self.probed: list[Address] = []
        self.posted: list[Event] = []
        self.paths = PathMtus(lambda: self.ends, self.posted.append, self._mtu_bytes, self._probe)

    def _mtu_bytes(self, end: Address) -> int:
        self.asked.append(end)
        return self.known.get(end, 0)

    def _probe(self, end: Address, packet_bytes: int) -> None:
        assert packet_bytes == LINK_BYTES
        self.probed.append(end)

    def said(self) -> list[Event]:
        said, self.posted[:] = list(self.posted), []
        return said


def narrow(end: Address, mtu_bytes: int) -> Moved:
    return Moved(Kind.PATH_MTU, str(end), PathMtu(end, mtu_bytes))


def gone(end: Address) -> Moved:
    return Moved(Kind.PATH_MTU, str(end), None)


def test_a_narrow_path_is_said_once_anew_when_it_changes_and_withdrawn_when_forgotten() -> None:
    kernel = Kernel(END, OTHER)
    kernel.paths.look(0)
    assert kernel.said() == []
    kernel.known[END] = 1400
    kernel.paths.look(1)
    kernel.paths.look(2)
    assert kernel.said() == [narrow(END, 1400)]
    kernel.known[END] = 1300
    kernel.paths.look(3)
    assert kernel.said() == [narrow(END, 1300)]
    del kernel.known[END]
    kernel.paths.look(4)
    assert kernel.said() == [gone(END)]


@pytest.mark.parametrize("known", [0, LINK_BYTES, 9000])
def test_a_path_as_wide_as_its_link_is_not_said(known: int) -> None:
    kernel = Kernel(END)
    kernel.known[END] = known
    kernel.paths.look(0)
    assert kernel.said() == []


def test_what_is_no_longer_behind_a_router_is_withdrawn() -> None:
    kernel = Kernel(END)
    kernel.known[END] = 1400
    kernel.paths.look(0)
    kernel.ends = {}
    kernel.paths.look(1)
    assert kernel.said() == [narrow(END, 1400), gone(END)]
    assert kernel.asked == [END]


def test_an_end_is_probed_when_it_comes_and_once_in_a_while() -> None:
    kernel = Kernel(END)
    for second in range(int(PROBE_AGAIN_S) + 1):
        kernel.paths.look(second)
    assert kernel.probed == [END, END]


def test_many_ends_are_asked_about_in_turn_and_each_again_right_after_its_probe() -> None:
    ends = [END + number for number in range(3 * ASKED_MAX)]
    kernel = Kernel(*ends)
    for second in range(6):
        already = len(kernel.asked)
        kernel.paths.look(second)
        assert len(kernel.asked) - already <= ASKED_MAX
    assert set(kernel.asked) == set(ends)
    assert all(kernel.asked.count(end) == 2 for end in ends)
    assert len(kernel.probed) == len(ends)


def test_nothing_is_asked_where_no_end_is_behind_a_router() -> None:
    kernel = Kernel()
    kernel.paths.look(0)
    assert kernel.asked == kernel.probed == []
