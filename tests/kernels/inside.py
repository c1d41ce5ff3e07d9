"""What is tried on an old kernel, run by its guest's init: `python -m tests.kernels.inside`.

Every check is a function whose name is its sentence. One line for each on the console, which
test_kernels.py reads: PASS or FAIL, the name, and why.
"""

import errno
import os
import socket
import struct
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from ipaddress import IPv4Address
from pathlib import Path

from weft.bpf import syscall
from weft.bpf.clsact import LinkDirection
from weft.bpf.events import EventReader
from weft.bpf.features import Features, jiffies_hz, netns_cookie, probe
from weft.bpf.hook import Errors, Hooks, LinkPlace, Place, SocketPlace
from weft.bpf.layout import (
    DIRECTION_COUNT,
    TABLES,
    UNSPECIFIED,
    Backend,
    Counter,
    Direction,
    Frontend,
    FrontendKey,
    Settings,
    Slot,
    SlotKey,
    pack_u32,
    pack_u64,
    unpack_u32,
)
from weft.bpf.load import Datapath, create_table, open_datapath
from weft.bpf.objects import SOCKET_PROGRAMS, read_objects
from weft.bpf.wire import TableKind

OBJECTS, PINS, CGROUP = Path("/objects"), Path("/sys/fs/bpf/weft"), Path("/sys/fs/cgroup")
SMALL = {"flows": 1_024, "translations": 1_024, "snat": 1_024, "sockets": 1_024}
IN, OUT = LinkDirection.INGRESS, LinkDirection.EGRESS
VIP, CLOSED_VIP, SERVICE, BACKEND = IPv4Address("10.96.0.10"), IPv4Address("10.96.0.11"), 77, 78
TCP, SHOT = 6, 2


class Guest:
    """The opened datapath with its hooks, and a pod's link: host0 here, eth0 in namespace pod."""

    def __init__(self, stack: ExitStack) -> None:
        self.features: Features = probe()
        self.datapath: Datapath = stack.enter_context(
            open_datapath(pins=PINS, objects=OBJECTS, entries=SMALL)
        )
        self.hooks = stack.enter_context(
            Hooks(self.datapath.programs, PINS, CGROUP, has_tcx=self.features.tcx)
        )
        for words in (
            "netns add pod",
            "link add host0 type veth peer name eth0 netns pod",
            "link set host0 up",
            "-n pod link set eth0 up",
            "-n pod address add 10.9.0.2/24 dev eth0",
            "link add up0 type veth peer name up1",
            "link set up0 up",
            "link set up1 up",
            "link add vx0 type vxlan external dstport 8472",
            "link set vx0 up",
        ):
            subprocess.run(["ip", *words.split()], check=True)

    def counted(self, direction: Direction) -> int:
        """Packets that programs saw in a direction, whatever they did with them."""
        total = 0
        for key, cpus in self.datapath.tables["counters"].items():
            if unpack_u32(key) % DIRECTION_COUNT == direction:
                rows = (cpus[at : at + Counter.SIZE] for at in range(0, len(cpus), Counter.SIZE))
                total += sum(Counter.unpack(row).packets for row in rows)
        return total


def no_errors(errors: Errors) -> None:
    assert not errors, dict(errors)


def every_program_is_loaded(guest: Guest) -> None:
    wanted = {program.name for unit in read_objects(OBJECTS) for program in unit.programs}
    assert set(guest.datapath.programs) == wanted
    for program in guest.datapath.programs.values():
        print(f"  {program.name}: {program.verified_insns} instructions verified")


def the_kernel_is_supported_and_what_it_lacks_is_said(guest: Guest) -> None:
    version = tuple(int(word) for word in os.uname().release.split("-")[0].split(".")[:2])
    assert guest.features.supported
    assert guest.features.tcx == (version >= (6, 6))
    assert len(guest.features.missing) == (not guest.features.tcx)
    assert jiffies_hz() in (100, 250, 300, 1000)
    assert netns_cookie() > 0


def every_kind_of_table_is_written_listed_and_emptied(_: Guest) -> None:
    for spec in TABLES.values():
        if spec.kind in (TableKind.RINGBUF, TableKind.PROG_ARRAY, TableKind.PERCPU_ARRAY):
            continue
        with create_table(spec, 64) as table:
            count = 1 if spec.kind is TableKind.ARRAY else 5
            rows = {_key(spec.key_size, n, spec.kind): bytes(spec.value_size) for n in range(count)}
            table.update(rows)
            listed = dict(table.items())
            assert rows.items() <= listed.items(), spec.name
            table.delete([*rows, _key(spec.key_size, 60, spec.kind)])
            if spec.kind is not TableKind.ARRAY:
                assert len(table) == 0, spec.name


