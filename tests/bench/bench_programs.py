"""Program times by BPF_PROG_TEST_RUN for every way through a program, with policy: a busy flow,
many flows in turn, new flows; at 10 and at 100,000 services. Each run is taken beside the same
run of an empty program."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from ipaddress import IPv4Address

from tests.bench.crossings import FLOWS, Crossing, crossings
from tests.bench.north_crossings import north_crossings
from tests.bench.preamble import Given, Preamble, empty_program, preamble
from tests.bench.report import Figure, show
from tests.packet.packets import TCP, UDP
from tests.packet.runner import Node, await_tick, loaded
from tests.packet.scene import ADDRESSES, EGRESS, INGRESS, MAC_B, Port, Scene
from weft.bpf import syscall
from weft.bpf.layout import (
    Backend,
    Frontend,
    FrontendKey,
    NorthSouth,
    PortKey,
    Slot,
    SlotKey,
    Verdict,
    VerdictKey,
    pack_u32,
    pack_u64,
)

REPEAT, ROUNDS = 100_000, 5
# Services, and rule sets of policies.
FEW, MANY = (10, 10), (100_000, 10_000)
STATE = ("flows", "translations", "snat", "fragments")
HEADLINES = {
    "from_pod, pod here": "busy",
    "from_pod, VIP with its endpoint here": "new",
}


@dataclass(frozen=True, slots=True)
class Times:
    """Nanoseconds of a crossing's program by what it met: "busy", "many" flows, "new" ones."""

    crossing: Crossing
    ns: Mapping[str, int]


def services(node: Node, count: int) -> None:
    """As many services of one endpoint each, beside the one under test."""
    vips, pods = int(IPv4Address("10.100.0.0")), int(IPv4Address("10.200.0.0"))
    frontends, slots, backends = {}, {}, {}
    for number in range(1, count):
        one = 1_000_000 + number
        key = FrontendKey(IPv4Address(vips + number), 80, TCP)
        frontends[key.pack()] = Frontend(one, 0, 1, 0, 0, 0, 0).pack()
        slots[SlotKey(one, 0).pack()] = Slot(one, IPv4Address(pods + number), 8080).pack()
        backends[pack_u64(one)] = Backend(one, 0).pack()
    for table, rows in (("frontends", frontends), ("slots", slots), ("backends", backends)):
        node.tables[table].update(rows)


def policies(node: Node, count: int) -> None:
    """As many rule sets with one peer class and one port each, beside the two under test."""
    verdicts, ports = {}, {}
    for number in range(1, count):
        one = 1_000_000 + number
        verdicts[VerdictKey(one, number).pack()] = Verdict((2, 0, 0, 0)).pack()
        key = PortKey(96, one & 0xFFFFFFFF, one >> 32, TCP, 80)
        ports[key.pack()] = pack_u32(1)
    node.tables["verdicts"].update(verdicts)
    node.tables["ports"].update(ports)


def scenery(node: Node, size: tuple[int, int]) -> Scene:
    """Two isolated pods that may talk to each other, to another node's and to the outside."""
    node.clear()
    scene = Scene(node, ADDRESSES[4])
    scene.settings()
    scene.pod(scene.at.a, egress=(EGRESS, 1))
    scene.pod(scene.at.b, mac=MAC_B, ingress=(INGRESS, 1))
    scene.local_range()
    scene.uplink()
    for number in (EGRESS, INGRESS):
        scene.rule_set(number, {7: 2}, [Port(1, TCP, 8080), Port(1, UDP, 8080)])
    for peer in (scene.at.a, scene.at.b, scene.at.c, scene.at.outside):
        scene.peer(peer, 7)
    scene.service(UDP, scene.at.b)
    services(node, size[0])
    policies(node, size[1])
    return scene


def measured(scene: Scene, empty: int) -> Iterator[Times]:
    for crossing in (*crossings(scene), *north_crossings(scene)):
        yield Times(crossing, dict(times(scene, empty, crossing)))


