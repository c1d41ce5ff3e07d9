"""Owns what follows the loop's turns: readiness, sysctls of new links, the checkpoint.

Never alters World, plan or rows.
"""

import asyncio
import contextlib
import ctypes
import gc
import logging
import math
import time
from collections.abc import Callable

from weft.bpf.load import Datapath
from weft.bpf.pins import ForeignPin
from weft.cni.install import install_conflist
from weft.cni.node import NotReady
from weft.proxy.apply import podroutes, sysctl
from weft.proxy.apply.gate import Stage
from weft.proxy.apply.ledger import State
from weft.proxy.config import Config
from weft.proxy.loop import Loop, Turn
from weft.proxy.model.objects import Kind
from weft.proxy.model.world import World
from weft.proxy.node import DaemonNode
from weft.proxy.notices import Notices
from weft.proxy.plan.node import HOLD
from weft.proxy.ready import NodeCondition
from weft.proxy.watch import checkpoint
from weft.proxy.watch.api import ApiServers

log = logging.getLogger(__name__)

BASE_TABLES = ("links", "settings")
"""What must be in the kernel before the node takes pods; planners of the same names."""

HOOKS_TIMEOUT_S = 10.0

OLDER_EVERY_S = 1.0
"""How often a start asks whether a hook is left that it could not replace."""

CHECKPOINT = "api.json"

CACHE_AFTER_S = 5.0
"""How long a start waits for the API server before it takes the checkpoint."""

SAVE_EVERY_S = 30.0
SAVE_SHARE = 0.005
"""Saving never takes more of a core than this."""


class Upkeep:
    """What follows the loop's turns: readiness, sysctls of new links, memory that never changes."""

    def __init__(
        self,
        config: Config,
        loop: Loop,
        node: DaemonNode,
        datapath: Datapath,
        outdated: Callable[[], bool],
    ) -> None:
        """outdated: asks the kernel whether an older version's program runs anywhere."""
        self._config = config
        self._loop = loop
        self._node = node
        self._datapath = datapath
        self._outdated = outdated
        self.ready = asyncio.Event()
        loop.observers.append(self._turned)

    async def run(self) -> None:
        """Until the node is ready and nothing of an older version is left."""
        await self._loop.wait_until(self._in_line, math.inf)
        # They go with the address of an uplink; while no daemon ran nobody put them back.
        self._loop.suspect(podroutes.NAME)
        settle_memory()
        await self._loop.wait_until(self._hooked, HOOKS_TIMEOUT_S)
        self._datapath.retire()
        install_conflist(self._config.conf_dir)
        log.info("ready", extra={"node": self._config.node, "mode": self._config.mode})
        self.ready.set()
        await self._finish_migration()

    async def _finish_migration(self) -> None:
        """As long as a hook runs an older version's programs, they write to its maps."""
        if not self._datapath.migration.moves:
            return
        while True:
            if not await self._loop.between_turns(self._runs_older):
                break
            await asyncio.sleep(OLDER_EVERY_S)
        for _ in self._datapath.migration.finish():
            await asyncio.sleep(0)
        log.info("state of the version before is carried over, its maps are gone")

    def _runs_older(self) -> bool:
        try:
            return self._outdated()
        except (OSError, ForeignPin):  # the patrol says so
            return True

    def _in_line(self) -> bool:
        """Every source has listed, pods can be given addresses, the node's own rows are done."""
        if self._loop.applier.stage is not Stage.LISTED:
            return False
        try:
            ranges = self._node.network().ranges
        except NotReady:
            return False
        unplanned = {name for name, _ in self._loop.planning.failed}
        refused = {
            place.table
            for place, status in self._loop.applier.ledger.unfinished().items()
            # Without a hold link pods are served as well, only not as early.
            if status.state is State.ERROR and place.key != HOLD
        }
        return bool(ranges) and not any(t in refused or t in unplanned for t in BASE_TABLES)

    def _hooked(self) -> bool:
        return not self._loop.applier.ledger.errors().get("hooks")

    def _turned(self, turn: Turn) -> None:
        names = {change.key for change in turn.changes if change.kind is Kind.LINK}
        if names:
            self._loop.suspect(sysctl.NAME)


def settle_memory() -> None:
    """What the first listing made stays: later collections need not walk it again. What it needed
    on the way (pages of lists, dumps) goes back to the node.
    """
    gc.collect()
    gc.freeze()
    gc.enable()
    with contextlib.suppress(AttributeError):  # a libc without malloc_trim
        ctypes.CDLL(None).malloc_trim(0)


class ApiKeeper:
    """What a node with an API server does beside: the Node's condition, Events, the checkpoint."""

    def __init__(
        self, config: Config, loop: Loop, servers: ApiServers, ready: asyncio.Event
    ) -> None:
        self._path = config.state / CHECKPOINT
        self._node = config.node
        self._condition = NodeCondition(servers, config.node, config.remove_taint)
        self.notices = Notices(servers, config.node)
        self._loop = loop
        self._ready = ready
        self._saved: World | None = None

    async def run(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._announce(), name="node-condition")
            tasks.create_task(self.notices.run(), name="notices")
            tasks.create_task(self._checkpoint(), name="checkpoint")

    async def _announce(self) -> None:
        await self._ready.wait()
        await self._condition.keep()

    async def _checkpoint(self) -> None:
        if not await self._loop.wait_until(self._has_listed, CACHE_AFTER_S):
            log.warning("no API server yet, planning from the checkpoint")
            for listed in await asyncio.to_thread(
                lambda: [*checkpoint.load(self._path, self._node)]
            ):
                self._loop.post(listed)
        await self._loop.wait_until(self._has_listed, math.inf)
        while True:
            spent_s = await self._save()
            await asyncio.sleep(max(SAVE_EVERY_S, spent_s / SAVE_SHARE))

    async def _save(self) -> float:
        """Write what changed since the last time; how long it took."""
        started_s, world = time.monotonic(), self._loop.world
        if self._saved is not None and not _differs(world, self._saved):
            return 0.0
        try:
            await asyncio.to_thread(checkpoint.save, self._path, world)
        except OSError as error:
            log.error("checkpoint", extra={"path": str(self._path), "error": str(error)})
        self._saved = world
        return time.monotonic() - started_s

    def _has_listed(self) -> bool:
        return self._loop.applier.stage is Stage.LISTED


def _differs(one: World, other: World) -> bool:
    """Tables are shared between Worlds as long as nothing in them moves."""
    return any(one.tables.get(kind) is not other.tables.get(kind) for kind in checkpoint.RECORDS)
