"""The API's last state on disk."""

from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest

from weft.proxy.intake import Intake
from weft.proxy.model.lastknown import API_SERVER
from weft.proxy.model.objects import (
    EndpointSlice,
    IPBlock,
    Kind,
    Namespace,
    NetworkPolicy,
    Node,
    Operator,
    Peer,
    Pod,
    PolicyPort,
    Protocol,
    Ref,
    Requirement,
    Rule,
    Selector,
    Service,
    ServiceCIDR,
    ServicePort,
    SliceEndpoint,
    SlicePort,
)
from weft.proxy.model.world import Change, Record, Settings, World
from weft.proxy.watch import checkpoint
from weft.proxy.watch.events import Listed, key_of

WEB = Ref("default", "web")
V4, V6 = ip_address("10.244.1.5"), ip_address("fd00::5")
SELECTOR = Selector((("app", "web"),), (Requirement("tier", Operator.NOT_IN, ("a", "b")),))
BLOCK = IPBlock(ip_network("10.0.0.0/8"), (ip_network("10.1.0.0/16"),))
RECORDS: dict[Kind, Record] = {
    Kind.NODE: Node(Ref("", "n1"), (V4, V6), (ip_network("10.244.1.0/24"),), {"zone": "a"}),
    Kind.NAMESPACE: Namespace(Ref("", "default"), {"team": "x"}),
    Kind.POD: Pod(WEB, "u", "n1", {"app": "web"}, (V4, V6), False, False),
    Kind.SERVICE: Service(
        WEB,
        "LoadBalancer",
        (V4,),
        (ServicePort("http", Protocol.TCP, 80, 30080),),
        load_balancer_ips=(V6,),
        source_ranges=(ip_network("192.0.2.0/24"),),
        external_local=True,
    ),
    Kind.SERVICE_CIDR: ServiceCIDR(Ref("", "kubernetes"), (ip_network("10.96.0.0/12"),)),
    Kind.SLICE: EndpointSlice(
        Ref("default", "web-1"),
        "web",
        (SlicePort("http", Protocol.TCP, 8080),),
        (
            SliceEndpoint(V6, True, True, False, "n1", WEB, "a", ("a", "b"), ("n1",)),
            SliceEndpoint(V4, *(False,) * 3, "", None),
        ),
    ),
    Kind.POLICY: NetworkPolicy(
        Ref("default", "p"),
        SELECTOR,
        True,
        False,
        (
            Rule((Peer(pods=SELECTOR), Peer(block=BLOCK)), (PolicyPort(Protocol.UDP, "dns"),)),
            Rule((Peer(namespaces=Selector()),), (PolicyPort(Protocol.TCP, 80, 90),)),
        ),
        (),
    ),
}


def world_of(records: dict[Kind, Record]) -> World:
    world = World(Settings("n1"))
    for kind, record in records.items():
        world = world.with_change(Change(kind, key_of(record), None, record))
    return world


def test_every_kind_comes_back_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "api.json"
    checkpoint.save(path, world_of(RECORDS))
    loaded = {listed.kind: listed for listed in checkpoint.load(path, "n1")}
    assert {kind: list(listed.records.values()) for kind, listed in loaded.items()} == {
        kind: [record] for kind, record in RECORDS.items()
    }
    assert all(listed.cached for listed in loaded.values())


def test_only_root_may_read_it(tmp_path: Path) -> None:
    path = tmp_path / "api.json"
    checkpoint.save(path, world_of({}))
    assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("text", ["", "{", "[]", '{"format": 99, "node": "n1", "tables": {}}'])
def test_a_checkpoint_that_does_not_read_is_as_if_there_were_none(
    tmp_path: Path, text: str
) -> None:
    path = tmp_path / "api.json"
    path.write_text(text)
    assert list(checkpoint.load(path, "n1")) == []


def test_another_nodes_checkpoint_is_not_used(tmp_path: Path) -> None:
    path = tmp_path / "api.json"
    checkpoint.save(path, world_of({}))
    assert list(checkpoint.load(path, "n2")) == []


def test_a_missing_checkpoint_is_no_error(tmp_path: Path) -> None:
    assert list(checkpoint.load(tmp_path / "api.json", "n1")) == []


A, B = (f"192.0.2.{n}" for n in (1, 2))


def api_server(*addresses: str) -> EndpointSlice:
    some = tuple(SliceEndpoint(ip_address(a), True, True, False, "", None) for a in addresses)
    return EndpointSlice(API_SERVER, API_SERVER.name, (), some)


def known(world: World) -> set[str]:
    pieces = world.slices_of(API_SERVER)
    return {str(endpoint.address) for piece in pieces for endpoint in piece.endpoints}


def started(path: Path, *listed: EndpointSlice) -> World:
    """As a daemon starts: what is on disk, then what the API lists."""
    intake = Intake(World(Settings("n1")), frozenset({Kind.SLICE}))
    for moved in checkpoint.load_api_servers(path, "n1"):
        list(intake.take(moved))
    list(intake.take(Listed(Kind.SLICE, {piece.ref: piece for piece in listed})))
    return intake.world


@pytest.mark.parametrize("listed", [(), (api_server(),)], ids=["none", "empty"])
def test_a_start_while_the_api_servers_slices_are_empty_goes_by_the_last_known(
    tmp_path: Path, listed: tuple[EndpointSlice, ...]
) -> None:
    path = tmp_path / "api.json"
    web = RECORDS[Kind.SLICE]
    assert isinstance(web, EndpointSlice)
    checkpoint.save(path, started(path, api_server(A), web))
    assert known(started(path, *listed)) == {A}
    checkpoint.save(path, started(path, *listed))
    assert known(started(path, *listed)) == {A}
    assert not started(path, *listed).slices_of(WEB)


def test_a_start_goes_by_what_the_api_says_where_it_says_something(tmp_path: Path) -> None:
    path = tmp_path / "api.json"
    checkpoint.save(path, started(path, api_server(A)))
    assert known(started(path, api_server(B))) == {B}


def test_a_start_without_a_file_or_with_another_nodes_knows_nothing(tmp_path: Path) -> None:
    path = tmp_path / "api.json"
    assert known(started(path)) == set()
    checkpoint.save(path, started(path, api_server(A)))
    assert list(checkpoint.load_api_servers(path, "n2")) == []
