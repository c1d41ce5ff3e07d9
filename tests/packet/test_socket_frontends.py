"""What a frontend's flags make of connect(): by the node's sockets, and what is left to packets."""

import socket
from contextlib import suppress

import pytest

from tests.packet.packets import TCP, UDP
from tests.packet.scene import SERVICE
from tests.packet.sockets import Sockets, received, socket_counts
from weft.bpf.layout import (
    Backend,
    BackendFlag,
    Frontend,
    FrontendFlag,
    FrontendKey,
    PrefixFlag,
    Reason,
    Slot,
    SlotKey,
)
from weft.proxy.model.objects import Address

PROTOCOLS = {socket.SOCK_STREAM: TCP, socket.SOCK_DGRAM: UDP}
KINDS = [pytest.param(kind, id=name) for kind, name in
         ((socket.SOCK_STREAM, "tcp"), (socket.SOCK_DGRAM, "udp"))]  # fmt: skip


def serve(
    sockets: Sockets,
    kind: socket.SocketKind,
    *servers: socket.socket,
    flags: int = 0,
    affinity_s: int = 0,
    at: Address | None = None,
    port: int = 80,
) -> None:
    """At the VIP or `at`. None of the servers is a local endpoint."""
    for number, one in enumerate(servers):
        sockets.node.put("backends", number + 1, Backend(SERVICE, BackendFlag.CHOSEN))
        slot = Slot(number + 1, sockets.loopback, one.getsockname()[1])
        sockets.node.put("slots", SlotKey(SERVICE, number), slot)
    key = FrontendKey(at or sockets.at.vip, port, PROTOCOLS[kind])
    row = Frontend(SERVICE, SERVICE + 1, len(servers), 0, affinity_s, flags, 0)
    sockets.node.put("frontends", key, row)


def dial(sockets: Sockets, kind: socket.SocketKind) -> dict[Reason, int]:
    """The VIP, without waiting for what comes of it; what was counted before."""
    before = socket_counts(sockets)
    client = sockets.open(kind)
    client.setblocking(False)
    with suppress(OSError):
        client.connect((sockets.vip, 80))
    return before


UNSERVED = [
    pytest.param(
        FrontendFlag.LOCAL_INSIDE | FrontendFlag.ELSEWHERE, Reason.NO_LOCAL_BACKEND, id="not local"
    ),
    pytest.param(
        FrontendFlag.EXTERNAL | FrontendFlag.RANGES, Reason.SOURCE_RANGE, id="out of range"
    ),
]


@pytest.mark.parametrize(("flags", "reason"), UNSERVED)
def test_a_silent_drop_is_a_time_out_for_the_nodes_tcp_and_a_denial_for_its_udp(
    sockets: Sockets, flags: int, reason: Reason
) -> None:
    sockets.be_the_node()
    for kind, error in ((socket.SOCK_STREAM, TimeoutError), (socket.SOCK_DGRAM, PermissionError)):
        serve(sockets, kind, sockets.server(kind), flags=flags)
        before = socket_counts(sockets).get(reason, 0)
        with pytest.raises(error):
            sockets.open(kind).connect((sockets.vip, 80))
        assert socket_counts(sockets)[reason] == before + 1
    with pytest.raises(PermissionError):
        sockets.open(socket.SOCK_DGRAM).sendto(b"question", (sockets.vip, 80))


@pytest.mark.parametrize("kind", KINDS)
def test_an_address_of_the_service_range_without_service_is_a_silent_drop_for_the_node(
    sockets: Sockets, kind: socket.SocketKind
) -> None:
    sockets.prefix(sockets.at.services, PrefixFlag.SERVICE)
    before = dial(sockets, kind)
    assert socket_counts(sockets) == before  # a pod's: its packets say so
    sockets.be_the_node()
    error = TimeoutError if kind == socket.SOCK_STREAM else PermissionError
    with pytest.raises(error):
        sockets.open(kind).connect((sockets.vip, 80))
    assert socket_counts(sockets)[Reason.NO_SERVICE] == before.get(Reason.NO_SERVICE, 0) + 1