def times(scene: Scene, empty: int, crossing: Crossing) -> Iterator[tuple[str, int]]:
    forget(scene)
    crossing.prepare(scene)
    if crossing.known:
        yield "busy", program_ns(scene, empty, crossing, crossing.known)
    if crossing.new and crossing.many:
        assert crossing.known
        assert crossing.new.numbering
        numbering = replace(crossing.new.numbering, flows=FLOWS)
        many = replace(crossing.known, numbering=numbering)
        yield "many", program_ns(scene, empty, crossing, many)
    if crossing.new:
        yield "new", new_ns(scene, empty, crossing, crossing.new)


def forget(scene: Scene) -> None:
    """Flows and the like, and that clients came; what waits is told by the ring, which must not be
    full."""
    for name in STATE:
        table = scene.node.tables[name]
        table.delete([key for key, _ in table.items()])
    scene.node.put("north_south", 0, NorthSouth(0, 0))
    scene.settings()
    scene.node.told()


def program_ns(scene: Scene, empty: int, crossing: Crossing, given: Given) -> int:
    """The least of the rounds, the first of which makes the flows."""
    program = scene.node.programs[crossing.program].fd
    with preamble(given) as before:
        floor = min(before.mean_ns(empty, REPEAT) for _ in range(ROUNDS))
        before.mean_ns(program, FLOWS)
        best = min(checked(scene, crossing, before, REPEAT, program, 0) for _ in range(ROUNDS))
    return best - floor + bare_ns(empty, given)


def new_ns(scene: Scene, empty: int, crossing: Crossing, given: Given) -> int:
    """Every packet the first of another flow; between rounds a tick passes."""
    program, count = scene.node.programs[crossing.program].fd, crossing.burst
    taken = []
    with preamble(given) as before:
        floor = min(before.mean_ns(empty, count) for _ in range(ROUNDS))
        for turn in range(ROUNDS):
            await_tick()
            first = 1 + turn * count
            taken.append(checked(scene, crossing, before, count, program, first))
    return min(taken) - floor + bare_ns(empty, given)


def checked(
    scene: Scene, crossing: Crossing, before: Preamble, repeat: int, program: int, first: int
) -> int:
    """Raises unless every packet left by the exit that the crossing names."""
    counted = scene.node.counts().get(crossing.exit, 0)
    taken = before.mean_ns(program, repeat, first)
    went = scene.node.counts().get(crossing.exit, 0) - counted
    if went != repeat:
        raise RuntimeError(f"{crossing.name}: {went} of {repeat} packets: {scene.node.counts()}")
    return taken


def bare_ns(empty: int, given: Given) -> int:
    """The empty program without a preamble."""
    return min(
        syscall.run_program(empty, given.frame, bytes(192), REPEAT).duration_ns
        for _ in range(ROUNDS)
    )


def figures(few: list[Times], many: list[Times], floor: int) -> list[Figure]:
    return [
        Figure("empty program", f"{floor} ns"),
        *(Figure(one.crossing.name, text(one.ns)) for one in many),
        *(line for one, other in zip(few, many, strict=True) for line in goals(one, other, floor)),
    ]


def text(ns: Mapping[str, int]) -> str:
    words = {"busy": "{} ns", "many": f"{{}} ns in {FLOWS:,} flows", "new": "{} ns new"}
    return ", ".join(words[kind].format(value) for kind, value in ns.items())


def goals(few: Times, many: Times, floor: int) -> Iterator[Figure]:
    kind = HEADLINES.get(many.crossing.name)
    if not kind:
        return
    name, at_few, at_many = many.crossing.name, few.ns[kind], many.ns[kind]
    if kind == "busy":
        yield Figure(f"{name}: against empty", f"{at_many / floor:.1f} x", "<= 4 x")
    else:
        yield Figure(f"{name}: a new flow", f"{at_many} ns", "<= 900 ns")
    ratio = f"{at_many / at_few:.2f} x"
    yield Figure(f"{name}: {MANY[0]:,} services against {FEW[0]:,}", ratio, "<= 1.15 x")


def main() -> None:
    with loaded() as node, empty_program() as empty:
        few = list(measured(scenery(node, FEW), empty))
        scene = scenery(node, MANY)
        many = list(measured(scene, empty))
        floor = bare_ns(empty, Given(scene.udp(scene.at.a, scene.at.b).frame))
    show(f"program times at {MANY[0]:,} services and {MANY[1]:,} rule sets",
         figures(few, many, floor))  # fmt: skip


if __name__ == "__main__":
    main()
