"""The API server's endpoints when its slices go empty: as last known, until it says others."""

from ipaddress import ip_address

import pytest

from weft.proxy.intake import Intake
from weft.proxy.model.lastknown import API_SERVER
from weft.proxy.model.objects import EndpointSlice, Kind, Ref, SliceEndpoint
from weft.proxy.model.world import Settings, World
from weft.proxy.watch.events import Event, Listed, Moved

FIRST, SECOND = Ref("default", "kubernetes"), Ref("default", "kubernetes-2")


def piece(
    ref: Ref, *addresses: str, ready: bool = True, service: str = "kubernetes"
) -> EndpointSlice:
    endpoints = tuple(
        SliceEndpoint(ip_address(a), ready, ready, False, "", None) for a in addresses
    )
    return EndpointSlice(ref, service, (), endpoints)


def moved(record: EndpointSlice) -> Moved:
    return Moved(Kind.SLICE, record.ref, record)


def gone(ref: Ref) -> Moved:
    return Moved(Kind.SLICE, ref, None)


def listed(*records: EndpointSlice) -> Listed:
    return Listed(Kind.SLICE, {record.ref: record for record in records})


A, B = "192.0.2.1", "192.0.2.2"
EMPTYING = [
    pytest.param(gone(FIRST), id="deleted"),
    pytest.param(moved(piece(FIRST)), id="empty"),
    pytest.param(moved(piece(FIRST, A, ready=False)), id="not ready"),
    pytest.param(moved(piece(FIRST, A, service="other")), id="another's"),
    pytest.param(listed(), id="not listed"),
]


def after(*events: Event) -> World:
    intake = Intake(World(Settings("n1")), frozenset({Kind.SLICE}))
    for event in events:
        for _ in intake.take(event):
            pass
    return intake.world


def servers(world: World) -> set[str]:
    return {str(e.address) for s in world.slices_of(API_SERVER) for e in s.endpoints if e.ready}


@pytest.mark.parametrize("emptied", EMPTYING)
def test_the_last_known_stay(emptied: Event) -> None:
    assert servers(after(moved(piece(FIRST, A)), emptied)) == {A}


@pytest.mark.parametrize("emptied", EMPTYING)
def test_they_go_when_there_is_another(emptied: Event) -> None:
    back: list[Event] = [moved(piece(SECOND, B)), moved(piece(FIRST, B)), listed(piece(SECOND, B))]
    for event in back:
        world = after(moved(piece(FIRST, A)), emptied, event)
        assert servers(world) == {B}
    assert len(world.slices_of(API_SERVER)) == 1


@pytest.mark.parametrize("emptied", EMPTYING)
def test_what_the_api_said_meanwhile_holds_once_there_is_another(emptied: Event) -> None:
    start = (moved(piece(FIRST, A)), emptied)
    world = after(*start, moved(piece(SECOND, B)), gone(SECOND), moved(piece(FIRST, B)))
    assert servers(world) == {B}
    assert [s.ref for s in world.slices_of(API_SERVER)] == [FIRST]


def test_one_of_two_goes_at_once() -> None:
    world = after(moved(piece(FIRST, A)), moved(piece(SECOND, B)), gone(FIRST))
    assert servers(world) == {B}


def test_each_family_stays_for_itself() -> None:
    both = moved(piece(FIRST, A)), moved(piece(SECOND, "2001:db8::1"))
    assert servers(after(*both, gone(SECOND))) == {A, "2001:db8::1"}
    world = after(*both, gone(SECOND), moved(piece(FIRST, B)))
    assert servers(world) == {B, "2001:db8::1"}


def test_a_server_that_never_was_is_not_kept() -> None:
    world = after(moved(piece(FIRST)), moved(piece(FIRST, A, ready=False)), gone(FIRST))
    assert not list(world.slices())


def test_other_services_go_empty_as_they_say() -> None:
    other = Ref("default", "web-1")
    world = after(moved(piece(other, A, service="web")), gone(other))
    assert not list(world.slices())