@pytest.mark.parametrize("flags", [FrontendFlag.OPEN, FrontendFlag.OTHER_PROXY])
def test_what_is_not_ours_at_a_services_address_is_dialled_as_it_is(
    sockets: Sockets, flags: FrontendFlag
) -> None:
    sockets.be_the_node()
    sockets.prefix(sockets.at.services, PrefixFlag.SERVICE)
    whole = FrontendKey(sockets.at.vip, 0, 0)
    sockets.node.put("frontends", whole, Frontend(0, 0, 0, 0, 0, flags, 0))
    for kind in PROTOCOLS:
        before = dial(sockets, kind)
        assert socket_counts(sockets) == before


@pytest.mark.parametrize(("flags", "_reason"), UNSERVED)
def test_pods_sockets_leave_a_silent_drop_to_their_packets(
    sockets: Sockets, flags: int, _reason: Reason
) -> None:
    serve(sockets, socket.SOCK_STREAM, sockets.server(socket.SOCK_STREAM), flags=flags)
    assert not sockets.is_translated()


@pytest.mark.parametrize("kind", KINDS)
def test_the_node_reaches_what_its_address_is_in_the_ranges_of(
    sockets: Sockets, kind: socket.SocketKind
) -> None:
    sockets.be_the_node()
    flags = FrontendFlag.RANGES | FrontendFlag.NODE_IN_RANGES
    serve(sockets, kind, sockets.server(kind), flags=flags)
    sockets.open(kind).connect((sockets.vip, 80))


def test_pods_sockets_leave_affinity_to_their_packets(sockets: Sockets) -> None:
    serve(sockets, socket.SOCK_STREAM, sockets.server(socket.SOCK_STREAM), affinity_s=60)
    assert not sockets.is_translated()
    assert not sockets.node.rows("affinities")


def test_the_nodes_sockets_share_one_affinity(sockets: Sockets) -> None:
    node_ip = sockets.at.outside
    sockets.settings(host_netns=sockets.netns_cookie(), node4=node_ip, node6=node_ip)
    servers = [sockets.server(socket.SOCK_DGRAM) for _ in range(2)]
    serve(sockets, socket.SOCK_DGRAM, *servers, affinity_s=60)
    for _ in range(20):
        sockets.open(socket.SOCK_DGRAM).sendto(b"question", (sockets.vip, 80))
    assert sorted(map(received, servers)) == [0, 20]
    (key,) = sockets.node.rows("affinities")
    assert node_ip.packed in key


def test_a_node_port_at_the_loopback_is_the_nodes_to_dial_and_not_a_pods(sockets: Sockets) -> None:
    server = sockets.server(socket.SOCK_STREAM)
    flags = FrontendFlag.EXTERNAL | FrontendFlag.NODE_PORT | FrontendFlag.LOOPBACK
    serve(sockets, socket.SOCK_STREAM, server, flags=flags, at=sockets.loopback, port=30080)
    dialled = (str(sockets.loopback), 30080)
    before = socket_counts(sockets)
    with pytest.raises(ConnectionRefusedError):
        sockets.open(socket.SOCK_STREAM).connect(dialled)
    assert socket_counts(sockets) == before
    sockets.be_the_node()
    client = sockets.open(socket.SOCK_STREAM)
    client.connect(dialled)
    assert client.getpeername()[:2] == dialled


def test_the_nodes_datagrams_to_an_unserved_port_are_refused_when_sent_not_when_it_connects(
    sockets: Sockets,
) -> None:
    """ping asks for its route by a connect()."""
    sockets.be_the_node()
    sockets.serve(UDP, sockets.server(socket.SOCK_DGRAM))
    before = socket_counts(sockets)
    with suppress(OSError):  # where this machine has no route
        sockets.open(socket.SOCK_DGRAM).connect((sockets.vip, 1025))
    assert socket_counts(sockets) == before
    with pytest.raises(ConnectionRefusedError):
        sockets.open(socket.SOCK_DGRAM).sendto(b"question", (sockets.vip, 1025))
    with pytest.raises(ConnectionRefusedError):
        sockets.open(socket.SOCK_STREAM).connect((sockets.vip, 1025))
