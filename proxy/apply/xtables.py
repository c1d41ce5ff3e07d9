"""Owns what legacy iptables (ip_tables, ip6_tables) says and is told of its FORWARD chains.

Read from the kernel itself (linux/netfilter_ipv4/ip_tables.h: IPT_SO_GET_INFO and GET_ENTRIES), so
that looking costs microseconds; written by its own tool, which alone takes the lock that other
writers respect. Never makes a table: asking for one that is not there would.
"""

import ctypes
import os
import socket
import struct
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_GET_INFO, _GET_ENTRIES = 64, 65
_NAME_BYTES, _INFO, _ENTRIES_AT = 32, struct.Struct("=32s 13I"), 40
_FORWARD = 2
_TARGET_BYTES = 32
_VERDICT_DROP, _VERDICT_ACCEPT = -1, -2
_IFNAME_BYTES = 16
_TOOL_TIMEOUT_S = 5.0


@dataclass(frozen=True, slots=True)
class Family:
    """One of the two: its tool, where its tables are named, and where its fields lie.

    names_at: the names of links in a rule's entry; offsets_at: those of its target and its end.
    """

    tool: str
    tables: Path
    socket_family: int
    level: int
    names_at: int
    offsets_at: int


_TABLES = Path("/proc/thread-self/net")
FAMILIES = (
    Family("iptables-legacy", _TABLES / "ip_tables_names", socket.AF_INET, 0, 16, 88),
    Family("ip6tables-legacy", _TABLES / "ip6_tables_names", socket.AF_INET6, 41, 64, 140),
)


def accepted(family: Family, prefix: str) -> tuple[bool, bool] | None:
    """Whether FORWARD has a rule that accepts what comes, and what goes, by links whose names begin
    with `prefix`. None: there is no such chain, or it accepts what no rule of its drops.
    """
    if not _has_filter(family):
        return None
    start, end, entries = _entries(family)
    if _verdict(family, entries, end) != _VERDICT_DROP:
        return None
    found = list(_rules(family, entries, start, end))
    return (prefix, "") in found, ("", prefix) in found


def insert(family: Family, *rule: str) -> None:
    """Put a rule at the top of FORWARD. Raises OSError with the tool's word."""
    command = (family.tool, "-w", "1", "-I", "FORWARD", *rule)
    try:
        subprocess.run(command, check=True, capture_output=True, timeout=_TOOL_TIMEOUT_S, text=True)
    except subprocess.CalledProcessError as error:
        raise OSError(f"{family.tool}: {' '.join(error.stderr.split())}") from error
    except subprocess.TimeoutExpired as error:
        raise OSError(f"{family.tool} has not ended after {_TOOL_TIMEOUT_S:.0f} s") from error


def _has_filter(family: Family) -> bool:
    try:
        return "filter" in family.tables.read_text().split()
    except OSError:
        return False


def _entries(family: Family) -> tuple[int, int, bytes]:
    """Where FORWARD begins and where its policy stands in the table's entries, and these."""
    info = _INFO.unpack(_ask(family, _GET_INFO, _INFO.size))
    # name, valid_hooks, hook_entry[5], underflow[5], num_entries, size
    start, end, size = info[2 + _FORWARD], info[7 + _FORWARD], info[13]
    return start, end, _ask(family, _GET_ENTRIES, _ENTRIES_AT + size, size)[_ENTRIES_AT:]


def _ask(family: Family, option: int, answer_bytes: int, size: int = 0) -> bytes:
    """getsockopt with a question in its buffer, which Python's own does not offer."""
    buffer = ctypes.create_string_buffer(answer_bytes)
    struct.pack_into(f"={_NAME_BYTES}sI", buffer, 0, b"filter", size)
    length = ctypes.c_uint32(answer_bytes)
    libc = ctypes.CDLL(None, use_errno=True)
    with socket.socket(family.socket_family, socket.SOCK_DGRAM) as one:
        if libc.getsockopt(one.fileno(), family.level, option, buffer, ctypes.byref(length)):
            code = ctypes.get_errno()
            raise OSError(code, f"read {family.tool}'s filter table: {os.strerror(code)}")
    return buffer.raw


def _rules(family: Family, entries: bytes, start: int, end: int) -> Iterator[tuple[str, str]]:
    """What names of links in and out begin with in rules that accept and ask for nothing else."""
    at = start
    while at < end:
        names, offsets = at + family.names_at, at + family.offsets_at
        # Around the names: addresses; protocol and flags, and 4 bytes that the kernel notes in.
        asks = any(entries[at:names]) or any(entries[names + 4 * _IFNAME_BYTES : offsets - 4])
        if not asks and _verdict(family, entries, at) == _VERDICT_ACCEPT:
            name_in, name_out, mask_in, mask_out = (
                entries[names + i * _IFNAME_BYTES : names + (i + 1) * _IFNAME_BYTES]
                for i in range(4)
            )
            yield _prefix(name_in, mask_in), _prefix(name_out, mask_out)
        (size,) = struct.unpack_from("=H", entries, offsets + 2)
        if size == 0:
            return
        at += size


def _prefix(name: bytes, mask: bytes) -> str:
    """A whole name's mask holds its last zero byte too, which no prefix of ours has."""
    return name[: mask.count(0xFF)].decode(errors="replace")


def _verdict(family: Family, entries: bytes, at: int) -> int:
    """What the entry at `at` says; 0 where that is not for itself to say (a jump, a module)."""
    (target_at,) = struct.unpack_from("=H", entries, at + family.offsets_at)
    target = at + target_at
    is_standard = entries[target + 2] == 0
    return int(struct.unpack_from("=i", entries, target + _TARGET_BYTES)[0]) if is_standard else 0
