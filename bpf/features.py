"""What the running kernel can do, asked by trying, and the node's clock and namespace.

Never guesses from a version. What is missing is said in words that an operator can act on.
"""

import errno
import os
import socket
import struct
import time
from dataclasses import dataclass

from weft.bpf import syscall
from weft.bpf.syscall import AttachType, BpfError, ProgramType

_SO_NETNS_COOKIE = 71
_CLOCK_MONOTONIC_COARSE = 6  # linux/time.h; `time` has no name for it
_EXIT = struct.pack("=BBhi", 0x95, 0, 0, 0)
_MOV_R0_1 = struct.pack("=BBhi", 0xB7, 0, 0, 1)
_CALL, _NETNS_COOKIE, _SET_RETVAL = 0x85, 122, 187


@dataclass(frozen=True, slots=True)
class Features:
    """tcx: links carry pinned programs that are replaced in place (6.6). netns_cookie: socket
    hooks know the pod's namespace (5.7). set_retval: a connect() can be refused with ECONNREFUSED
    (5.18)."""

    tcx: bool
    netns_cookie: bool
    set_retval: bool

    @property
    def missing(self) -> tuple[str, ...]:
        """What this kernel lacks and what follows from it."""
        words = {
            "tcx": "no tcx (needs 6.6): uplinks and the overlay use clsact",
            "netns_cookie": "no bpf_get_netns_cookie in socket hooks (needs 5.7): not supported",
            "set_retval": "no bpf_set_retval in socket hooks (needs 5.18): not supported",
        }
        return tuple(text for name, text in words.items() if not getattr(self, name))

    @property
    def supported(self) -> bool:
        """Whether Weft's programs can run here at all (Linux 6.1 and later)."""
        return self.netns_cookie and self.set_retval


def probe() -> Features:
    """Ask this kernel, in the present network namespace. Raises BpfError without the rights."""
    return Features(_has_tcx(), _has_helper(_NETNS_COOKIE), _has_helper(_SET_RETVAL))


def jiffies_hz() -> int:
    """How many jiffies the kernel counts in a second (CONFIG_HZ): its coarse clock moves by one."""
    return round(1 / time.clock_getres(_CLOCK_MONOTONIC_COARSE))


def jiffies_now() -> int:
    """The present jiffies, right to a second; the low 32 bits are what `seen` fields hold.

    They begin at -300 seconds in 32 bits (INITIAL_JIFFIES), when CLOCK_MONOTONIC begins at 0."""
    hz = jiffies_hz()
    return 2**32 - 300 * hz + time.monotonic_ns() * hz // 10**9


def netns_cookie() -> int:
    """The number by which the kernel's programs know the present network namespace."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        value: int = struct.unpack("=Q", one.getsockopt(socket.SOL_SOCKET, _SO_NETNS_COOKIE, 8))[0]
    return value


def _has_tcx() -> bool:
    """Whether programs of a link's tcx hook can be listed: EINVAL before 6.6."""
    try:
        syscall.query(socket.if_nametoindex("lo"), AttachType.TCX_INGRESS, "lo")
    except BpfError as error:
        if error.errno != errno.EINVAL:
            raise
        return False
    return True


def _has_helper(number: int) -> bool:
    """Whether a connect4 program may call the helper with its context."""
    call = struct.pack("=BBhi", _CALL, 0, 0, number)
    # r1 is the context, or for set_retval any number.
    argument = struct.pack("=BBhi", 0xB7, 1, 0, 0) if number == _SET_RETVAL else b""
    code = argument + call + _MOV_R0_1 + _EXIT
    kind, attach = ProgramType.CGROUP_SOCK_ADDR, AttachType.CGROUP_INET4_CONNECT
    try:
        os.close(syscall.load_program(kind, attach, code, "probe"))
    except BpfError as error:
        if error.errno not in (errno.EINVAL, errno.EACCES):
            raise
        return False
    return True
