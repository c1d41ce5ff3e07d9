"""The bpf(2) system call, raw: one function for each command in use.

Owns the numbers of linux/bpf.h and the words of its errors. Knows no table, program or hook of
ours, and keeps no descriptor: whoever opens one closes it.
"""

import ctypes
import errno
import os
import platform
import struct
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path

_NUMBERS = {"x86_64": 321, "aarch64": 280}
_LOG_BYTES = 1 << 24
_LOG_TAIL_LINES = 30
# The kernel's own "not supported", which errno(3) does not know.
ENOTSUPP = 524
BPF_F_NO_PREALLOC = 1
BPF_NOEXIST = 1


class Command(IntEnum):
    """enum bpf_cmd"""

    MAP_CREATE = 0
    MAP_LOOKUP_ELEM = 1
    MAP_UPDATE_ELEM = 2
    MAP_DELETE_ELEM = 3
    PROG_LOAD = 5
    OBJ_PIN = 6
    OBJ_GET = 7
    PROG_TEST_RUN = 10
    PROG_GET_FD_BY_ID = 13
    OBJ_GET_INFO_BY_FD = 15
    PROG_QUERY = 16
    BTF_LOAD = 18
    MAP_LOOKUP_BATCH = 24
    MAP_UPDATE_BATCH = 26
    MAP_DELETE_BATCH = 27
    LINK_CREATE = 28
    LINK_UPDATE = 29


class MapType(IntEnum):
    """enum bpf_map_type, those in use"""

    HASH = 1
    ARRAY = 2
    PROG_ARRAY = 3
    PERCPU_ARRAY = 6
    LRU_HASH = 9
    LPM_TRIE = 11
    RINGBUF = 27


class ProgramType(IntEnum):
    """enum bpf_prog_type, those in use"""

    SCHED_CLS = 3
    CGROUP_SOCK_ADDR = 18


class AttachType(IntEnum):
    """enum bpf_attach_type, those in use; programs on links have none (0)"""

    NONE = 0
    CGROUP_INET4_CONNECT = 10
    CGROUP_INET6_CONNECT = 11
    CGROUP_UDP4_SENDMSG = 14
    CGROUP_UDP6_SENDMSG = 15
    CGROUP_UDP4_RECVMSG = 19
    CGROUP_UDP6_RECVMSG = 20
    CGROUP_INET4_GETPEERNAME = 29
    CGROUP_INET6_GETPEERNAME = 30
    TCX_INGRESS = 46
    TCX_EGRESS = 47


class BpfError(OSError):
    """bpf(2) refused: what was tried, on what, the kernel's word, and its verifier's last lines."""

    def __init__(self, code: int, tried: str, log: str = "") -> None:
        name = "ENOTSUPP" if code == ENOTSUPP else errno.errorcode.get(code, str(code))
        tail = "\n".join(log.splitlines()[-_LOG_TAIL_LINES:])
        hint = " (this needs CAP_BPF and CAP_NET_ADMIN)" if code == errno.EPERM else ""
        super().__init__(code, f"{tried}: {name}{hint}" + (f"\n{tail}" if tail else ""))

    def __str__(self) -> str:
        return str(self.strerror)


_libc = ctypes.CDLL(None, use_errno=True)
_number = _NUMBERS[platform.machine()]


def bpf(command: Command, attr: ctypes.Array[ctypes.c_char]) -> int:
    """One call with `attr` as the kernel's union bpf_attr; the result, or -errno."""
    result: int = _libc.syscall(_number, command.value, attr, len(attr))
    return result if result >= 0 else -ctypes.get_errno()


def call(command: Command, attr: bytes, tried: str) -> int:
    """`bpf` with an attr that the kernel only reads; raises BpfError."""
    result = bpf(command, ctypes.create_string_buffer(attr, len(attr)))
    if result < 0:
        raise BpfError(-result, tried)
    return result


