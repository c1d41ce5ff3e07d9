"""More Services than 16 bits can number, through the planner into the kernel's tables."""

from collections import defaultdict
from collections.abc import Iterator

from tests.packet.packets import read
from tests.packet.scene import Scene
from weft.bpf.layout import Reason
from weft.proxy.model.objects import (
    EndpointSlice,
    Kind,
    Protocol,
    Ref,
    Service,
    ServicePort,
    SliceEndpoint,
    SlicePort,
)
from weft.proxy.model.world import Change, Settings, World, apply_changes
from weft.proxy.plan import services

SERVICES = 70_000
ASKED = (0, 1, 4_463, 4_464, 65_535, 65_536, SERVICES - 1)
"""Some whose numbers would be one in 16 bits; these have an endpoint."""


def cluster(scene: Scene) -> Iterator[Change]:
    """Each Service at an address of its own; what is asked listens at a port of its own."""
    port = ServicePort("http", Protocol.TCP, 80)
    for number in range(SERVICES):
        ref = Ref("many", f"s{number}")
        yield Change(
            Kind.SERVICE, ref, None, Service(ref, "ClusterIP", (scene.at.vip + number,), (port,))
        )
    for at, number in enumerate(ASKED):
        ref = Ref("many", f"s{number}")
        behind = SliceEndpoint(scene.at.b, True, True, False, "n1", None)
        ports = (SlicePort("http", Protocol.TCP, 8080 + at),)
        yield Change(Kind.SLICE, ref, None, EndpointSlice(ref, ref.name, ports, (behind,)))


def test_seventy_thousand_services_are_each_reached_as_their_own(scene4: Scene) -> None:
    scene4.two_pods()
    world = apply_changes(World(Settings("n1")), cluster(scene4))
    tables: defaultdict[str, dict[bytes, bytes]] = defaultdict(dict)
    for ref in world.table(Kind.SERVICE):
        for table, key, value in services.PLANNER.rows(world, ref):
            assert isinstance(key, bytes)
            assert isinstance(value, bytes)
            tables[table][key] = value
    for table, rows in tables.items():
        scene4.node.tables[table].update(rows)
        assert len(scene4.node.tables[table]) == len(rows)
    assert len(tables["frontends"]) == 2 * SERVICES
    for at, number in enumerate(ASKED):
        outcome = scene4.send(scene4.tcp(scene4.at.a, scene4.at.vip + number))
        assert (outcome.reason, read(outcome.packet).dport) == (Reason.DELIVERED, 8080 + at)
    outcome = scene4.send(scene4.tcp(scene4.at.a, scene4.at.vip + 2))
    assert outcome.reason is Reason.NO_BACKEND
