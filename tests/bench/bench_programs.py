"""Program times by BPF_PROG_TEST_RUN: an established flow and a new flow to a service with policy,
at 10 and at 10,000 services and policy rows, against an empty program in the same run."""

import os
import struct
from collections.abc import Iterator
from dataclasses import replace
from ipaddress import IPv4Address
from statistics import median

from tests.bench.report import Figure, show
from tests.packet.packets import ACK, TCP, UDP
from tests.packet.runner import Node, loaded
from tests.packet.scene import ADDRESSES, EGRESS, HOST_MAC, INGRESS, MAC_B, Port, Scene
from weft.bpf import syscall
from weft.bpf.layout import (
    Backend,
    Frontend,
    FrontendKey,
    PortKey,
    Slot,
    SlotKey,
    Verdict,
    VerdictKey,
    pack_u32,
    pack_u64,
)
from weft.bpf.syscall import AttachType, ProgramType

REPEAT, ROUNDS, NEW_FLOWS = 200_000, 5, 2_000
SIZES = (10, 10_000)
# r0 = TC_ACT_UNSPEC; exit
_EMPTY = struct.pack("=BBhi", 0xB7, 0, 0, -1) + struct.pack("=BBhi", 0x95, 0, 0, 0)


def services(node: Node, count: int) -> None:
    """As many services of one endpoint each, beside the one under test."""
    vips, pods = int(IPv4Address("10.100.0.0")), int(IPv4Address("10.200.0.0"))
    frontends, slots, backends = {}, {}, {}
    for number in range(1, count):
        one = 1000 + number
        key = FrontendKey(IPv4Address(vips + number), 80, TCP)
        frontends[key.pack()] = Frontend(one, 1, 0).pack()
        slots[SlotKey(one, 0).pack()] = Slot(one, IPv4Address(pods + number), 8080).pack()
        backends[pack_u64(one)] = Backend(one).pack()
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


def scenery(node: Node, count: int) -> Scene:
    """Two isolated pods that may talk. The sender's MAC is what delivery writes as the source, so
    that a packet stays good however often it is run."""
    node.clear()
    scene = Scene(node, ADDRESSES[4])
    scene.settings()
    scene.pod(scene.at.a, mac=HOST_MAC, egress=(EGRESS, 1))
    scene.pod(scene.at.b, mac=MAC_B, ingress=(INGRESS, 1))
    for number in (EGRESS, INGRESS):
        scene.rule_set(number, {7: 2}, [Port(1, TCP, 8080), Port(1, UDP, 8080)])
    scene.peer(scene.at.a, 7)
    scene.peer(scene.at.b, 7)
    scene.service(TCP, scene.at.b)
    scene.service(UDP, scene.at.b)
    services(node, count)
    policies(node, count)
    return scene


def empty_program() -> int:
    return syscall.load_program(ProgramType.SCHED_CLS, AttachType.NONE, _EMPTY, "empty")


def empty_ns(fd: int, frame: bytes, repeat: int) -> int:
    return min(
        syscall.run_program(fd, frame, bytes(192), repeat).duration_ns for _ in range(ROUNDS)
    )


def established_ns(scene: Scene) -> int:
    sent = replace(scene.tcp(scene.at.a, scene.at.b, dport=8080), eth_src=HOST_MAC)
    scene.send(sent)
    frame = replace(sent, flags=ACK).frame
    runs = [scene.node.repeat("from_pod", frame, REPEAT) for _ in range(ROUNDS)]
    return min(run.duration_ns for run in runs)


def new_flows(scene: Scene, first_port: int) -> Iterator[int]:
    """One run each: look-ups and choice, both ends judged, translation and flow written."""
    sent = replace(scene.tcp(scene.at.a, scene.at.vip), eth_src=HOST_MAC)
    for port in range(first_port, first_port + NEW_FLOWS):
        yield scene.node.repeat("from_pod", replace(sent, sport=port).frame, 1).duration_ns


def new_flow_ns(scene: Scene) -> float:
    return min(median(new_flows(scene, 5_000 + NEW_FLOWS * turn)) for turn in range(ROUNDS))


def main() -> None:
    figures = []
    with loaded() as node:
        empty = empty_program()
        for count in SIZES:
            scene = scenery(node, count)
            frame = scene.tcp(scene.at.a, scene.at.b).frame
            floor, one = empty_ns(empty, frame, REPEAT), empty_ns(empty, frame, 1)
            known, new = established_ns(scene), new_flow_ns(scene)
            at = f"at {count:,} services and rule sets"
            figures += [
                Figure(f"empty program, {REPEAT:,} runs; one run", f"{floor} ns; {one} ns"),
                Figure(f"established flow {at}", f"{known} ns = {known / floor:.1f} x", "<= 4 x"),
                Figure(f"new flow to a service with policy {at}", f"{new - one:.0f} ns", "900 ns"),
            ]
        os.close(empty)
    show("program times", figures)


if __name__ == "__main__":
    main()