def address_of(buffer: ctypes.Array[ctypes.c_char]) -> int:
    """A buffer's address, as pointers in an attr are written; the caller keeps the buffer alive."""
    return ctypes.addressof(buffer)


def buffer_of(data: bytes) -> ctypes.Array[ctypes.c_char]:
    """A copy of `data` that the kernel may read or write, of one byte at least."""
    return ctypes.create_string_buffer(data, max(1, len(data)))


def create_map(
    kind: MapType,
    sizes: tuple[int, int, int],
    flags: int,
    name: str,
    types: tuple[int, int, int] | None = None,
) -> int:
    """A new map's descriptor. sizes: of a key, of a value, number of entries; types: a BTF's
    descriptor and the numbers of the key's and the value's types in it."""
    words = (kind, *sizes, flags, name.encode()[:15], *(types or ()))
    attr = struct.pack("=5I8x16s" + ("4x3I" if types else ""), *words)
    entries = f"{sizes[2]} entries of {sizes[0]}+{sizes[1]} bytes"
    return call(Command.MAP_CREATE, attr, f"create table {name} ({kind.name}, {entries})")


def load_btf(section: bytes, of: str) -> int:
    """A BTF's descriptor."""
    data = buffer_of(section)
    attr = struct.pack("=QQ4I", address_of(data), 0, len(section), 0, 0, 0)
    return call(Command.BTF_LOAD, attr, f"load the BTF of {of}")


def pin(fd: int, path: Path) -> None:
    """Keep what `fd` means under `path` of a BPF file system."""
    text = buffer_of(os.fsencode(path) + b"\0")
    call(Command.OBJ_PIN, struct.pack("=QI4x", address_of(text), fd), f"pin {path}")


def open_pin(path: Path) -> int:
    """A descriptor of what is pinned under `path`."""
    text = buffer_of(os.fsencode(path) + b"\0")
    return call(Command.OBJ_GET, struct.pack("=Q8x", address_of(text)), f"open pin {path}")


def info(fd: int, size: int, of: str) -> bytes:
    """The first `size` bytes of the kernel's bpf_{prog,map,link}_info, zero where it knows less."""
    answer = buffer_of(bytes(size))
    attr = struct.pack("=IIQ", fd, size, address_of(answer))
    call(Command.OBJ_GET_INFO_BY_FD, attr, f"ask about {of}")
    return answer.raw


@dataclass(frozen=True, slots=True)
class MapInfo:
    """A map as the kernel holds it, sizes in bytes."""

    kind: int
    id: int
    key_size: int
    value_size: int
    max_entries: int
    flags: int


def map_info(fd: int, of: str) -> MapInfo:
    """What the kernel says of a map's descriptor."""
    return MapInfo(*struct.unpack_from("=6I", info(fd, 24, of)))


@dataclass(frozen=True, slots=True)
class ProgramInfo:
    """A program as the kernel holds it. tag: the kernel's hash of its instructions."""

    kind: int
    id: int
    tag: str
    name: str
    verified_insns: int


def program_info(fd: int, of: str) -> ProgramInfo:
    """What the kernel says of a program's descriptor. verified_insns: 0 before 5.16."""
    data = info(fd, 232, of)
    kind, number, tag = struct.unpack_from("=II8s", data)
    name = data[64:80].split(b"\0")[0].decode()
    return ProgramInfo(kind, number, tag.hex(), name, struct.unpack_from("=I", data, 216)[0])


class LinkType(IntEnum):
    """enum bpf_link_type, those in use"""

    CGROUP = 3
    TCX = 11


@dataclass(frozen=True, slots=True)
class LinkInfo:
    """A BPF link. target: a cgroup's id or an ifindex, 0 once that is gone."""

    kind: LinkType
    id: int
    program_id: int
    target: int


def link_info(fd: int, of: str) -> LinkInfo:
    """What the kernel says of a link's descriptor; ValueError for other kinds than ours."""
    data = info(fd, 32, of)
    number, link, program = struct.unpack_from("=3I", data)
    kind = LinkType(number)
    target = struct.unpack_from("=Q" if kind is LinkType.CGROUP else "=I", data, 16)[0]
    return LinkInfo(kind, link, program, target)