def every_table_takes_the_names_of_its_fields(guest: Guest) -> None:
    assert not guest.datapath.untyped, guest.datapath.untyped


def _key(size: int, number: int, kind: TableKind) -> bytes:
    if kind is TableKind.ARRAY:
        return pack_u32(number)
    if kind is TableKind.LPM_TRIE:
        return pack_u32(8 * (size - 4)) + number.to_bytes(size - 4, "big")
    return number.to_bytes(size, "big")


def maps_are_opened_again_from_their_pins(guest: Guest) -> None:
    key, row = pack_u64(5), Backend(6, 0).pack()
    guest.datapath.tables["backends"].update({key: row})
    path = next(PINS.glob("maps/backends-*"))
    descriptor = syscall.open_pin(path)
    assert syscall.map_info(descriptor, "backends").value_size == Backend.SIZE
    os.close(descriptor)
    guest.datapath.tables["backends"].delete([key])


def a_pods_link_runs_both_programs_through_the_shared_blocks(guest: Guest) -> None:
    link = socket.if_nametoindex("host0")
    wanted: dict[Place, str] = {
        LinkPlace(link, IN, shared=True): "from_pod",
        LinkPlace(link, OUT, shared=True): "to_pod",
    }
    no_errors(guest.hooks.attach(wanted))
    no_errors(guest.hooks.attach(wanted))
    attached = guest.hooks.attached()
    assert wanted.items() <= attached.items(), attached
    before = guest.counted(Direction.FROM_POD), guest.counted(Direction.TO_POD)
    _send("host0")
    subprocess.run(["ip", "netns", "exec", "pod", *_sender("eth0")], check=True)
    assert guest.counted(Direction.FROM_POD) > before[0]
    assert guest.counted(Direction.TO_POD) > before[1]


def a_pod_without_a_row_sends_nothing(guest: Guest) -> None:
    run = syscall.run_program(guest.datapath.program("from_pod").fd, _packet())
    assert run.verdict == SHOT


def short_and_broken_packets_stop_no_program(guest: Guest) -> None:
    for program in guest.datapath.programs.values():
        if program.name in SOCKET_PROGRAMS:
            continue
        # Shorter than an IP header a test run takes no IP packet.
        for size in (34, 35, 53, 54):
            syscall.run_program(program.fd, _packet()[:size])
        for size in (15, 33, 64):
            syscall.run_program(program.fd, b"\xff" * size)


def an_uplink_and_the_overlay_run_theirs_and_let_go(guest: Guest) -> None:
    names = {"up0": "uplink", "vx0": "overlay"}
    wanted: dict[Place, str] = {}
    for device, what in names.items():
        for direction, program in ((IN, f"from_{what}"), (OUT, f"to_{what}")):
            wanted[LinkPlace(socket.if_nametoindex(device), direction)] = program
    no_errors(guest.hooks.attach(wanted))
    no_errors(guest.hooks.attach(wanted))
    pinned = sorted(path.name for path in (PINS / "hooks").glob("link-*"))
    assert len(pinned) == (len(wanted) if guest.features.tcx else 0)
    attached = guest.hooks.attached()
    assert wanted.items() <= attached.items(), attached
    _send("up1")
    no_errors(guest.hooks.detach(wanted))
    assert not wanted.keys() & guest.hooks.attached().keys()


def an_uplink_runs_its_programs_by_clsact_alone(guest: Guest) -> None:
    place = LinkPlace(socket.if_nametoindex("up0"), IN)
    with Hooks(guest.datapath.programs, PINS, CGROUP, has_tcx=False) as hooks:
        no_errors(hooks.attach({place: "from_uplink"}))
        assert hooks.attached()[place] == "from_uplink"
        no_errors(hooks.detach([place]))
        assert place not in hooks.attached()


def every_socket_hook_is_attached_and_pinned(guest: Guest) -> None:
    wanted: Mapping[Place, str] = {SocketPlace(name): name for name in SOCKET_PROGRAMS}
    no_errors(guest.hooks.attach(wanted))
    attached = guest.hooks.attached()
    assert wanted.items() <= attached.items(), attached


