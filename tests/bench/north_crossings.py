"""Owns what the programs' bench sends through the programs for clients outside: in by an uplink to
a pod here, a pod there and the node, the answers out; and what is refused or denied.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from ipaddress import IPv4Address

from tests.bench.crossings import UPLINK_MAC, VNI, Crossing, numbered, to_pod
from tests.bench.preamble import Given, Tunnel
from tests.packet.packets import UDP, Address, Packet
from tests.packet.scene import HOST_MAC, LINK, MAC_B, UPLINK, Scene, answer
from weft.bpf.layout import Backend, Frontend, FrontendKey, Reason, Slot, SlotKey

# Of the VIP: the port whose endpoint is a pod there, this node, another node, the client itself.
THERE, OWN, OTHER, ITSELF, NOBODYS = 81, 82, 83, 84, 99
TARGET = 8080


def north_crossings(scene: Scene) -> list[Crossing]:
    return [*enter(scene), *are_answered(scene), *by_stack(scene), *within(scene), *refused(scene)]


def enter(scene: Scene) -> list[Crossing]:
    here, there, own = (client(scene, port) for port in (80, THERE, OWN))
    return [
        Crossing("from_uplink, client to a VIP, pod here", "from_uplink", Reason.DELIVERED, here,
                 numbered(here)),
        Crossing("from_uplink, client to a VIP, pod there", "from_uplink", Reason.TUNNELLED, there,
                 numbered(there), prepare=pod_there),
        Crossing("from_uplink, client to a VIP, own node", "from_uplink", Reason.STACK, own,
                 numbered(own), prepare=own_node),
    ]  # fmt: skip


def are_answered(scene: Scene) -> list[Crossing]:
    at = scene.at
    assert isinstance(at.peer_node, IPv4Address)
    from_here = replace(reply(scene, at.b), eth_src=MAC_B)
    from_there = Given(reply(scene, at.c).frame, LINK, tunnel=Tunnel(VNI, at.peer_node))
    return [
        Crossing("from_pod, answer to a client", "from_pod", Reason.ANSWERED,
                 Given(from_here.frame), prepare=partial(came_in, port=80)),
        Crossing("from_overlay, answer to a client", "from_overlay", Reason.ANSWERED, from_there,
                 prepare=after(pod_there, THERE)),
        Crossing("to_uplink, answer to a client", "to_uplink", Reason.ANSWERED,
                 Given(reply(scene, at.uplink).frame), prepare=after(own_node, OWN)),
    ]  # fmt: skip


def by_stack(scene: Scene) -> list[Crossing]:
    """What the stack carries, and what the node's own traffic pays once it carried a client."""
    at = scene.at
    own, comes = scene.udp(at.uplink, at.outside), scene.udp(at.outside, at.uplink)
    passes = to_pod(scene.udp(at.outside, at.peer_node, dport=TARGET), LINK)
    on = to_pod(scene.udp(at.outside, at.c, dport=TARGET), UPLINK)
    once = after(own_node, OWN)
    return [
        Crossing("to_uplink, client on to another node", "to_uplink", Reason.MASQUERADED, passes,
                 prepare=after(other_node, OTHER)),
        Crossing("to_overlay, client on to a pod there", "to_overlay", Reason.TUNNELLED, on,
                 numbered(on), prepare=Scene.remote_range),
        Crossing("to_uplink, the node's own, once a client came", "to_uplink", Reason.NOT_OURS,
                 Given(own.frame), prepare=once),
        Crossing("from_uplink, for the node itself, once a client came", "from_uplink",
                 Reason.NOT_OURS, Given(comes.frame, UPLINK), prepare=once),
    ]  # fmt: skip


def within(scene: Scene) -> list[Crossing]:
    itself = Given(scene.udp(scene.at.a, scene.at.vip, dport=ITSELF).frame)
    return [
        Crossing("from_pod, hairpin", "from_pod", Reason.DELIVERED, itself, numbered(itself),
                 prepare=partial(serve, port=ITSELF, endpoint=scene.at.a)),
    ]  # fmt: skip


def refused(scene: Scene) -> list[Crossing]:
    """A SYN, whose refusal is as long as itself: a test run's packet stays what it has become. Of
    drops the daemon is told, until the ring buffer is full."""
    at = scene.at
    pods, denied = (scene.tcp(at.a, to, dport=NOBODYS) for to in (at.vip, at.b))
    clients = replace(scene.tcp(at.outside, at.vip, dport=NOBODYS), eth_dst=UPLINK_MAC)
    return [
        Crossing("from_pod, refused", "from_pod", Reason.NO_BACKEND, Given(pods.frame)),
        Crossing("from_uplink, refused", "from_uplink", Reason.NO_BACKEND,
                 Given(clients.frame, UPLINK)),
        Crossing("from_pod, denied", "from_pod", Reason.POLICY_EGRESS, Given(denied.frame)),
    ]  # fmt: skip


# --- The parts ------------------------------------------------------------------------------------
def dialled(scene: Scene, port: int) -> Packet:
    one = scene.udp(scene.at.outside, scene.at.vip, dport=port)
    return replace(one, eth_src=HOST_MAC, eth_dst=UPLINK_MAC)


def client(scene: Scene, port: int) -> Given:
    return Given(dialled(scene, port).frame, UPLINK)


def reply(scene: Scene, endpoint: Address) -> Packet:
    """Of an endpoint, to what it got of the client."""
    return answer(scene.udp(scene.at.outside, endpoint, dport=TARGET))


def came_in(scene: Scene, port: int) -> None:
    """The client's first packet."""
    frame = dialled(scene, port).frame
    scene.node.run("from_uplink", frame, ifindex=UPLINK, received_on=UPLINK)


def after(prepare: Callable[[Scene], None], port: int) -> Callable[[Scene], None]:
    def both(scene: Scene) -> None:
        prepare(scene)
        came_in(scene, port)

    return both


def pod_there(scene: Scene) -> None:
    scene.remote_range()
    serve(scene, THERE, scene.at.c)


def own_node(scene: Scene) -> None:
    serve(scene, OWN, scene.at.uplink)


def other_node(scene: Scene) -> None:
    serve(scene, OTHER, scene.at.peer_node)


def serve(scene: Scene, port: int, endpoint: Address) -> None:
    """A port of the VIP with one endpoint."""
    service, node = 0x5EC0000 + port, scene.node
    node.put("backends", service, Backend(service, 0))
    node.put("slots", SlotKey(service, 0), Slot(service, endpoint, TARGET))
    frontend = Frontend(service, 0, 1, 0, 0, 0, 1)
    node.put("frontends", FrontendKey(scene.at.vip, port, UDP), frontend)