def load_program(
    kind: ProgramType, attach: AttachType, insns: bytes, name: str, log_level: int = 0
) -> int:
    """A program's descriptor. A refusal is asked again with the verifier's log."""
    license_text, code = buffer_of(b"GPL\0"), buffer_of(insns)
    log = buffer_of(bytes(_LOG_BYTES)) if log_level else buffer_of(b"")
    log_fields = (log_level, len(log), address_of(log)) if log_level else (0, 0, 0)
    attr = buffer_of(
        struct.pack(
            "=IIQQIIQII16sII",
            *(kind, len(insns) // 8, address_of(code), address_of(license_text)),
            *log_fields,
            *(0, 0, name.encode()[:15], 0, attach),
        )
    )
    result = bpf(Command.PROG_LOAD, attr)
    if result >= 0:
        return result
    if not log_level and result not in (-errno.EPERM, -errno.ENOENT):
        return load_program(kind, attach, insns, name, log_level=1)
    raise BpfError(
        -result, f"load program {name} ({kind.name})", log.value.decode(errors="replace")
    )


def create_link(program: int, target: int, attach: AttachType, tried: str) -> int:
    """A link's descriptor. target: a cgroup's descriptor, or an ifindex."""
    return call(Command.LINK_CREATE, struct.pack("=4I", program, target, attach, 0), tried)


def update_link(link: int, program: int, tried: str) -> None:
    """Put `program` in the place of the link's present one, between two packets."""
    call(Command.LINK_UPDATE, struct.pack("=4I", link, program, 0, 0), tried)


def program_by_id(number: int) -> int:
    """A descriptor of a loaded program."""
    attr = struct.pack("=III", number, 0, 0)
    return call(Command.PROG_GET_FD_BY_ID, attr, f"open program {number}")


def query(target: int, attach: AttachType, of: str) -> tuple[int, ...]:
    """Ids of the programs attached to a cgroup's descriptor or an ifindex, in running order."""
    room = 64
    ids = buffer_of(bytes(4 * room))
    attr = buffer_of(struct.pack("=4IQI4x32x", target, attach, 0, 0, address_of(ids), room))
    result = bpf(Command.PROG_QUERY, attr)
    if result < 0:
        raise BpfError(-result, f"list programs of {of}")
    return struct.unpack_from(f"={struct.unpack_from('=I', attr, 24)[0]}I", ids)


@dataclass(frozen=True, slots=True)
class ProgramRun:
    """What a program made of a packet (BPF_PROG_TEST_RUN). verdict: its return value;
    duration_ns: of one run, on average."""

    verdict: int
    packet: bytes
    context: bytes
    duration_ns: int


def run_program(program: int, packet: bytes, context: bytes = b"", repeat: int = 1) -> ProgramRun:
    """Run a program on a packet (from its Ethernet header on, 14 bytes at least). context: the
    program's struct __sk_buff, 192 bytes. Changes of packet and mark persist across repeats."""
    given, answer = buffer_of(packet), buffer_of(bytes(len(packet) + 4096))
    before, after = buffer_of(context), buffer_of(context)
    attr = buffer_of(
        struct.pack(
            "=4IQQ4IQQ",
            *(program, 0, len(packet), len(answer), address_of(given), address_of(answer)),
            *(repeat, 0, len(context), len(context)),
            *((address_of(before), address_of(after)) if context else (0, 0)),
        )
    )
    result = bpf(Command.PROG_TEST_RUN, attr)
    if result < 0:
        raise BpfError(-result, f"try program {program} on {len(packet)} bytes")
    verdict, _, size = struct.unpack_from("=4xIII", attr)
    (duration_ns,) = struct.unpack_from("=I", attr, 36)
    return ProgramRun(verdict, answer.raw[:size], after.raw[: len(context)], duration_ns)