def connecting_to_a_service_reaches_its_backend(guest: Guest) -> None:
    _settings(guest)
    with socket.create_server(("127.0.0.1", 8080)) as server:
        _service(guest, VIP, backends=1)
        with socket.socket() as client:
            client.settimeout(20)
            client.connect((str(VIP), 80))
            assert client.getpeername() == (str(VIP), 80)
        server.accept()[0].close()


def connecting_to_a_service_without_backends_is_refused_at_once(guest: Guest) -> None:
    _settings(guest)
    _service(guest, CLOSED_VIP, backends=0)
    with socket.socket() as client:
        client.settimeout(20)
        assert client.connect_ex((str(CLOSED_VIP), 80)) == errno.ECONNREFUSED


def events_of_drops_are_read(guest: Guest) -> None:
    with EventReader(guest.datapath.tables["events"]) as reader:
        while reader.read():
            pass
        syscall.run_program(guest.datapath.program("from_pod").fd, _packet())
        (event,) = reader.read()
        assert event.direction == Direction.FROM_POD


def _settings(guest: Guest) -> None:
    none = (UNSPECIFIED, UNSPECIFIED)
    row = Settings(
        netns_cookie(), 0, 0, 0, jiffies_hz(), 0, 0, 0, *none, 0, 0, 0, 0, 0, *none, bytes(6)
    )
    guest.datapath.tables["settings"].update({pack_u32(0): row.pack()})


def _service(guest: Guest, vip: IPv4Address, backends: int) -> None:
    tables = guest.datapath.tables
    tables["backends"].update({pack_u64(BACKEND): Backend(SERVICE, 0).pack()})
    slot = Slot(BACKEND, IPv4Address("127.0.0.1"), 8080)
    tables["slots"].update({SlotKey(SERVICE, 0).pack(): slot.pack()})
    frontend = Frontend(SERVICE, 0, backends, 0, 0, 0, 0)
    tables["frontends"].update({FrontendKey(vip, 80, TCP).pack(): frontend.pack()})


def _packet() -> bytes:
    """A TCP SYN from 10.9.0.2 to 10.9.0.3."""
    ethernet = bytes(range(12)) + b"\x08\x00"
    addresses = IPv4Address("10.9.0.2").packed + IPv4Address("10.9.0.3").packed
    ip = struct.pack("!BBHHHBBH", 0x45, 0, 40, 1, 0, 64, TCP, 0) + addresses
    return ethernet + ip + struct.pack("!HHIIBBHHH", 4000, 80, 1, 0, 0x50, 2, 1024, 0, 0)


def _send(device: str) -> None:
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as raw:
        raw.bind((device, 0))
        # A program that drops what leaves is ENOBUFS to the sender.
        with suppress(OSError):
            raw.send(_packet())


def _sender(device: str) -> list[str]:
    return [sys.executable, "-m", "tests.kernels.inside", "--send", device]


CHECKS: tuple[Callable[[Guest], None], ...] = (
    every_program_is_loaded,
    the_kernel_is_supported_and_what_it_lacks_is_said,
    every_kind_of_table_is_written_listed_and_emptied,
    every_table_takes_the_names_of_its_fields,
    maps_are_opened_again_from_their_pins,
    a_pod_without_a_row_sends_nothing,
    short_and_broken_packets_stop_no_program,
    events_of_drops_are_read,
    a_pods_link_runs_both_programs_through_the_shared_blocks,
    an_uplink_and_the_overlay_run_theirs_and_let_go,
    an_uplink_runs_its_programs_by_clsact_alone,
    every_socket_hook_is_attached_and_pinned,
    connecting_to_a_service_reaches_its_backend,
    connecting_to_a_service_without_backends_is_refused_at_once,
)


def _try(check: Callable[[Guest], None], guest: Guest) -> None:
    started = time.monotonic()
    try:
        check(guest)
    except Exception as error:
        print(f"FAIL {check.__name__} {error!r}")
        traceback.print_exc(file=sys.stdout)
    else:
        print(f"PASS {check.__name__} {time.monotonic() - started:.1f} s")


def main() -> None:
    if sys.argv[1:2] == ["--send"]:
        _send(sys.argv[2])
        return
    print(f"KERNEL {os.uname().release}")
    with ExitStack() as stack:
        try:
            guest = Guest(stack)
        except Exception as error:
            print(f"BROKEN {error!r}")
            raise
        for check in CHECKS:
            _try(check, guest)
    print("END", flush=True)


if __name__ == "__main__":
    main()
