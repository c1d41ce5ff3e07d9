"""weftd: reads its settings, runs the daemon until a signal, ends with a code that says why."""

import asyncio
import logging
import signal
import sys
from collections.abc import Awaitable, Callable, Sequence

from weft.bpf.objects import ObjectError
from weft.bpf.pins import ForeignPin, PinsUnusable
from weft.bpf.syscall import BpfError
from weft.cni.spec import CniError
from weft.proxy import logs
from weft.proxy.cleanup import PodsLeft, cleanup
from weft.proxy.config import CLEANUP, ConfigError, load
from weft.proxy.daemon import POD_LINKS, Daemon, KernelTooOld
from weft.proxy.watch.api import ApiUnreachable

log = logging.getLogger("weftd")

USAGE, CANNOT_START = 2, 1

_EXPECTED = (
    ApiUnreachable,
    BpfError,
    CniError,
    ForeignPin,
    KernelTooOld,
    ObjectError,
    OSError,
    PinsUnusable,
    PodsLeft,
)
"""Failures that the operator can do something about; their text says what."""


def main(argv: Sequence[str] | None = None) -> int:
    arguments = sys.argv[1:] if argv is None else argv
    try:
        config = load(arguments)
    except ConfigError as error:
        print(f"weftd: {error}", file=sys.stderr)
        return USAGE
    logs.start(config.log_level)
    code = 0
    try:
        if CLEANUP in arguments:
            cleanup(config, POD_LINKS)
        else:
            asyncio.run(_run(Daemon(config).run))
    except* _EXPECTED as failures:
        for failure in failures.exceptions:
            log.critical("cannot go on", extra={"error": str(failure)})
        code = CANNOT_START
    return code


async def _run(daemon: Callable[[asyncio.Event], Awaitable[None]]) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await daemon(stop)


if __name__ == "__main__":
    sys.exit(main())
